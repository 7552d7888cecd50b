//! Tables that lie wholly under a range delete: they leave the tree without being read.
//!
//! ```text
//!   run 9          [c ───────────────── x)#90
//!   run 3     [a ── d]  [e ── k]  [l ── q]  [r ── z]
//!                       └──── gone ─────┘               the two at the ends are left to a merge
//! ```
//!
//! A table may go when every key from its first to its last is covered by newer range deletes of one newer run, and no
//! snapshot stands between the table and them. What its tombstones hid is hidden by the range deletes as well.
//!
//! Threading: under the lock of [`Merges`](crate::merges::Merges), so that no merge takes such a table meanwhile.

use std::collections::BTreeSet;
use std::ops::Bound;

use pebble_compaction::Busy;
use pebble_cursor::{RangeDelete, RangeDeletes};
use pebble_format::{KeyspaceId, Seqno};
use pebble_manifest::{Edit, Run, TableMeta};

use crate::core::Core;
use crate::error::Result;
use crate::install::InstallError;
use crate::state::Tree;

impl Core {
    /// Drops the tables that lie wholly under a range delete. Cost where there is no range delete: a look.
    pub(crate) fn drop_covered(&self) -> Result<()> {
        if self.state.load().tree.range_deletes.is_empty() {
            return Ok(());
        }
        let bytes = self.merges.with_busy(|busy| {
            let tree = self.state.load().tree.clone();
            let (removed, bytes) = covered(&tree, &self.snapshots.list(), busy);
            if removed.is_empty() {
                return Ok(0);
            }
            let edit = Edit { removed, ..Edit::default() };
            self.install(|_| Ok(edit), None).map_err(InstallError::into_cause).map(|()| bytes)
        })?;
        self.counters.dropped_covered(bytes);
        Ok(())
    }
}

/// Numbers and bytes of the tables that may go.
fn covered(tree: &Tree, snapshots: &[Seqno], busy: &Busy) -> (Vec<u64>, u64) {
    let mut found = BTreeSet::new();
    for (place, deletes) in &tree.range_deletes {
        for run in tree.version.runs().skip(place + 1) {
            let near = deletes.spans().iter().flat_map(|span| tables_near(run, span));
            let gone = near.filter(|meta| may_go(meta, deletes, snapshots) && !busy.contains(meta.number));
            found.extend(gone.map(|meta| (meta.number, meta.len)));
        }
    }
    (found.iter().map(|(number, _)| *number).collect(), found.iter().map(|(_, len)| len).sum())
}

/// The tables of a run that a range reaches into.
fn tables_near<'a>(run: &'a Run, span: &RangeDelete) -> impl Iterator<Item = &'a TableMeta> {
    let end = match span.keyspace.0.checked_add(1).map(KeyspaceId) {
        _ if !span.end.is_empty() => Bound::Excluded((span.keyspace, &*span.end)),
        Some(next) => Bound::Excluded((next, &b""[..])),
        None => Bound::Unbounded,
    };
    let near = run.overlapping(Bound::Included((span.keyspace, &span.start)), end);
    run.tables().get(near).unwrap_or_default().iter().map(|meta| &**meta)
}

fn may_go(meta: &TableMeta, deletes: &RangeDeletes, snapshots: &[Seqno]) -> bool {
    let (first, last) = (meta.first.as_ref(), meta.last.as_ref());
    // Its own range deletes may reach on to where nothing covers them.
    let within = meta.reach.is_none() && first.keyspace == last.keyspace;
    let newest = deletes.seqno_max().unwrap_or_default();
    let between = |snapshot: &Seqno| (meta.seqno_min..newest).contains(snapshot);
    within
        && deletes.covers_all(first.keyspace, first.user_key, last.user_key, meta.seqno_max)
        && !snapshots.iter().any(between)
}

//! Tables under range deletes: those that lie there whole leave the tree without being read, those that lie there
//! for the most part are merged.
//!
//! ```text
//!   run 9          [c ───────────────── x)#90
//!   run 3     [a ── d]  [e ── k]  [l ── q]  [r ── z]
//!              merged   └──── gone ─────┘    merged      if half of it or more is hidden; else left to its turn
//! ```
//!
//! A table may go when every key from its first to its last is covered by newer range deletes of one newer run, and
//! no snapshot stands between the table and them. What its tombstones hid is hidden by the range deletes as well.
//!
//! Threading: under the lock of [`Merges`](crate::merges::Merges), so that no merge takes such a table meanwhile.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use pebble_compaction::{Busy, KeyRange};
use pebble_cursor::{RangeDelete, RangeDeletes};
use pebble_format::{KeyspaceId, Seqno};
use pebble_manifest::{Edit, TableMeta};
use pebble_sstable::KeyBoundary;

use crate::core::Core;
use crate::error::Result;
use crate::install::InstallError;
use crate::state::Tree;

/// The part of a table that must be hidden for a merge to pay: it frees as much as it writes.
const PART_MIN: f64 = 0.5;

/// Which tables are looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Covered {
    /// Those that may be dropped.
    Wholly,
    /// Those of which a merge would free the most part, too.
    WhollyOrMostly,
}

impl Core {
    /// Drops the tables that lie wholly under a range delete, and asks for a merge of those of which the most part
    /// does. To be called when a flush has brought range deletes, and when what kept a table may be gone: a merge, or a
    /// snapshot. Cost where there is no range delete: a look.
    pub(crate) fn drop_covered_if_any(&self, which: Covered) {
        if !self.state.load().tree.range_deletes.is_empty()
            && let Err(error) = self.drop_covered(which)
        {
            tracing::warn!(%error, "tables under a range delete stay until a merge");
        }
    }

    fn drop_covered(&self, which: Covered) -> Result<()> {
        let (bytes, partly) = self.merges.with_busy(|busy| -> Result<_> {
            let tree = Arc::clone(&self.state.load().tree);
            let (removed, bytes, partly) = covered(&tree, &self.snapshots.list(), busy, which);
            if !removed.is_empty() {
                let edit = Edit { removed, ..Edit::default() };
                self.install(|_| Ok(edit), None).map_err(InstallError::into_cause)?;
            }
            Ok((bytes, partly))
        })?;
        self.counters.dropped_covered(bytes);
        partly.into_iter().for_each(|range| self.wanted.add_whatever_it_costs(range));
        Ok(())
    }
}

/// The tables that may go, their bytes, and a key of each of those of which the most part is hidden.
fn covered(tree: &Tree, snapshots: &[Seqno], busy: &Busy, which: Covered) -> (Vec<u64>, u64, Vec<KeyRange>) {
    let (mut removed, mut bytes, mut partly) = (Vec::new(), 0, Vec::new());
    for (place, deletes) in &tree.range_deletes {
        let runs = tree.version.runs().zip(&tree.runs).skip(place + 1);
        for (run, tables) in runs {
            let mut touched: BTreeMap<usize, Vec<(KeyBoundary<'_>, KeyBoundary<'_>)>> = BTreeMap::new();
            for (low, high) in deletes.spans().iter().map(bounds) {
                for at in run.overlapping(low, high) {
                    touched.entry(at).or_default().push((low, high));
                }
            }
            for (at, spans) in touched {
                let (Some(meta), Some(table)) = (run.tables().get(at), tables.get(at)) else { continue };
                if busy.contains(meta.number)
                    || removed.contains(&meta.number)
                    || is_seen(meta, deletes, snapshots)
                {
                    continue;
                }
                if is_whole(meta, deletes) {
                    removed.push(meta.number);
                    bytes += meta.len;
                    continue;
                }
                // What cannot be read frees nothing.
                let hidden = || spans.iter().map(|(low, high)| table.part_within(*low, *high).unwrap_or(0.0));
                if which == Covered::WhollyOrMostly && hidden().sum::<f64>() >= PART_MIN {
                    partly.push(first_key(meta));
                }
            }
        }
    }
    (removed, bytes, partly)
}

/// What a range delete covers, as bounds.
fn bounds(span: &RangeDelete) -> (KeyBoundary<'_>, KeyBoundary<'_>) {
    let high = match span.keyspace.0.checked_add(1).map(KeyspaceId) {
        _ if !span.end.is_empty() => Bound::Excluded((span.keyspace, &*span.end)),
        Some(next) => Bound::Excluded((next, &b""[..])),
        None => Bound::Unbounded,
    };
    (Bound::Included((span.keyspace, &span.start)), high)
}

/// Whether every key of the table is hidden.
fn is_whole(meta: &TableMeta, deletes: &RangeDeletes) -> bool {
    let (first, last) = (meta.first.as_ref(), meta.last.as_ref());
    // Its own range deletes may reach on to where nothing covers them.
    meta.reach.is_none()
        && first.keyspace == last.keyspace
        && deletes.covers_all(first.keyspace, first.user_key, last.user_key, meta.seqno_max)
}

/// Whether a snapshot may see records of the table that the range deletes hide from others.
fn is_seen(meta: &TableMeta, deletes: &RangeDeletes, snapshots: &[Seqno]) -> bool {
    let newest = deletes.seqno_max().unwrap_or_default();
    snapshots.iter().any(|snapshot| (meta.seqno_min..newest).contains(snapshot))
}

fn first_key(meta: &TableMeta) -> KeyRange {
    let (keyspace, key) = meta.starts();
    KeyRange { keyspace, start: key.into(), end: [key, b"\0"].concat().into() }
}

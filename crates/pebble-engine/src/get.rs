//! The point read: newest place first, and the first version found is the answer.
//!
//! ```text
//!   get ─► State::load ─► Visible::get
//!        ├─ Memtable::may_hold ─► get_pinned   active, then sealed newest to oldest
//!        └─ Run::find ─► Table::prefetch …     the one table of each run that may hold the key: ask for its line
//!                     ─► Table::get_hashed     newest run first: index line, then record: two dependent misses
//!                     ─► Values::follow        where its value lies apart, one more
//! ```
//!
//! The order of places is the order of time: every record in an earlier place is newer than every record of the
//! same key in a later one. So the search stops at the first hit, a tombstone or a range delete included.

use pebble_cursor::RangeDeletes;
use pebble_format::hash::key_hash;
use pebble_format::record::check_lengths;
use pebble_format::{InternalKey, KeyspaceId, Pinned, PinnedRecord, Seqno};

use crate::core::Core;
use crate::error::Result;
use crate::state::{ReadState, Tree};

/// Tables whose index lines are asked for ahead of the first probe.
const PREFETCH_MAX: usize = 16;

impl Core {
    /// The value that `key` has at `at`, or now. Pins the segment or the table that holds it; copies nothing.
    pub(crate) fn get(&self, keyspace: KeyspaceId, key: &[u8], at: Option<Seqno>) -> Result<Option<Pinned>> {
        self.status.check_open()?;
        check_lengths(key, b"")?;
        let state = self.state.load();
        let seqno = at.unwrap_or_else(|| self.visible.get());
        let found = state.find(InternalKey::lookup(keyspace, key, seqno)).map_err(|error| self.met(error))?;
        match (found.filter(|found| !found.record().is_tombstone()), &self.doubts) {
            (None, Some(doubts)) => doubts.check(keyspace, key).map(|()| None),
            (Some(found), _) if found.record().is_reference() => {
                let record = state.tree.values.follow(found.record()).map_err(|error| self.met(error))?;
                Ok(Some(record.into_value()))
            }
            (found, _) => Ok(found.map(PinnedRecord::into_value)),
        }
    }
}

impl ReadState {
    fn find(&self, lookup: InternalKey<'_>) -> Result<Option<PinnedRecord>> {
        let hash = key_hash(lookup.keyspace, lookup.user_key);
        if !self.sealed.is_empty() {
            let likely = self.memtables().filter(|memtable| memtable.may_hold(hash));
            likely.for_each(|memtable| memtable.prefetch(lookup));
        }
        for memtable in self.memtables() {
            let deletes = memtable.range_deletes();
            let found = if memtable.may_hold(hash) { memtable.get_pinned(lookup) } else { None };
            if let Some(answer) = judge(found, deletes.as_deref(), lookup) {
                return Ok(answer);
            }
        }
        self.tree.find(lookup, hash)
    }
}

impl Tree {
    fn find(&self, lookup: InternalKey<'_>, hash: u64) -> Result<Option<PinnedRecord>> {
        let candidates = || {
            let runs = self.version.runs().zip(&self.runs).enumerate();
            runs.filter_map(|(place, (run, tables))| Some((place, tables.get(run.find(lookup)?)?)))
        };
        if self.runs.len() > 1 {
            candidates().take(PREFETCH_MAX).for_each(|(_, table)| table.prefetch(hash));
        }
        let has_deletes = !self.range_deletes.is_empty();
        for (place, table) in candidates() {
            let deletes = if has_deletes { self.range_deletes_of(place) } else { None };
            if let Some(answer) = judge(table.get_hashed(lookup, hash)?, deletes, lookup) {
                return Ok(answer);
            }
        }
        Ok(None)
    }
}

/// What one place says of a key: the record, or nothing for one that is deleted; `None` when an older place is to be
/// asked. A range delete that the reader sees and that is newer than the record hides it, and all that is older too.
#[inline]
fn judge(
    found: Option<PinnedRecord>,
    deletes: Option<&RangeDeletes>,
    lookup: InternalKey<'_>,
) -> Option<Option<PinnedRecord>> {
    let Some(deletes) = deletes else { return found.map(Some) };
    let covering = deletes.covering(lookup.keyspace, lookup.user_key, lookup.trailer.seqno());
    match (found, covering) {
        (Some(record), Some(delete)) if delete.seqno > record.record().seqno() => Some(None),
        (Some(record), _) => Some(Some(record)),
        (None, Some(_)) => Some(None),
        (None, None) => None,
    }
}

//! What is left of a damaged table: the blocks that their checksums vouch for, and where keys may be missing.
//!
//! ```text
//!   block 0   block 1   block 2 ✗   block 3        a gap holds the keys behind the last one before it, up to the first
//!   a … f     g … m     ?           t … z          one behind it; of these the point index still knows which it had
//!                     └── gap ──┘
//! ```
//!
//! Threading: plain data, shared; a [`RemainsCursor`] belongs to one thread at a time.

use std::sync::Arc;

use pebble_cursor::Cursor;
use pebble_format::hash::key_hash;
use pebble_format::table::{FLAG_UNIQUE_USER_KEYS, IndexKind, RegionId, granule_offset, split_slot_location};
use pebble_format::{Corruption, Error, InternalKey, KeyspaceId, OwnedKey, PinnedRecord, RecordRef, Result};

use crate::block::Block;
use crate::bloom;
use crate::index::Candidates;
use crate::mend::{Key, keys_of};
use crate::table::Table;

/// What is left of a table: see [`Table::remains`].
#[derive(Debug)]
pub struct Remains {
    table: Arc<Table>,
    /// Blocks that are right, ascending.
    good: Vec<u32>,
    lost: Vec<LostBlock>,
    gaps: Vec<Gap>,
    /// The keys that the lost blocks held, sorted, if they are known.
    keys: Option<Vec<Key>>,
}

/// A block that is not what was written.
#[derive(Clone, Debug)]
pub struct LostBlock {
    /// Its number, from 0.
    pub number: u32,
    /// Where it starts in the file.
    pub offset: u64,
    /// Bytes in the file, the zeros behind it included.
    pub len: u64,
    /// What is wrong with it.
    pub error: Error,
}

/// Where keys may be missing.
#[derive(Clone, Debug)]
struct Gap {
    /// The last key before it; none at the table's start.
    after: Option<OwnedKey>,
    /// The first key behind it; none at the table's end.
    before: Option<OwnedKey>,
}

impl Table {
    /// Reads every block, past any cache, and says which are right. Cost: a checksum of the whole table. `watch` is
    /// told the bytes of each block.
    pub fn remains(self: &Arc<Self>, watch: &mut dyn FnMut(u64)) -> Remains {
        let mut remains =
            Remains { table: Arc::clone(self), good: vec![], lost: vec![], gaps: vec![], keys: Some(vec![]) };
        let (mut last, mut in_gap) = (None::<OwnedKey>, false);
        for facts in self.blocks() {
            let len = facts.stored_len.next_multiple_of(4);
            watch(len);
            match self.bounds_of(facts.number, last.as_ref()) {
                Ok((first, block_last)) => {
                    if std::mem::take(&mut in_gap) {
                        remains.gaps.push(Gap { after: last.take(), before: Some(first) });
                    }
                    last = Some(block_last);
                    remains.good.push(facts.number);
                }
                Err(error) => {
                    in_gap = true;
                    let (number, offset) = (facts.number, facts.offset);
                    remains.keys = remains.keys.take().and_then(|mut keys| {
                        keys.extend(keys_of(self, number)?);
                        Some(keys)
                    });
                    remains.lost.push(LostBlock { number, offset, len, error });
                }
            }
        }
        if in_gap {
            remains.gaps.push(Gap { after: last, before: None });
        }
        if let Some(keys) = &mut remains.keys {
            keys.sort();
        }
        remains
    }

    /// The bounds of a block that is right, and begins behind `previous`.
    fn bounds_of(&self, number: u32, previous: Option<&OwnedKey>) -> Result<(OwnedKey, OwnedKey)> {
        let block = self.recheck_block(number)?;
        let key = |slot| block.record(slot).map(|record| OwnedKey::new(record.internal_key()));
        let bounds = key(0).and_then(|first| Ok((first, key(block.count() - 1)?)));
        let (first, last) = bounds.map_err(|found| self.in_block(number, found))?;
        let inside = self.first() <= &first && &last <= self.last();
        if !inside || previous.is_some_and(|previous| *previous >= first) {
            return Err(self.in_block(number, Corruption::new("order of the blocks", 0, 0, number.into())));
        }
        Ok((first, last))
    }
}

impl Remains {
    /// The table, whose metadata is right.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The blocks that are not right.
    pub fn lost(&self) -> &[LostBlock] {
        &self.lost
    }

    /// How many blocks are right.
    pub fn good_blocks(&self) -> usize {
        self.good.len()
    }

    /// Ranges of user keys, both ends included, outside of which no key was lost.
    pub fn gaps(&self) -> impl Iterator<Item = (InternalKey<'_>, InternalKey<'_>)> {
        self.gaps.iter().map(|gap| {
            let after = gap.after.as_ref().unwrap_or(self.table.first());
            let before = gap.before.as_ref().unwrap_or(self.table.last());
            (after.as_ref(), before.as_ref())
        })
    }

    /// Whether the newest record of a key may have been in a block that is lost. False is certain.
    ///
    /// True is certain too where a single byte of the block is wrong, but for versions that are not their key's newest.
    /// Beyond that it is, for a key that the table never held, as rare as a false hit of the point index; without one
    /// it is the answer for every key between the block's neighbours.
    pub fn may_have_lost(&self, keyspace: KeyspaceId, user_key: &[u8]) -> bool {
        if let Some(keys) = &self.keys {
            let found = keys.binary_search_by(|(of, key)| (*of, &**key).cmp(&(keyspace, user_key)));
            return found.is_ok() && self.index_leads_to_lost(key_hash(keyspace, user_key));
        }
        let key = (keyspace, user_key);
        let of = |key: InternalKey<'_>| -> (KeyspaceId, Box<[u8]>) { (key.keyspace, key.user_key.into()) };
        let unique = self.table.meta().footer.flags.get() & FLAG_UNIQUE_USER_KEYS != 0;
        let in_gap = self.gaps.iter().any(|gap| {
            let behind = match &gap.after {
                Some(after) => (after.as_ref().keyspace, after.as_ref().user_key) < key,
                None => of(self.table.first().as_ref()) <= (keyspace, user_key.into()),
            };
            let ahead = match &gap.before {
                // Older versions of a key may begin the block behind the one that had its newest.
                Some(before) if unique => key < (before.as_ref().keyspace, before.as_ref().user_key),
                Some(before) => key <= (before.as_ref().keyspace, before.as_ref().user_key),
                None => (keyspace, user_key.into()) <= of(self.table.last().as_ref()),
            };
            behind && ahead
        });
        in_gap && self.index_leads_to_lost(key_hash(keyspace, user_key))
    }

    fn index_leads_to_lost(&self, hash: u64) -> bool {
        let meta = self.table.meta();
        let is_lost = |number: u32| self.lost.binary_search_by_key(&number, |lost| lost.number).is_ok();
        match meta.index {
            IndexKind::None => true,
            IndexKind::Bloom => {
                bloom::may_contain(meta.region(RegionId::PointIndex), hash, meta.footer.probes)
            }
            IndexKind::Granule => Candidates::new(meta.buckets(), hash)
                .any(|location| is_lost(meta.block_at(granule_offset(location)))),
            IndexKind::Slot => {
                Candidates::new(meta.buckets(), hash).any(|location| is_lost(split_slot_location(location).0))
            }
        }
    }

    /// A cursor over the records that are left.
    pub fn cursor(self: &Arc<Self>) -> RemainsCursor {
        RemainsCursor { remains: Arc::clone(self), place: None, error: None }
    }
}

/// A position in what is left of a table. It passes over what is lost; an error is one of reading what was right
/// before.
#[derive(Debug)]
pub struct RemainsCursor {
    remains: Arc<Remains>,
    /// The place in `good`, the block, and the slot.
    place: Option<(usize, Block, u16)>,
    error: Option<Error>,
}

impl RemainsCursor {
    fn block(&self, at: usize) -> Result<Option<Block>> {
        self.remains.good.get(at).map(|number| self.remains.table.block(*number)).transpose()
    }

    fn go(&mut self, find: impl FnOnce(&mut Self) -> Result<Option<(usize, Block, u16)>>) -> Result<()> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let found = find(self);
        self.place = match found {
            Ok(place) => place,
            Err(error) => {
                self.place = None;
                self.error = Some(error.clone());
                return Err(error);
            }
        };
        Ok(())
    }

    fn start_of(&mut self, at: usize) -> Result<Option<(usize, Block, u16)>> {
        Ok(self.block(at)?.map(|block| (at, block, 0)))
    }

    fn end_before(&mut self, at: usize) -> Result<Option<(usize, Block, u16)>> {
        let Some(at) = at.checked_sub(1) else { return Ok(None) };
        Ok(self.block(at)?.map(|block| {
            let slot = block.count() - 1;
            (at, block, slot)
        }))
    }

    /// How many good blocks begin before `target`.
    fn starting_before(&self, target: InternalKey<'_>) -> Result<usize> {
        let (mut low, mut high) = (0, self.remains.good.len());
        while low < high {
            let middle = low.midpoint(high);
            let before = match self.block(middle)? {
                Some(block) => block.record(0)?.internal_key() < target,
                None => false,
            };
            if before { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }
}

impl Cursor for RemainsCursor {
    fn first(&mut self) -> Result<()> {
        self.go(|cursor| cursor.start_of(0))
    }

    fn last(&mut self) -> Result<()> {
        self.go(|cursor| cursor.end_before(cursor.remains.good.len()))
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.go(|cursor| {
            let count = cursor.starting_before(target)?;
            if let Some(at) = count.checked_sub(1)
                && let Some(block) = cursor.block(at)?
            {
                let slot = block.lower_bound(target)?;
                if slot < block.count() {
                    return Ok(Some((at, block, slot)));
                }
            }
            cursor.start_of(count)
        })
    }

    fn seek_before(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.go(|cursor| {
            let Some(at) = cursor.starting_before(target)?.checked_sub(1) else { return Ok(None) };
            let Some(block) = cursor.block(at)? else { return Ok(None) };
            let slot = block.lower_bound(target)?.saturating_sub(1);
            Ok(Some((at, block, slot)))
        })
    }

    fn next(&mut self) -> Result<()> {
        match &mut self.place {
            Some((_, block, slot)) if *slot + 1 < block.count() => {
                *slot += 1;
                Ok(())
            }
            Some((at, _, _)) => {
                let next = *at + 1;
                self.go(|cursor| cursor.start_of(next))
            }
            None => self.go(|_| Ok(None)),
        }
    }

    fn prev(&mut self) -> Result<()> {
        match &mut self.place {
            Some((_, _, slot)) if *slot > 0 => {
                *slot -= 1;
                Ok(())
            }
            Some((at, _, _)) => {
                let at = *at;
                self.go(|cursor| cursor.end_before(at))
            }
            None => self.go(|_| Ok(None)),
        }
    }

    fn record(&self) -> Option<RecordRef<'_>> {
        let (_, block, slot) = self.place.as_ref()?;
        block.record(*slot).ok()
    }

    fn pinned(&self) -> Option<PinnedRecord> {
        let (_, block, slot) = self.place.as_ref()?;
        block.pinned(*slot).ok()
    }
}

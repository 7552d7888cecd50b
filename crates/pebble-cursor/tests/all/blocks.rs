//! Whole blocks: what is lent comes next, and nothing that could be lent is kept back.

use std::sync::Arc;

use pebble_cursor::{Concat, Cursor, Merge, Source, WholeBlock};
use pebble_format::table::Codec;
use pebble_format::{InternalKey, KeyspaceId, Kind, PinnedRecord, RecordRef, Result, Seqno};
use proptest::prelude::*;

use crate::model::{Move, Records, VecCursor, any_moves, any_records, cases, encoded, parsed, sorted};

/// A cursor over blocks of `len` records, of which every record that begins one may lend it, if no version of one key
/// has another beside it.
struct Blocked {
    inner: VecCursor,
    len: usize,
    /// The records of each block, one after another.
    blocks: Arc<Vec<Vec<u8>>>,
}

impl Blocked {
    fn new(records: Records, len: usize) -> Self {
        let blocks = records.chunks(len).map(<[_]>::concat).collect();
        Self { inner: VecCursor::new(records), len, blocks: Arc::new(blocks) }
    }

    fn end(&self, at: usize) -> usize {
        (at + self.len).min(self.inner.records.len())
    }
}

impl Cursor for Blocked {
    fn first(&mut self) -> Result<()> {
        self.inner.first()
    }

    fn last(&mut self) -> Result<()> {
        self.inner.last()
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.inner.seek(target)
    }

    fn seek_before(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.inner.seek_before(target)
    }

    fn next(&mut self) -> Result<()> {
        self.inner.next()
    }

    fn prev(&mut self) -> Result<()> {
        self.inner.prev()
    }

    fn record(&self) -> Option<RecordRef<'_>> {
        self.inner.record()
    }

    fn pinned(&self) -> Option<PinnedRecord> {
        self.inner.pinned()
    }

    fn block(&self) -> Option<WholeBlock<'_>> {
        let at = self.inner.at.filter(|at| at % self.len == 0)?;
        let records = &self.inner.records;
        let end = self.end(at);
        if !single(&records[at..records.len().min(end + 1)]) {
            return None;
        }
        let bytes = &self.blocks[at / self.len];
        Some(WholeBlock {
            stored: bytes,
            codec: Codec::None,
            crc: 0,
            raw_len: bytes.len() as u32,
            count: (end - at) as u16,
            tombstones: 0,
            records: bytes,
            last: parsed(&records[end - 1]),
        })
    }

    fn skip_block(&mut self) -> Result<()> {
        self.inner.at = self
            .inner
            .at
            .map(|at| (at / self.len + 1) * self.len)
            .filter(|at| *at < self.inner.records.len());
        Ok(())
    }
}

/// Whether no two neighbours are versions of one key.
fn single(records: &[Vec<u8>]) -> bool {
    let same = |pair: &[Vec<u8>]| parsed(&pair[0]).internal_key().same_key(&parsed(&pair[1]).internal_key());
    !records.windows(2).any(same)
}

/// The records dealt out in runs of keys, so that blocks of one child often stand between those of the others.
fn dealt(records: &Records, runs: usize, piece: usize) -> Vec<Records> {
    let part = |run: usize| records.chunks(piece).skip(run).step_by(runs).flatten().cloned().collect();
    (0..runs).map(|run| Arc::new(part(run))).collect()
}

/// Walks from where the cursor stands to its end, by blocks where it lends them; says how many it lent.
fn by_blocks(cursor: &mut impl Cursor) -> (Vec<Vec<u8>>, usize) {
    let (mut seen, mut lent) = (Vec::new(), 0);
    while let Some(record) = cursor.record() {
        if let Some(block) = cursor.block() {
            lent += 1;
            assert_eq!(block.first().unwrap().raw(), record.raw());
            assert_eq!(cursor.block_last().unwrap().raw(), block.last.raw());
            seen.extend(block.records().map(|found| found.unwrap().1.raw().to_vec()));
            cursor.skip_block().unwrap();
        } else {
            seen.push(record.raw().to_vec());
            cursor.next().unwrap();
        }
    }
    (seen, lent)
}

/// Children of a [`Concat`].
struct Parts {
    parts: Vec<Records>,
    len: usize,
}

impl Source for Parts {
    type Cursor = Blocked;

    fn len(&self) -> usize {
        self.parts.len()
    }

    fn first_key(&self, index: usize) -> InternalKey<'_> {
        parsed(self.parts[index].first().unwrap()).internal_key()
    }

    fn last_key(&self, index: usize) -> InternalKey<'_> {
        parsed(self.parts[index].last().unwrap()).internal_key()
    }

    fn open(&self, index: usize) -> Result<Blocked> {
        Ok(Blocked::new(Arc::clone(&self.parts[index]), self.len))
    }
}

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn a_merge_lends_what_comes_next(
        records in any_records(60), runs in 1..6_usize, piece in 1..20_usize, len in 1..5_usize, moves in any_moves()
    ) {
        let records = sorted(records);
        let children = || dealt(&records, runs, piece).into_iter().map(|part| Blocked::new(part, len)).collect();
        let mut merge = Merge::new(children());
        merge.first().unwrap();
        prop_assert_eq!(&by_blocks(&mut merge).0, &*records);
        // From anywhere, and after whatever: only forward, and only where the union's next records are the block's.
        let mut merge: Merge<Blocked> = Merge::new(children());
        let mut model = VecCursor::new(Arc::clone(&records));
        for movement in &moves {
            movement.apply(&mut merge).unwrap();
            movement.apply(&mut model).unwrap();
            if let Some(block) = merge.block() {
                let at = model.at.unwrap();
                let end = at + usize::from(block.count);
                prop_assert_eq!(block.records, &records[at..end].concat()[..]);
                prop_assert!(single(&records[at..records.len().min(end + 1)]));
                prop_assert!(!matches!(movement, Move::Last | Move::SeekBefore(_)));
            }
        }
        let behind = model.at.map_or(records.len(), |at| at);
        prop_assert_eq!(&by_blocks(&mut merge).0, &records[behind..]);
    }

    #[test]
    fn a_merge_keeps_back_no_block_that_stands_alone(
        records in any_records(60), runs in 1..6_usize, piece in 1..20_usize, len in 1..5_usize
    ) {
        let records = sorted(records);
        let parts = dealt(&records, runs, piece);
        let mut merge: Merge<Blocked> =
            Merge::new(parts.iter().map(|part| Blocked::new(Arc::clone(part), len)).collect());
        merge.first().unwrap();
        for (at, record) in records.iter().enumerate() {
            let begins = parts.iter().flat_map(|part| part.chunks(len)).find(|block| block[0] == *record);
            let alone = begins.is_some_and(|block| {
                records[at..].starts_with(block) && single(&records[at..records.len().min(at + block.len() + 1)])
            });
            prop_assert_eq!(merge.block().is_some(), alone);
            merge.next().unwrap();
        }
    }

    #[test]
    fn a_concat_lends_what_its_child_lends(records in any_records(60), part in 1..20_usize, len in 1..5_usize) {
        let records = sorted(records);
        let parts = || Parts { parts: records.chunks(part).map(|part| Arc::new(part.to_vec())).collect(), len };
        let mut concat = Concat::new(parts());
        concat.first().unwrap();
        prop_assert_eq!(&by_blocks(&mut concat).0, &*records);
        let mut concat = Concat::new(parts());
        concat.first().unwrap();
        for at in 0..records.len() {
            let inside = at % part;
            let end = (at + len).min((at / part + 1) * part).min(records.len());
            let alone = inside % len == 0 && single(&records[at..records.len().min(end + 1)]);
            prop_assert_eq!(concat.block().is_some(), alone);
            concat.next().unwrap();
        }
    }
}

#[test]
fn a_cursor_without_blocks_lends_none_and_a_skip_is_a_step() {
    let records = sorted((1..=3).map(|n| encoded(0, &[n], u64::from(n), Kind::Put)).collect());
    let mut cursor: Box<dyn Cursor> = Box::new(VecCursor::new(Arc::clone(&records)));
    cursor.seek(InternalKey::lookup(KeyspaceId(0), &[2], Seqno::MAX)).unwrap();
    assert!(cursor.block().is_none());
    cursor.skip_block().unwrap();
    assert_eq!(cursor.record().unwrap().key(), [3]);
    let mut boxed: Box<dyn Cursor> = Box::new(Blocked::new(records, 2));
    boxed.first().unwrap();
    assert_eq!(boxed.block().unwrap().count, 2);
    boxed.skip_block().unwrap();
    assert_eq!(boxed.record().unwrap().key(), [3]);
}

//! Bytes that somebody made on purpose: damage with every checksum put right again. No answer is promised
//! then, but no panic, no endless loop, and no allocation that the file does not pay for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use pebble_cursor::Cursor;
use pebble_format::checksum::crc32c;
use pebble_format::table::{BlockEntry, RegionId, TABLE_FOOTER_LEN, TableFooter};
use pebble_sstable::{Compression, PointIndex};
use zerocopy::{FromBytes, IntoBytes};

use crate::model::{COMPRESSIONS, INDEXES, Seeded, Source, fixture, get, open, small, write};

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// Counts what the current thread holds.
struct Counting;

fn count(change: impl Fn(usize) -> usize) {
    // A thread that is ending has no counters any more.
    let _counted = LIVE.try_with(|live| {
        live.set(change(live.get()));
        PEAK.with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: every call goes to the system's allocator with the arguments as they came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(|live| live.saturating_add(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(|live| live.saturating_sub(layout.size()));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Puts the checksums right again, from the blocks to the footer, wherever the numbers still make that
/// possible.
fn repair(bytes: &mut [u8]) {
    let Some(at) = bytes.len().checked_sub(TABLE_FOOTER_LEN) else { return };
    let Ok(mut footer) = TableFooter::read_from_bytes(&bytes[at..]) else { return };
    let range = |region: pebble_format::table::TableRegion| {
        let start = usize::try_from(region.offset.get()).ok()?;
        Some(start..start.checked_add(region.len.get() as usize)?)
    };
    if let Some(range) = range(footer.region(RegionId::Directory)).filter(|range| range.end <= at) {
        for entry_at in range.step_by(size_of::<BlockEntry>()) {
            let Ok((mut entry, _)) = BlockEntry::read_from_prefix(&bytes[entry_at..]) else { continue };
            let start = usize::try_from(entry.offset.get()).unwrap_or(usize::MAX);
            let end = start.saturating_add(usize::try_from(entry.padded_len()).unwrap());
            if let Some(stored) = bytes.get(start..end) {
                entry.crc = crc32c(0, stored).into();
                bytes[entry_at..entry_at + size_of::<BlockEntry>()].copy_from_slice(entry.as_bytes());
            }
        }
    }
    for region in &mut footer.regions {
        if let Some(found) = range(*region).and_then(|range| bytes.get(range)) {
            region.crc = crc32c(0, found).into();
        }
    }
    footer.crc = footer.checksum().into();
    bytes[at..].copy_from_slice(footer.as_bytes());
}

/// Does all that a reader can do, ignoring the answers.
fn exercise(bytes: &[u8], source: Source) {
    let Ok(table) = open(bytes, source) else { return };
    let steps = bytes.len();
    let mut cursor = table.cursor();
    let mut moved = cursor.first();
    let mut walked = 0;
    while moved.is_ok() && cursor.record().is_some() {
        walked += 1;
        assert!(walked <= steps, "a walk without end");
        moved = cursor.next();
    }
    let mut cursor = table.cursor();
    let mut moved = cursor.last();
    while moved.is_ok() && cursor.pinned().is_some() {
        walked += 1;
        assert!(walked <= 2 * steps, "a walk without end");
        moved = cursor.prev();
    }
    for (keyspace, key, seqno) in fixture().keys().step_by(3) {
        table.prefetch(seqno.0);
        let _answer = get(&table, *keyspace, key, seqno.0);
        let target = crate::model::lookup(*keyspace, key, seqno.0);
        let (mut a, mut b) = (table.cursor(), table.cursor());
        let _moved = (a.seek(target.as_ref()), b.seek_before(target.as_ref()));
    }
    let _report = table.verify();
    assert!(table.blocks().count() <= steps);
}

fn bounded(bytes: &[u8], source: Source) {
    PEAK.with(|peak| peak.set(LIVE.with(Cell::get)));
    let before = LIVE.with(Cell::get);
    exercise(bytes, source);
    let peak = PEAK.with(Cell::get) - before;
    assert!(peak <= 16 * bytes.len() + (1 << 20), "{peak} bytes for a file of {}", bytes.len());
}

#[test]
fn repaired_bit_flips_do_no_harm() {
    for index in INDEXES {
        for compression in COMPRESSIONS {
            let (good, _) = write(&fixture(), &small(index, compression));
            for at in 0..good.len() {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << (at % 8);
                repair(&mut bytes);
                bounded(&bytes, if at % 4 == 0 { Source::CachedFile } else { Source::Bytes });
            }
        }
    }
}

#[test]
fn repaired_random_damage_does_no_harm() {
    let mut seeded = Seeded(11);
    let goods: Vec<_> = INDEXES
        .into_iter()
        .flat_map(|index| COMPRESSIONS.map(|compression| write(&fixture(), &small(index, compression)).0))
        .collect();
    for round in 0..4_000 {
        let mut bytes = goods[round % goods.len()].clone();
        for _ in 0..=seeded.below(4) {
            // Half of the damage goes to the metadata, which is where the numbers are.
            let from = if seeded.below(2) == 0 { 0 } else { bytes.len() as u64 * 3 / 4 };
            let at = (from + seeded.below(bytes.len() as u64 - from)) as usize;
            let word = [0, 1, 0x7f, 0xff, 0x80, seeded.next() as u8][seeded.below(6) as usize];
            let len = [1, 1, 2, 4, 8][seeded.below(5) as usize].min(bytes.len() - at);
            bytes[at..at + len].fill(word);
        }
        repair(&mut bytes);
        bounded(&bytes, if round % 4 == 0 { Source::CachedFile } else { Source::Bytes });
    }
}

#[test]
fn a_block_may_not_claim_to_expand_beyond_its_bound() {
    let (mut bytes, _) = write(&fixture(), &small(PointIndex::Location, Compression::Lz4));
    let at = bytes.len() - TABLE_FOOTER_LEN;
    let footer = TableFooter::read_from_bytes(&bytes[at..]).unwrap();
    let directory = footer.region(RegionId::Directory).offset.get() as usize;
    let compressed =
        open(&bytes, Source::Bytes).unwrap().blocks().find(|block| block.codec as u8 == 1).unwrap();
    let entry_at = directory + compressed.number as usize * size_of::<BlockEntry>();
    bytes[entry_at + 12..entry_at + 16].copy_from_slice(&(1_u32 << 30).to_le_bytes());
    repair(&mut bytes);
    assert!(open(&bytes, Source::Bytes).unwrap_err().is_corruption());
    bounded(&bytes, Source::Bytes);
}

#[test]
fn arbitrary_bytes_are_no_table() {
    let mut seeded = Seeded(5);
    for len in [0, 1, 255, 256, 257, 4_096] {
        let bytes: Vec<u8> = (0..len).map(|_| seeded.next() as u8).collect();
        assert!(open(&bytes, Source::Bytes).unwrap_err().is_corruption());
        assert!(open(&vec![0; len], Source::File).unwrap_err().is_corruption());
    }
}

//! Bytes that somebody made on purpose: damage with every checksum put right again. No answer is promised
//! then, but no panic, no endless loop, and no allocation that the file does not pay for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::cmp::Reverse;
use std::mem::offset_of;

use pebble_cursor::Cursor;
use pebble_format::KeyspaceId;
use pebble_format::checksum::crc32c;
use pebble_format::hash::key_hash;
use pebble_format::table::{
    BlockEntry, Codec, KeyBound, RegionId, TABLE_FOOTER_LEN, TableFooter, TableProperties, block_tail_len,
};
use pebble_sstable::{Compression, PointIndex, TableOptions};
use zerocopy::{FromBytes, IntoBytes};

use crate::model::{COMPRESSIONS, INDEXES, Model, Said, Seeded, Source, fixture, get, open, small, write};

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
pub fn repair(bytes: &mut [u8]) {
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

/// What `work` gives, and the most bytes that were held meanwhile beside those before.
fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.with(Cell::get);
    PEAK.with(|peak| peak.set(before));
    let done = work();
    (done, PEAK.with(Cell::get) - before)
}

pub fn bounded(bytes: &[u8], source: Source) {
    let ((), peak) = peak_of(|| exercise(bytes, source));
    assert!(peak <= 16 * bytes.len() + (1 << 20), "{peak} bytes for a file of {}", bytes.len());
}

/// A long value of which a byte is wrong, and every way to explain that: by chance there are several.
#[test]
fn what_is_left_of_a_long_damaged_block_takes_no_more_memory_than_the_block() {
    const LEN: usize = 24 << 20;
    for holds_values in [false, true] {
        let index = if holds_values { PointIndex::None } else { PointIndex::Location };
        let options = TableOptions { holds_values, ..small(index, Compression::None) };
        let model = Model::from([((1, b"long".to_vec(), Reverse(1)), Said::Put(vec![7; LEN]))]);
        let (mut bytes, _) = write(&model, &options);
        bytes[LEN / 2] ^= 4;
        let table = open(&bytes, Source::File).unwrap();
        let (remains, peak) = peak_of(|| table.remains(&mut |_| {}));
        assert_eq!(remains.lost().len(), 1);
        assert!(remains.may_have_lost(KeyspaceId(1), b"long"));
        assert!(peak < LEN + (1 << 20), "{peak} bytes for a block of {LEN}");
    }
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
    let (mut bytes, info) = write(&fixture(), &small(PointIndex::Location, Compression::Lz4));
    let at = bytes.len() - TABLE_FOOTER_LEN;
    let footer = TableFooter::read_from_bytes(&bytes[at..]).unwrap();
    let start = |id: RegionId| footer.region(id).offset.get() as usize;
    let blocks: Vec<_> = open(&bytes, Source::Bytes).unwrap().blocks().collect();
    // A block of one record: a longer one is bounded by its offsets already.
    let one = blocks.iter().find(|block| block.codec == Codec::Lz4 && block.count == 1).unwrap();
    let claimed = 1_u32 << 29;
    let entry_at = start(RegionId::Directory) + one.number as usize * size_of::<BlockEntry>();
    let raw_len_at = entry_at + offset_of!(BlockEntry, raw_len);
    bytes[raw_len_at..raw_len_at + 4].copy_from_slice(&claimed.to_le_bytes());
    let sum = info.raw_len - one.raw_len + u64::from(claimed);
    let sum_at = start(RegionId::Properties) + offset_of!(TableProperties, raw_len);
    bytes[sum_at..sum_at + 8].copy_from_slice(&sum.to_le_bytes());
    repair(&mut bytes);
    let error = open(&bytes, Source::Bytes).unwrap_err().to_string();
    assert!(error.contains("expansion of a block"), "{error}");
    bounded(&bytes, Source::Bytes);
}

#[test]
fn a_block_that_is_not_what_a_writer_makes_is_refused_though_its_checksum_is_right() {
    let versions =
        (1..=4).map(|seqno| ((1, b"key".to_vec(), Reverse(seqno)), Said::Put(vec![7; 9]))).collect();
    let (good, info) = write(&versions, &small(PointIndex::Location, Compression::None));
    assert_eq!((info.blocks, info.count), (1, 4));
    let end = info.data_len as usize;
    let (heads, offsets) = (end - block_tail_len(4), end - block_tail_len(4) + 16);
    let second = usize::from(u16::from_le_bytes([good[offsets + 2], good[offsets + 3]])) * 4;
    type Forge = Box<dyn Fn(&mut [u8])>;
    let forgeries: [(&str, Forge); 6] = [
        ("head of a record", Box::new(move |bytes| bytes[heads + 5] ^= 1)),
        ("record offset in a block", Box::new(move |bytes| bytes[offsets + 2] ^= 1)),
        ("prefix of a block", Box::new(move |bytes| bytes[end - 2] ^= 1)),
        ("record count of a block", Box::new(move |bytes| bytes[end - 4] ^= 1)),
        ("record kind", Box::new(move |bytes| bytes[second] = 9)),
        // The second version gets a seqno above the first one's.
        ("order of the records", Box::new(move |bytes| bytes[second + 7] = 0xff)),
    ];
    for (what, forge) in forgeries {
        let mut bytes = good.clone();
        forge(&mut bytes);
        repair(&mut bytes);
        for source in [Source::Bytes, Source::File] {
            let mut cursor = open(&bytes, source).unwrap().cursor();
            let mut moved = cursor.first();
            while moved.is_ok() {
                assert!(cursor.record().is_some(), "{what} went unnoticed");
                moved = cursor.next();
            }
            let error = moved.unwrap_err().to_string();
            assert!(error.contains(what), "{error}, not {what}");
        }
    }
}

#[test]
fn verify_finds_what_an_open_cannot_know() {
    let (good, _) = write(&fixture(), &small(PointIndex::Location, Compression::None));
    let at = good.len() - TABLE_FOOTER_LEN;
    let footer = TableFooter::read_from_bytes(&good[at..]).unwrap();
    let start = |id: RegionId| footer.region(id).offset.get() as usize;
    let buckets = start(RegionId::PointIndex)..start(RegionId::Directory);
    let used = buckets.clone().step_by(4).find(|slot| good[*slot..*slot + 4] != [0; 4]).unwrap();
    let free = buckets.step_by(4).find(|slot| good[*slot..*slot + 4] == [0; 4]).unwrap();
    let forgeries = [
        ("point index misses a key", used),
        ("slots of the point index", free),
        ("key bytes", start(RegionId::Properties) + offset_of!(TableProperties, key_bytes)),
        ("value bytes", start(RegionId::Properties) + offset_of!(TableProperties, value_bytes)),
        ("smallest sequence number", at + offset_of!(TableFooter, seqno_min)),
        ("largest sequence number", at + offset_of!(TableFooter, seqno_max)),
        ("tombstones", at + offset_of!(TableFooter, tombstones)),
        ("keys", at + offset_of!(TableFooter, keys)),
        ("first key", start(RegionId::KeyBounds) + 1),
        ("last key", start(RegionId::KeyBounds) + size_of::<KeyBound>() + 1),
    ];
    for (what, place) in forgeries {
        let mut bytes = good.clone();
        bytes[place] ^= 1;
        repair(&mut bytes);
        for source in [Source::Bytes, Source::File] {
            let table = open(&bytes, source).unwrap();
            let error = table.verify().unwrap_err().to_string();
            assert!(error.contains(what), "{error}, not {what}");
        }
    }
}

/// Not as numbers either: a head is the first bytes of a key, and a hash tells a guess from another.
#[test]
fn keys_stand_in_no_error() {
    let keys = [b"secret one", b"secret two", b"wealthy 03", b"wisdom 004"];
    let model = keys.iter().map(|key| ((1, key.to_vec(), Reverse(1)), Said::Put(vec![7; 60]))).collect();
    let (good, info) = write(&model, &small(PointIndex::Location, Compression::None));
    assert_eq!(info.blocks, 2);
    let at = good.len() - TABLE_FOOTER_LEN;
    let footer = TableFooter::read_from_bytes(&good[at..]).unwrap();
    let start = |id: RegionId| footer.region(id).offset.get() as usize;
    let buckets = start(RegionId::PointIndex)..start(RegionId::Directory);
    let used = buckets.step_by(4).find(|slot| good[*slot..*slot + 4] != [0; 4]).unwrap();
    let forgeries = [
        ("head of a record", info.data_len as usize - block_tail_len(2)),
        ("first head", start(RegionId::SeekIndex)),
        ("first head of a block", start(RegionId::SeekIndex) + 8),
        ("point index misses a key", used),
    ];
    for (what, place) in forgeries {
        let mut bytes = good.clone();
        bytes[place] ^= 8;
        repair(&mut bytes);
        let found = open(&bytes, Source::Bytes).and_then(|table| table.verify());
        let error = found.unwrap_err().to_string();
        assert!(error.contains(what), "{error}, not {what}");
        for key in keys {
            let hash = key_hash(KeyspaceId(1), key);
            let heads = key.windows(4).map(|part| u32::from_be_bytes(part.try_into().unwrap()));
            let numbers = heads.map(u64::from).chain([hash, hash >> 32, hash & 0xffff_ffff]);
            for number in numbers {
                assert!(!error.contains(&format!("{number:x}")), "{error} tells of a key");
            }
        }
    }
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

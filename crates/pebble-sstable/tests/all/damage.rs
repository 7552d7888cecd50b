//! Damage that the checksums must catch: every bit, every length, blocks that changed places.

use pebble_cursor::Cursor;
use pebble_format::{Error, Result};
use pebble_sstable::Table;

use crate::model::{
    COMPRESSIONS, INDEXES, Model, Plain, SOURCES, Said, Source, fixture, get, newest_at, open, plain, plains,
    small, write,
};

/// Reads everything in every way. Whatever is answered must be right; says whether there was an error.
fn read_all(model: &Model, table: &std::sync::Arc<Table>) -> Result<()> {
    let mut first_error = Ok(());
    let mut note = |error: Error| {
        assert!(error.is_corruption(), "{error}");
        if first_error.is_ok() {
            first_error = Err(error);
        }
    };
    for (keyspace, key, seqno) in model.keys() {
        match get(table, *keyspace, key, seqno.0) {
            Ok(found) => assert_eq!(found, newest_at(model, *keyspace, key, seqno.0)),
            Err(error) => note(error),
        }
    }
    let list = plains(model);
    let (forward, error) = walk(table, Cursor::first, Cursor::next);
    assert_eq!(forward, list[..forward.len()]);
    assert!(error.is_some() || forward.len() == list.len());
    error.into_iter().for_each(&mut note);
    let (mut backward, error) = walk(table, Cursor::last, Cursor::prev);
    backward.reverse();
    assert_eq!(backward, list[list.len() - backward.len()..]);
    assert!(error.is_some() || backward.len() == list.len());
    error.into_iter().for_each(&mut note);
    if let Err(error) = table.verify() {
        note(error);
    }
    first_error
}

type Move = fn(&mut pebble_sstable::TableCursor) -> Result<()>;

fn walk(table: &std::sync::Arc<Table>, start: Move, step: Move) -> (Vec<Plain>, Option<Error>) {
    let mut cursor = table.cursor();
    let mut seen = Vec::new();
    let mut moved = start(&mut cursor);
    while moved.is_ok() {
        let Some(record) = cursor.record() else { return (seen, None) };
        seen.push(plain(record));
        moved = step(&mut cursor);
    }
    (seen, moved.err())
}

fn flip_every_bit(source: Source, bits: impl Fn(usize) -> Vec<u32>) {
    let model = fixture();
    for index in INDEXES {
        for compression in COMPRESSIONS {
            let (good, _) = write(&model, &small(index, compression));
            flip_bits(&model, good, source, &bits);
        }
    }
}

/// Every file byte is under some checksum, so a flip must be noticed by someone.
pub fn flip_bits(model: &Model, good: Vec<u8>, source: Source, bits: impl Fn(usize) -> Vec<u32>) {
    read_all(model, &open(&good, source).unwrap()).unwrap();
    let mut bytes = good;
    for at in 0..bytes.len() {
        for bit in bits(at) {
            bytes[at] ^= 1 << bit;
            let noticed = open(&bytes, source).and_then(|table| read_all(model, &table));
            assert!(matches!(noticed, Err(Error::Corruption(_))), "byte {at}, bit {bit}: {noticed:?}");
            bytes[at] ^= 1 << bit;
        }
    }
}

#[test]
fn every_flipped_bit_in_place_is_noticed() {
    flip_every_bit(Source::Bytes, |at| vec![(at % 8) as u32, ((at / 8 + 3) % 8) as u32]);
}

#[test]
fn every_flipped_byte_read_through_a_cache_is_noticed() {
    flip_every_bit(Source::CachedFile, |at| if at % 5 == 0 { vec![(at / 5 % 8) as u32] } else { vec![] });
}

#[test]
fn every_truncation_is_noticed() {
    for compression in COMPRESSIONS {
        let (bytes, _) = write(&fixture(), &small(INDEXES[0], compression));
        for len in 0..bytes.len() {
            for source in [Source::Bytes, Source::File] {
                let error = open(&bytes[..len], source).unwrap_err();
                assert!(matches!(error, Error::Corruption(_)), "{len}: {error}");
            }
        }
        let longer = [&bytes[..], &[0; 64]].concat();
        assert!(open(&longer, Source::Bytes).is_err());
    }
}

/// Keys and values of one length, so that blocks fit each other's places; one version each, and no two heads alike.
fn uniform() -> Model {
    (10..60_u8)
        .map(|n| ((1, vec![b'k', n], std::cmp::Reverse(u64::from(n))), Said::Put(vec![n; 40])))
        .collect()
}

#[test]
fn swapped_and_doubled_blocks_are_noticed() {
    let model = uniform();
    for compression in COMPRESSIONS {
        let (good, _) = write(&model, &small(INDEXES[0], compression));
        let blocks: Vec<_> = open(&good, SOURCES[0]).unwrap().blocks().collect();
        let mut tried = 0;
        for a in &blocks {
            for b in &blocks {
                if a.number == b.number || a.stored_len != b.stored_len {
                    continue;
                }
                tried += 1;
                let (at_a, at_b, len) = (a.offset as usize, b.offset as usize, a.stored_len as usize);
                let mut bytes = good.clone();
                bytes.copy_within(at_a..at_a + len, at_b);
                assert!(open(&bytes, SOURCES[0]).and_then(|table| read_all(&model, &table)).is_err());
                bytes[at_a..at_a + len].copy_from_slice(&good[at_b..at_b + len]);
                assert!(open(&bytes, SOURCES[0]).and_then(|table| read_all(&model, &table)).is_err());
            }
        }
        assert!(tried > 0);
    }
}

/// As [`uniform`], with values of very different lengths, so that some blocks share a page of what is noted as
/// verified and others span several.
fn uneven() -> Model {
    let len = |n: u8| [40, 40, 300, 9_000, 20_000, 16_384, 50_000, 40][usize::from(n % 8)];
    (10..60_u8)
        .map(|n| ((1, vec![b'k', n], std::cmp::Reverse(u64::from(n))), Said::Put(vec![n; len(n)])))
        .collect()
}

/// What was scanned before, from both sides of the damage, changes nothing: not what can be read, and not that all of
/// it is right.
#[test]
fn a_damaged_block_takes_only_its_own_keys_along() {
    let cases = [(uniform(), COMPRESSIONS[0]), (uniform(), COMPRESSIONS[1]), (uneven(), COMPRESSIONS[0])];
    for (model, compression) in cases {
        let (good, _) = write(&model, &small(INDEXES[0], compression));
        let blocks: Vec<_> = open(&good, SOURCES[0]).unwrap().blocks().collect();
        for damaged in &blocks {
            let mut bytes = good.clone();
            bytes[damaged.offset as usize + 3] ^= 4;
            for (source, scanned) in
                [Source::Bytes, Source::File].into_iter().flat_map(|s| [(s, false), (s, true)])
            {
                let table = open(&bytes, source).unwrap();
                if scanned {
                    walk(&table, Cursor::first, Cursor::next);
                    walk(&table, Cursor::last, Cursor::prev);
                }
                let readable = model
                    .keys()
                    .filter(|(keyspace, key, seqno)| match get(&table, *keyspace, key, seqno.0) {
                        Ok(found) => {
                            assert_eq!(found, newest_at(&model, *keyspace, key, seqno.0), "{damaged:?}");
                            true
                        }
                        Err(error) => {
                            assert!(error.is_corruption(), "{error}");
                            false
                        }
                    })
                    .count();
                assert_eq!(
                    readable,
                    model.len() - usize::from(damaged.count),
                    "{damaged:?}, scanned: {scanned}"
                );
            }
        }
    }
}

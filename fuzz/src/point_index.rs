//! The point index or filter: any bytes in its place, in a table that is right but for them.
//!
//! ```text
//!   input = kind u8, then the region's bytes, as many as it has; the rest stays as it was
//! ```
//!
//! Oracle: a get gives a record of the key that is not too new, an absence or a corruption, never another record (a
//! forged index may lead to an older version); a key that is not there is never found; and an index that `verify` takes
//! finds the newest version of every key.
//!
//! Threading: as every body.

use std::ops::Range;

use pebble_format::table::{RegionId, TABLE_FOOTER_LEN, TableFooter};
use pebble_format::{InternalKey, Seqno, Trailer};
use pebble_sstable::{Compression, PointIndex};
use zerocopy::FromBytes;

use crate::disk::assert_told;
use crate::forge;
use crate::guard::{allowance, bounded};
use crate::records::{key_of, parsed};
use crate::table::{mixed, small};
use crate::tables::{open, open_file, written};
use crate::{Seed, Target};

/// See the [module](self).
pub const TARGET: Target = Target { name: "point_index", run, repair: None, seeds, rounds: 4_000 };

/// A table of the given kind, and where its index lies.
fn base(kind: u8) -> (Vec<u8>, Range<usize>) {
    let (index, compression) = match kind % 3 {
        0 => (PointIndex::Location, Compression::None),
        1 => (PointIndex::Location, Compression::Lz4),
        _ => (PointIndex::Bloom { bits_per_key: 12 }, Compression::None),
    };
    let records = mixed();
    let bytes = written(records.iter().map(|record| parsed(record)), small(index, compression));
    let footer = TableFooter::read_from_bytes(&bytes[bytes.len() - TABLE_FOOTER_LEN..]).unwrap();
    let region = footer.region(RegionId::PointIndex);
    let start = usize::try_from(region.offset.get()).unwrap();
    (bytes, start..start + usize::try_from(region.len.get()).unwrap())
}

fn run(bytes: &[u8]) {
    let (kind, index) = bytes.split_first().unwrap_or((&0, &[]));
    let (mut whole, range) = base(*kind);
    let len = index.len().min(range.len());
    whole[range.start..range.start + len].copy_from_slice(&index[..len]);
    forge::table(&mut whole);
    let records = mixed();
    bounded(2 * allowance(whole.len()), || {
        for table in [open(&whole).unwrap(), open_file(&whole).unwrap()] {
            let verified = table.verify();
            for at in [Seqno(0), Seqno(15), Seqno(45), Seqno::MAX] {
                for record in &records {
                    let lookup = InternalKey { trailer: Trailer::newest(at), ..key_of(record) };
                    let model =
                        records.iter().find(|own| key_of(own).same_key(&lookup) && key_of(own) >= lookup);
                    match table.get(lookup) {
                        Ok(Some(found)) => {
                            let found = found.record();
                            let own = records.iter().any(|own| own == found.raw());
                            assert!(
                                own && found.internal_key().same_key(&lookup)
                                    && found.internal_key() >= lookup
                            );
                            let newest = Some(found.raw()) == model.map(Vec::as_slice);
                            assert!(
                                newest || verified.is_err(),
                                "a verified index leads to an older version"
                            );
                        }
                        Ok(None) => {
                            assert!(model.is_none() || verified.is_err(), "a verified index misses a key")
                        }
                        Err(error) => {
                            assert_told(&error);
                            assert!(verified.is_err(), "a verified index gives {error}");
                        }
                    }
                }
            }
            for absent in [&b""[..], b"key", b"key-99", b"\xff"] {
                let lookup = InternalKey::lookup(pebble_format::KeyspaceId(0), absent, Seqno::MAX);
                match table.get(lookup) {
                    Ok(found) => assert!(found.is_none(), "a key that is not there was found"),
                    Err(error) => assert_told(&error),
                }
            }
            if let Err(error) = verified {
                assert_told(&error);
            }
        }
    });
}

fn seeds() -> Vec<Seed> {
    let input = |kind: u8| {
        let (bytes, range) = base(kind);
        [&[kind], &bytes[range]].concat()
    };
    let full = [&[0][..], &[0x81; 128]].concat();
    vec![("location", input(0)), ("slots", input(1)), ("bloom", input(2)), ("full", full)]
}

//! The point index or filter: any bytes in its place, in a table that is right but for them.
//!
//! ```text
//!   input = kind u8, then the region's bytes, as many as it has; the rest stays as it was
//! ```
//!
//! Oracle: an index that `verify` takes finds the newest version of every key, and no key that is not there. Any
//! other leads to a version that is not too new, an absence or a corruption; in place, where a location is an offset,
//! also to bytes within a value that look like a record of the key.
//!
//! Threading: as every body.

use std::ops::Range;
use std::sync::LazyLock;

use pebble_format::table::{RegionId, TABLE_FOOTER_LEN, TableFooter};
use pebble_format::{InternalKey, KeyspaceId, Seqno, Trailer};
use pebble_sstable::{Compression, PointIndex, Table};
use zerocopy::FromBytes;

use crate::disk::assert_told;
use crate::forge;
use crate::guard::{allowance, bounded};
use crate::records::{key_of, parsed};
use crate::table::{mixed, small};
use crate::tables::{open, open_file, written};
use crate::{Seed, Target};

/// See the [module](self).
pub const TARGET: Target = Target { name: "point_index", run, repair: None, seeds, rounds: 10_000 };

/// A table of each kind, and where its index lies.
static BASES: LazyLock<[(Vec<u8>, Range<usize>); 3]> = LazyLock::new(|| {
    let kinds = [
        (PointIndex::Location, Compression::None),
        (PointIndex::Location, Compression::Lz4),
        (PointIndex::Bloom { bits_per_key: 12 }, Compression::None),
    ];
    kinds.map(|(index, compression)| {
        let records = mixed();
        let bytes = written(records.iter().map(|record| parsed(record)), small(index, compression));
        let footer = TableFooter::read_from_bytes(&bytes[bytes.len() - TABLE_FOOTER_LEN..]).unwrap();
        let region = footer.region(RegionId::PointIndex);
        let start = usize::try_from(region.offset.get()).unwrap();
        (bytes, start..start + usize::try_from(region.len.get()).unwrap())
    })
});

fn run(bytes: &[u8]) {
    let (kind, index) = bytes.split_first().unwrap_or((&0, &[]));
    let (mut whole, range) = BASES[usize::from(*kind) % BASES.len()].clone();
    let len = index.len().min(range.len());
    whole[range.start..range.start + len].copy_from_slice(&index[..len]);
    forge::table(&mut whole);
    let records = mixed();
    bounded(2 * allowance(whole.len()), || {
        for (table, in_place) in [(open(&whole).unwrap(), true), (open_file(&whole).unwrap(), false)] {
            let verified = table.verify();
            for record in &records {
                for at in [Seqno(0), Seqno(15), Seqno(45), Seqno::MAX] {
                    let lookup = InternalKey { trailer: Trailer::newest(at), ..key_of(record) };
                    assert_get(&table, lookup, &records, verified.is_ok(), in_place);
                }
            }
            for absent in [&b""[..], b"key", b"key-99", b"\xff"] {
                let lookup = InternalKey::lookup(KeyspaceId(0), absent, Seqno::MAX);
                assert_get(&table, lookup, &records, verified.is_ok(), in_place);
            }
            if let Err(error) = verified {
                assert_told(&error);
            }
        }
    });
}

fn assert_get(table: &Table, lookup: InternalKey<'_>, records: &[Vec<u8>], verified: bool, in_place: bool) {
    let model = records.iter().find(|own| key_of(own).same_key(&lookup) && key_of(own) >= lookup);
    match table.get(lookup) {
        Ok(found) if verified => {
            assert_eq!(found.as_ref().map(|found| found.record().raw()), model.map(Vec::as_slice))
        }
        Ok(Some(found)) => {
            let key = found.record().internal_key();
            assert!(key.same_key(&lookup) && key >= lookup);
            // A forged offset may lead into a value that looks like a record.
            assert!(in_place || records.iter().any(|own| own == found.record().raw()));
        }
        Ok(None) => {}
        Err(error) => {
            assert_told(&error);
            assert!(!verified, "a verified index gives {error}");
        }
    }
}

fn seeds() -> Vec<Seed> {
    let input = |kind: u8| {
        let (bytes, range) = BASES[usize::from(kind)].clone();
        [&[kind], &bytes[range]].concat()
    };
    let full = [&[0][..], &[0x81; 128]].concat();
    vec![("location", input(0)), ("slots", input(1)), ("bloom", input(2)), ("full", full)]
}

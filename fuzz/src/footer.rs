//! The footer and what it names: any bytes behind the data of a table.
//!
//! ```text
//!   input = kind u8, regions and footer            the data in front is that of a table, and right
//! ```
//!
//! Oracle: what opens is what the footer says, agrees with its own directory, and gives each block's records or an
//! error; another version is told as such.
//!
//! Threading: as every body.

use std::sync::LazyLock;

use pebble_format::Error;
use pebble_format::table::{TABLE_FOOTER_LEN, TABLE_VERSION, TABLE_VERSION_MIN, TableFooter, version_of};
use pebble_sstable::{Compression, PointIndex};
use zerocopy::FromBytes;

use crate::disk::assert_told;
use crate::forge;
use crate::guard::{allowance, bounded};
use crate::records::parsed;
use crate::table::{mixed, small};
use crate::tables::{forward, open, open_file, written};
use crate::{Seed, Target};

/// See the [module](self).
pub const TARGET: Target = Target { name: "footer", run, repair: Some(repair), seeds, rounds: 10_000 };

/// The data of a table of each kind, and what follows it.
static BASES: LazyLock<[(Vec<u8>, Vec<u8>); 3]> = LazyLock::new(|| {
    let kinds = [
        (PointIndex::Location, Compression::None),
        (PointIndex::Location, Compression::Lz4),
        (PointIndex::None, Compression::None),
    ];
    kinds.map(|(index, compression)| {
        let records = mixed();
        let mut bytes = written(records.iter().map(|record| parsed(record)), small(index, compression));
        let footer = TableFooter::read_from_bytes(&bytes[bytes.len() - TABLE_FOOTER_LEN..]).unwrap();
        let rest = bytes.split_off(usize::try_from(footer.data_len.get()).unwrap());
        (bytes, rest)
    })
});

/// The data in front of an input of this kind.
fn data(kind: u8) -> Vec<u8> {
    BASES[usize::from(kind) % BASES.len()].0.clone()
}

fn repair(bytes: &mut [u8]) {
    let Some((kind, rest)) = bytes.split_first_mut() else { return };
    let mut whole = data(*kind);
    let data_len = whole.len();
    whole.extend_from_slice(rest);
    forge::table(&mut whole);
    rest.copy_from_slice(&whole[data_len..]);
}

fn run(bytes: &[u8]) {
    let (kind, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let mut whole = data(*kind);
    whole.extend_from_slice(rest);
    bounded(2 * allowance(whole.len()), || {
        let table = match open(&whole) {
            Ok(table) => table,
            Err(error) => {
                assert_eq!(open_file(&whole).unwrap_err().to_string(), error.to_string());
                if let Error::UnsupportedVersion { found, .. } = error {
                    assert!(!(TABLE_VERSION_MIN..=TABLE_VERSION).contains(&found));
                }
                return assert_told(&error);
            }
        };
        let footer = TableFooter::read_from_bytes(&whole[whole.len() - TABLE_FOOTER_LEN..]).unwrap();
        let info = table.info();
        assert_eq!(footer.version.get(), version_of(footer.flags.get()));
        assert_eq!((info.len, info.footer_crc), (whole.len() as u64, footer.crc.get()));
        assert_eq!((info.count, info.data_len), (footer.count.get(), footer.data_len.get()));
        assert_eq!(info.count, table.blocks().map(|block| u64::from(block.count)).sum::<u64>());
        assert_eq!(info.raw_len, table.blocks().map(|block| block.raw_len).sum::<u64>());
        assert!(table.blocks().all(|block| block.offset + block.stored_len <= info.data_len));
        assert!(info.first <= info.last && info.seqno_min <= info.seqno_max);
        table.check_identity(&info.uuid, info.number, info.len, info.footer_crc).unwrap();
        assert_told(
            &table.check_identity(&info.uuid, info.number ^ 1, info.len, info.footer_crc).unwrap_err(),
        );
        let (_, complete) = forward(&table);
        match table.verify() {
            Ok(report) => assert!(complete && report.records == info.count),
            Err(error) => assert_told(&error),
        }
    });
}

fn seeds() -> Vec<Seed> {
    let input = |kind: u8| [vec![kind], BASES[usize::from(kind)].1.clone()].concat();
    let mut version = input(0);
    let at = version.len() - TABLE_FOOTER_LEN + 8;
    version[at] = 99;
    repair(&mut version);
    vec![("location", input(0)), ("slots", input(1)), ("none", input(2)), ("version", version)]
}

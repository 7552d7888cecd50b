//! A compressed block: any stored bytes, any claim of what they expand to, in a table that is right but for them.
//!
//! ```text
//!   input = codec u8, claimed length u32, stored bytes           odd codec: zstd, else LZ4
//! ```
//!
//! Oracle: nothing is allocated that the file does not pay for; what is taken of LZ4 are the records of what another
//! call of the codec makes of the bytes.
//!
//! Threading: as every body.

use pebble_format::table::{Codec, expansion_allowed};
use pebble_format::{Error, record};

use crate::disk::assert_told;
use crate::guard::{allowance, bounded};
use crate::input::Input;
use crate::tables::{backward, forward, of_one_block, open, open_file};
use crate::{Seed, Target, block};

/// See the [module](self).
pub const TARGET: Target = Target { name: "decompress", run, repair: None, seeds, rounds: 8_000 };

/// Longest block that is expanded here to know what to expect.
const RAW_LEN_MAX: usize = 1 << 20;

fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let codec = if input.u8() & 1 == 1 { Codec::Zstd } else { Codec::Lz4 };
    let raw_len = input.u32();
    let stored = input.0;
    let len = usize::try_from(raw_len).unwrap().min(RAW_LEN_MAX);
    let mut raw = vec![0; len];
    let expanded = match codec {
        Codec::Lz4 => {
            lz4_flex::block::decompress_into(stored, &mut raw).is_ok_and(|got| got == raw_len as usize)
        }
        _ => false,
    };
    // The claims around a block of which nothing is known are made up, and mostly refused.
    let model = if expanded || codec == Codec::Zstd { &raw[..] } else { &[] };
    let whole = of_one_block(stored, codec, model, raw_len);
    bounded(allowance(whole.len()), || {
        let table = match open(&whole) {
            Ok(table) => table,
            Err(error) => {
                let unsupported = matches!(error, Error::UnsupportedCodec { .. });
                assert!(!unsupported || codec == Codec::Zstd && !cfg!(feature = "zstd"));
                return assert_told(&error);
            }
        };
        assert!(expansion_allowed(stored.len(), raw_len as usize), "an expansion beyond its bound was taken");
        let (records, complete) = forward(&table);
        assert_eq!(backward(&table).1, complete);
        assert_eq!(forward(&open_file(&whole).unwrap()).1, complete);
        match table.verify() {
            Ok(report) => assert!(complete && report.records == records.len() as u64),
            Err(error) => assert_told(&error),
        }
        if complete && codec == Codec::Lz4 {
            assert!(expanded, "records of bytes that do not expand");
            let naive = record::records(&raw).take(records.len()).map(|found| found.unwrap().1.raw());
            assert!(naive.eq(records.iter().map(Vec::as_slice)));
        }
    });
}

/// An input that claims `raw_len` for stored bytes.
fn input(codec: u8, raw_len: usize, stored: &[u8]) -> Vec<u8> {
    [&[codec], &u32::try_from(raw_len).unwrap().to_le_bytes()[..], stored].concat()
}

/// A zstd frame of one uncompressed block, as RFC 8878 draws it: a build without zstd can make it, too.
fn zstd_frame(raw: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    bytes.extend_from_slice(&u32::try_from(raw.len()).unwrap().to_le_bytes());
    let header = u32::try_from(raw.len()).unwrap() << 3 | 1;
    bytes.extend_from_slice(&header.to_le_bytes()[..3]);
    bytes.extend_from_slice(raw);
    bytes
}

fn seeds() -> Vec<Seed> {
    let blocks = block::blocks();
    let (_, keys) = &blocks[2];
    let (_, versions) = &blocks[1];
    let lz4 = |raw: &[u8]| lz4_flex::block::compress(raw);
    vec![
        ("lz4_keys", input(0, keys.len(), &lz4(keys))),
        ("lz4_versions", input(0, versions.len(), &lz4(versions))),
        ("lz4_too_long", input(0, 1 << 29, &lz4(keys))),
        ("zstd_keys", input(1, keys.len(), &zstd_frame(keys))),
    ]
}

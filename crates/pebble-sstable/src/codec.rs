//! Blocks made shorter, and made whole again within a bound that the directory has to keep.

use pebble_format::Corruption;
use pebble_format::table::{Codec, expansion_allowed};

use crate::dictionary::{self, Dictionary};

/// Compresses `raw` with LZ4 into `to`, replacing what it held; says whether the result is worth storing.
pub(crate) fn compress(raw: &[u8], to: &mut Vec<u8>) -> bool {
    to.resize(lz4_flex::block::get_maximum_output_size(raw.len()), 0);
    let Ok(len) = lz4_flex::block::compress_into(raw, to) else { return false };
    to.truncate(len);
    pays(len, raw.len())
}

/// Whether a compressed block is worth storing: shorter by at least an eighth, and not so much shorter that a reader
/// would refuse to allocate the whole.
pub(crate) fn pays(len: usize, raw_len: usize) -> bool {
    len <= raw_len - raw_len / 8 && expansion_allowed(len, raw_len)
}

/// The uncompressed block of `stored`, which must come to exactly `raw_len` bytes. The caller has checked
/// that `raw_len` is allowed for this stored length. `dictionary` is that of the table.
pub(crate) fn expand(
    codec: Codec,
    stored: &[u8],
    raw_len: usize,
    dictionary: Option<&Dictionary>,
) -> Result<Vec<u8>, Corruption> {
    if codec == Codec::None {
        return Ok(stored.to_vec());
    }
    let mut raw = vec![0; raw_len];
    let (what, len) = match codec {
        Codec::Zstd => ("zstd block", dictionary::expand(stored, &mut raw, dictionary)),
        _ => ("lz4 block", lz4_flex::block::decompress_into(stored, &mut raw).ok()),
    };
    match len {
        Some(len) if len == raw_len => Ok(raw),
        Some(len) => Err(Corruption::new("decompressed length", 0, raw_len as u64, len as u64)),
        None => Err(Corruption::new(what, 0, raw_len as u64, stored.len() as u64)),
    }
}

//! Blocks made shorter, and made whole again within a bound that the directory has to keep.

use pebble_format::Corruption;
use pebble_format::table::{Codec, expansion_allowed};

/// Compresses `raw` into `to`, replacing what it held; says whether the result is worth storing: shorter by
/// at least an eighth, and not so much shorter that a reader would refuse to allocate the whole.
pub(crate) fn compress(raw: &[u8], to: &mut Vec<u8>) -> bool {
    to.resize(lz4_flex::block::get_maximum_output_size(raw.len()), 0);
    let Ok(len) = lz4_flex::block::compress_into(raw, to) else { return false };
    to.truncate(len);
    len <= raw.len() - raw.len() / 8 && expansion_allowed(len, raw.len())
}

/// The uncompressed block of `stored`, which must come to exactly `raw_len` bytes. The caller has checked
/// that `raw_len` is allowed for this stored length.
pub(crate) fn expand(codec: Codec, stored: &[u8], raw_len: usize) -> Result<Vec<u8>, Corruption> {
    match codec {
        Codec::None => Ok(stored.to_vec()),
        Codec::Lz4 => {
            let mut raw = vec![0; raw_len];
            match lz4_flex::block::decompress_into(stored, &mut raw) {
                Ok(len) if len == raw_len => Ok(raw),
                Ok(len) => Err(Corruption::new("decompressed length", 0, raw_len as u64, len as u64)),
                Err(_) => Err(Corruption::new("lz4 block", 0, raw_len as u64, stored.len() as u64)),
            }
        }
    }
}

//! Limits that the formats impose, each derived once and checked where a user's bytes come in.

/// Longest user key in bytes: its length is a `u16` on disk.
pub const KEY_LEN_MAX: usize = u16::MAX as usize;

/// Longest value in bytes: 1 GiB.
pub const VALUE_LEN_MAX: usize = 1 << 30;

/// Largest batch in encoded bytes: 2 GiB, which leaves a log offset within `u32`.
pub const BATCH_LEN_MAX: usize = 2 << 30;

/// Records start at multiples of this many bytes, so that a position needs two bits less.
pub const RECORD_ALIGN: usize = 4;

/// Rounds a length up to the next multiple of [`RECORD_ALIGN`]; `None` when that overflows.
pub const fn align_up(len: usize) -> Option<usize> {
    match len.checked_add(RECORD_ALIGN - 1) {
        Some(sum) => Some(sum & !(RECORD_ALIGN - 1)),
        None => None,
    }
}

const _: () = assert!(RECORD_ALIGN.is_power_of_two());
const _: () = assert!(BATCH_LEN_MAX as u64 <= u32::MAX as u64 / 2 + 1);

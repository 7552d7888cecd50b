//! What lies behind the place where replay stopped: whole frames there are evidence of how far the log was once
//! durable.
//!
//! ```text
//!    frame frame ✗ ....torn.... frame(promise) ..stale.. zeros
//!                └ stop          └ found by its epoch word, at any place divisible by four
//! ```
//!
//! Pure functions over bytes. Cost: one pass over the words that were written, and one checksum per place that carries
//! the epoch.

use std::ops::Range;

use pebble_format::Corruption;
use pebble_format::log::LogPosition;

use crate::frame::{Bytes, EPOCH_AT};

/// How often, at most, the scan checksums a byte. Real frames do not overlap, so a torn log needs 1; only bytes
/// that were made to waste time need more.
const PASSES_MAX: usize = 4;

/// What whole frames behind the stop say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Evidence {
    /// The highest promise of any.
    pub(crate) promise: LogPosition,
    /// Offset of the end of the last one.
    pub(crate) end: Option<usize>,
}

/// Looks for whole frames at every place of `bytes` whose epoch lies in one of the `written` parts, which are ranges of
/// offsets in the segment, ascending; everything else is zeros, and no epoch is zero.
///
/// Errors: `Corruption` when the bytes carry so many headers that fail that checking on would take for ever.
pub(crate) fn scan(
    bytes: Bytes<'_>,
    written: impl IntoIterator<Item = Range<usize>>,
) -> Result<Evidence, Corruption> {
    let epoch = bytes.epoch.to_le_bytes();
    let (words, _) = bytes.bytes.as_chunks::<4>();
    let mut evidence = Evidence::default();
    let mut budget = bytes.bytes.len().saturating_mul(PASSES_MAX);
    let mut from = EPOCH_AT / 4;
    for part in written {
        from = from.max(part.start.saturating_sub(bytes.base) / 4);
        let to = part.end.saturating_sub(bytes.base).div_ceil(4).min(words.len());
        while let Some(found) = words.get(from..to).and_then(|rest| find(rest, epoch)) {
            let word = from + found;
            let offset = bytes.base + word * 4 - EPOCH_AT;
            let claimed = bytes.claimed(offset);
            let Some(left) = budget.checked_sub(claimed) else {
                return Err(Corruption::new("log tail", offset as u64, budget as u64, claimed as u64));
            };
            budget = left;
            match bytes.frame(offset) {
                Ok(frame) => {
                    evidence.promise = evidence.promise.max(frame.promise);
                    evidence.end = Some(frame.end);
                    from = (frame.end - bytes.base + EPOCH_AT) / 4;
                }
                Err(_) => from = word + 1,
            }
        }
    }
    Ok(evidence)
}

/// Place of the first word that is `wanted`. Whole groups are compared before a look at which word it was: that takes
/// vector instructions, and nearly every group holds none.
fn find(words: &[[u8; 4]], wanted: [u8; 4]) -> Option<usize> {
    const GROUP: usize = 64;
    let wanted = u32::from_le_bytes(wanted);
    let is_wanted = |word: &[u8; 4]| u32::from_le_bytes(*word) == wanted;
    let holds = |group: &[[u8; 4]]| group.iter().fold(false, |holds, word| holds | is_wanted(word));
    let group = words.chunks(GROUP).position(holds)?;
    let place = words.chunks(GROUP).nth(group)?.iter().position(is_wanted)?;
    Some(group * GROUP + place)
}

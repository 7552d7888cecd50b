//! Ranges of keys, as a caller writes them.

use std::ops::{Bound, Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

use pebble_engine::Bounds;

/// What [`Keyspace::range`](crate::Keyspace::range) takes: `..`, `a..b`, `a..=b`, `a..`, `..b`, `..=b` or a pair of
/// [`Bound`]s, over anything that is bytes. No type has to be named.
pub trait KeyRange {
    /// The lower and the upper bound.
    fn into_bounds(self) -> Bounds;
}

fn boxed<K: AsRef<[u8]>>(key: K) -> Box<[u8]> {
    key.as_ref().into()
}

impl KeyRange for RangeFull {
    fn into_bounds(self) -> Bounds {
        (Bound::Unbounded, Bound::Unbounded)
    }
}

impl<K: AsRef<[u8]>> KeyRange for Range<K> {
    fn into_bounds(self) -> Bounds {
        (Bound::Included(boxed(self.start)), Bound::Excluded(boxed(self.end)))
    }
}

impl<K: AsRef<[u8]>> KeyRange for RangeInclusive<K> {
    fn into_bounds(self) -> Bounds {
        let (start, end) = self.into_inner();
        (Bound::Included(boxed(start)), Bound::Included(boxed(end)))
    }
}

impl<K: AsRef<[u8]>> KeyRange for RangeFrom<K> {
    fn into_bounds(self) -> Bounds {
        (Bound::Included(boxed(self.start)), Bound::Unbounded)
    }
}

impl<K: AsRef<[u8]>> KeyRange for RangeTo<K> {
    fn into_bounds(self) -> Bounds {
        (Bound::Unbounded, Bound::Excluded(boxed(self.end)))
    }
}

impl<K: AsRef<[u8]>> KeyRange for RangeToInclusive<K> {
    fn into_bounds(self) -> Bounds {
        (Bound::Unbounded, Bound::Included(boxed(self.end)))
    }
}

impl<K: AsRef<[u8]>, L: AsRef<[u8]>> KeyRange for (Bound<K>, Bound<L>) {
    fn into_bounds(self) -> Bounds {
        (self.0.map(boxed), self.1.map(boxed))
    }
}

/// The bounds of all keys that begin with `prefix`.
pub(crate) fn prefix_bounds(prefix: &[u8]) -> Bounds {
    // The first key behind them all: the prefix without trailing 0xff bytes, its last byte one larger.
    let upper = prefix.iter().rposition(|byte| *byte != u8::MAX).and_then(|last| {
        let mut upper = prefix.get(..=last)?.to_vec();
        *upper.last_mut()? += 1;
        Some(upper.into_boxed_slice())
    });
    (Bound::Included(boxed(prefix)), upper.map_or(Bound::Unbounded, Bound::Excluded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_larger_one() {
        let upper = |prefix: &[u8]| prefix_bounds(prefix).1;
        assert_eq!(upper(b"ann"), Bound::Excluded(boxed("ano")));
        assert_eq!(upper(b"a\xff\xff"), Bound::Excluded(boxed("b")));
        assert_eq!(upper(b"\xff\xff"), Bound::Unbounded);
        assert_eq!(upper(b""), Bound::Unbounded);
    }
}

//! Ranges of keys, as a caller writes them.

use std::ops::{Bound, Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

use pebble_engine::{Bounds, limits};

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

/// A first key, and the first one behind.
pub(crate) type HalfOpen = (Box<[u8]>, Box<[u8]>);

/// The first key within bounds and the first one behind them, an empty one for the end of the keyspace; `None` when no
/// key can lie within.
pub(crate) fn half_open(bounds: Bounds) -> Option<HalfOpen> {
    let start = match bounds.0 {
        Bound::Unbounded => Box::default(),
        Bound::Included(key) => key,
        Bound::Excluded(key) => successor(key)?,
    };
    let end = match bounds.1 {
        Bound::Unbounded => Box::default(),
        // Nothing lies before the empty key.
        Bound::Excluded(key) if key.is_empty() => return None,
        Bound::Excluded(key) => key,
        // Behind the last key there can be is the end of the keyspace.
        Bound::Included(key) => successor(key).unwrap_or_default(),
    };
    (end.is_empty() || start < end).then_some((start, end))
}

/// The next key in order; `None` behind the last key there can be.
fn successor(key: Box<[u8]>) -> Option<Box<[u8]>> {
    let mut key = key.into_vec();
    if key.len() < limits::KEY_LEN_MAX {
        key.push(0);
        return Some(key.into());
    }
    // A key of full length has no longer one behind it: the next is the next larger one of its prefixes.
    match prefix_bounds(&key).1 {
        Bound::Excluded(next) => Some(next),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_any_kind_become_a_half_open_range() {
        let text = |range: Option<HalfOpen>| {
            let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
            range.map(|(start, end)| (text(&start), text(&end)))
        };
        let of = |range: (&str, &str)| Some((range.0.to_owned(), range.1.to_owned()));
        assert_eq!(text(half_open((..).into_bounds())), of(("", "")));
        assert_eq!(text(half_open(("b".."d").into_bounds())), of(("b", "d")));
        assert_eq!(text(half_open(("b"..="d").into_bounds())), of(("b", "d\0")));
        assert_eq!(
            text(half_open((Bound::Excluded("b"), Bound::<&str>::Unbounded).into_bounds())),
            of(("b\0", ""))
        );
        for empty in [("d".."b").into_bounds(), ("b".."b").into_bounds(), (.."").into_bounds()] {
            assert_eq!(half_open(empty), None);
        }
        let longest = vec![7; limits::KEY_LEN_MAX];
        assert_eq!(successor(longest.clone().into()).unwrap().len(), limits::KEY_LEN_MAX);
        assert!(*successor(longest.clone().into()).unwrap() > *longest);
        assert_eq!(successor(vec![255; limits::KEY_LEN_MAX].into()), None);
    }

    #[test]
    fn a_prefix_ends_before_the_next_larger_one() {
        let upper = |prefix: &[u8]| prefix_bounds(prefix).1;
        assert_eq!(upper(b"ann"), Bound::Excluded(boxed("ano")));
        assert_eq!(upper(b"a\xff\xff"), Bound::Excluded(boxed("b")));
        assert_eq!(upper(b"\xff\xff"), Bound::Unbounded);
        assert_eq!(upper(b""), Bound::Unbounded);
    }
}

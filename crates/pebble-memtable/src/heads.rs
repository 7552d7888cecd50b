//! What the heads in a node are made of.
//!
//! ```text
//!   range of a node   [ tenant-0041/a7…  up to  tenant-0041/c2… )
//!   shared              tenant-0041/                                 skip: 12 bytes
//!   its heads                       a7……    b0……    c1……             the eight bytes behind
//! ```
//!
//! Near the root the eight bytes behind the memtable's prefix tell keys apart. Further down all keys of a node may
//! share those, and more: of many keyspaces, tenants or series in one memtable each has a prefix of its own. Then a
//! search would read a record for each comparison. So a node says how many bytes all keys of its *range* share, and
//! its heads are what follows them.
//!
//! It is the range, not what lies in it, that says so: a key that is searched in a node lies in its range, or is the
//! range's upper end, so it shares those bytes too, and its head compares with the others. A range only ever shrinks,
//! so what held when a node was made holds as long as it lives.
//!
//! Source: Bayer, Unterauer, "Prefix B-Trees" (1977); for the ends of the range, Graefe, "Write-Optimized B-Trees"
//! (2004). Threading: values.

use pebble_format::InternalKey;
use pebble_format::key::leading_u64;

use crate::node::Entry;

/// Heads that differ within so many bytes tell the keys of a node apart well enough.
const TOLD_APART: u32 = 6;

/// How much of a key comes before its head. See the [module](self).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skip(u32);

impl Skip {
    /// Nothing is known to be shared: heads are what the memtable's prefix makes of keys.
    pub const NONE: Self = Self(0);

    /// What all keys from `first` to `last` share.
    pub fn between(first: InternalKey<'_>, last: InternalKey<'_>) -> Self {
        // A key of 4 GiB is no key.
        let skip = first.shared_prefix(&last).and_then(|shared| u32::try_from(shared.len() + 1).ok());
        skip.map_or(Self::NONE, Self)
    }

    /// As the word that a node keeps.
    pub fn word(self) -> u32 {
        self.0
    }

    /// Of the word that a node keeps.
    #[inline]
    pub fn of_word(word: u32) -> Self {
        Self(word)
    }

    /// The head of a key that shares what is skipped; `whole` is its head by the memtable's prefix.
    #[inline]
    pub fn head(self, whole: u64, key: &InternalKey<'_>) -> u64 {
        if self == Self::NONE { whole } else { self.behind(key) }
    }

    /// Out of the way of what most nodes need.
    #[inline(never)]
    fn behind(self, key: &InternalKey<'_>) -> u64 {
        let shared = self.0.saturating_sub(1) as usize;
        leading_u64(key.user_key.get(shared..).unwrap_or_default())
    }
}

/// Whether the heads of some entries, in order, are so much alike that it is worth to skip what they share.
pub fn are_alike(entries: &[Entry]) -> bool {
    match (entries.first(), entries.last()) {
        (Some(first), Some(last)) => (first.head ^ last.head).leading_zeros() >= 8 * TOLD_APART,
        _ => false,
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use pebble_format::{KeyspaceId, Seqno};

    use super::*;

    fn key(keyspace: u16, user_key: &str) -> InternalKey<'_> {
        InternalKey::lookup(KeyspaceId(keyspace), user_key.as_bytes(), Seqno(1))
    }

    #[test]
    fn heads_begin_behind_what_the_ends_share() {
        let skip = Skip::between(key(1, "tenant-0041/a7"), key(1, "tenant-0041/c2"));
        assert_eq!(skip.head(9, &key(1, "tenant-0041/b1234567890")), u64::from_be_bytes(*b"b1234567"));
        assert_eq!(skip.head(9, &key(1, "tenant-0041/")), 0);
        assert_eq!(Skip::of_word(skip.word()), skip);
        // A keyspace alone is more than nothing, for the whole head may begin with it.
        let skip = Skip::between(key(1, ""), key(1, "z"));
        assert!(skip > Skip::NONE);
        assert_eq!(skip.head(9, &key(1, "abcdefghi")), u64::from_be_bytes(*b"abcdefgh"));
        assert_eq!(Skip::between(key(1, "a"), key(2, "a")).head(9, &key(1, "b")), 9);
    }

    #[test]
    fn only_heads_that_are_alike_are_worth_it() {
        let entries =
            |heads: &[u64]| heads.iter().map(|head| Entry { head: *head, position: 0 }).collect::<Vec<_>>();
        assert!(
            are_alike(&entries(&[7])) && are_alike(&entries(&[7, 7])) && are_alike(&entries(&[0, 9, 0xffff]))
        );
        assert!(!are_alike(&entries(&[0, 0x1_0000])) && !are_alike(&[]));
    }
}

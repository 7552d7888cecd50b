//! Keys: who wrote what, when, and the order of it all.
//!
//! ```text
//!   internal key = (keyspace, user key, trailer)          trailer = seqno << 8 | kind
//!   order        = keyspace ascending, user key ascending bytewise, trailer DESCENDING
//! ```
//!
//! So the newest version of a key comes first, and a search for `(key, Trailer::newest(s))` lands on the newest
//! version that a reader at seqno `s` may see. There is no custom comparator.

use std::cmp::Ordering;
use std::fmt;

/// Which ordered key space a record belongs to. `0` is the default keyspace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyspaceId(pub u16);

impl KeyspaceId {
    /// The keyspace that always exists.
    pub const DEFAULT: Self = Self(0);
}

/// A sequence number: the position of one record in the order of all commits. 56 bits; the first commit has 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seqno(pub u64);

impl Seqno {
    /// Before every commit.
    pub const ZERO: Self = Self(0);
    /// The largest sequence number: 2^56 - 1.
    pub const MAX: Self = Self((1 << 56) - 1);

    /// The number `n` steps later; `None` past [`Seqno::MAX`].
    pub fn checked_add(self, n: u64) -> Option<Self> {
        self.0.checked_add(n).map(Self).filter(|sum| *sum <= Self::MAX)
    }
}

impl fmt::Display for Seqno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a record says about its key. The numbers are on disk: never change or reuse one.
///
/// `0` is never a kind, so zeroed bytes are no record. `4` (merge) is reserved: a build that does not know it refuses
/// it. The bit of value 2 is set for those that delete, and for no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The key has this value.
    Put = 1,
    /// The key is deleted: a tombstone.
    Delete = 2,
    /// Every key from this one up to the one in the value is deleted, that one excluded: a tombstone of its own key,
    /// and of a range. An empty value reaches to the end of the keyspace.
    RangeDelete = 3,
    /// The key has a value that lies elsewhere: the record's own value is a [`Reference`](crate::Reference). Stands in
    /// tables only.
    Reference = 5,
}

impl Kind {
    /// The kind with this number; `None` for a number this build does not know.
    pub const fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Put),
            2 => Some(Self::Delete),
            3 => Some(Self::RangeDelete),
            5 => Some(Self::Reference),
            _ => None,
        }
    }
}

/// The bit of a kind's number that says that it deletes.
pub(crate) const DELETES: u8 = 2;

const _: () = assert!(Kind::Put as u8 & DELETES == 0 && Kind::Reference as u8 & DELETES == 0);
const _: () = assert!(Kind::Delete as u8 & DELETES != 0 && Kind::RangeDelete as u8 & DELETES != 0);

/// Sequence number and kind in one word, ordered as versions are: a larger trailer is a newer record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Trailer(pub u64);

impl Trailer {
    /// The trailer of a record.
    pub const fn new(seqno: Seqno, kind: Kind) -> Self {
        Self(seqno.0 << 8 | kind as u64)
    }

    /// The search trailer that comes before every version with `seqno` or less, and after every newer one.
    pub const fn newest(seqno: Seqno) -> Self {
        Self(seqno.0 << 8 | 0xff)
    }

    /// The search trailer that comes after every version of a key.
    pub const OLDEST: Self = Self(0);

    /// The sequence number.
    pub const fn seqno(self) -> Seqno {
        Seqno(self.0 >> 8)
    }

    /// The kind's number as it stands on disk.
    pub const fn kind_byte(self) -> u8 {
        self.0.to_le_bytes()[0]
    }

    /// The kind; `None` for a search trailer or a number this build does not know.
    pub const fn kind(self) -> Option<Kind> {
        Kind::from_u8(self.kind_byte())
    }
}

/// A key with everything that orders it. Never passed about as bare bytes, so nobody compares it bytewise.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InternalKey<'a> {
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The user's key.
    pub user_key: &'a [u8],
    /// Sequence number and kind.
    pub trailer: Trailer,
}

impl<'a> InternalKey<'a> {
    /// The position from which a reader at `seqno` finds the newest version of this key that it may see.
    pub fn lookup(keyspace: KeyspaceId, user_key: &'a [u8], seqno: Seqno) -> Self {
        Self { keyspace, user_key, trailer: Trailer::newest(seqno) }
    }

    /// Whether both are versions of one key.
    #[inline]
    pub fn same_key(&self, other: &InternalKey<'_>) -> bool {
        self.cmp_user(other).is_eq()
    }

    /// The bytes that both user keys begin with, and so every key between the two; `None` where their keyspaces
    /// differ.
    #[inline]
    pub fn shared_prefix(&self, other: &InternalKey<'_>) -> Option<&'a [u8]> {
        if self.keyspace != other.keyspace {
            return None;
        }
        let shared = self.user_key.iter().zip(other.user_key).take_while(|(a, b)| a == b).count();
        self.user_key.get(..shared)
    }

    /// Order by keyspace and user key alone.
    #[inline]
    pub fn cmp_user(&self, other: &InternalKey<'_>) -> Ordering {
        self.keyspace.cmp(&other.keyspace).then_with(|| cmp_keys(self.user_key, other.user_key))
    }
}

/// The order of user keys: bytewise. Their first eight bytes nearly always decide, and that in registers, where the
/// comparison of slices is a call.
#[inline]
fn cmp_keys(a: &[u8], b: &[u8]) -> Ordering {
    match (a.first_chunk::<8>(), b.first_chunk::<8>()) {
        (Some(x), Some(y)) if x != y => u64::from_be_bytes(*x).cmp(&u64::from_be_bytes(*y)),
        _ => a.cmp(b),
    }
}

impl Ord for InternalKey<'_> {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.cmp_user(other).then_with(|| other.trailer.cmp(&self.trailer))
    }
}

impl PartialOrd for InternalKey<'_> {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Prints lengths, not bytes: a key must not stand in a log or an error.
impl fmt::Debug for InternalKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:[{} B]#{},{}",
            self.keyspace.0,
            self.user_key.len(),
            self.trailer.0 >> 8,
            self.trailer.kind_byte()
        )
    }
}

/// An [`InternalKey`] that owns its bytes: a bound of a table, kept longer than the bytes it was read from.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnedKey {
    keyspace: KeyspaceId,
    user_key: Box<[u8]>,
    trailer: Trailer,
}

impl OwnedKey {
    /// Copies `key`.
    pub fn new(key: InternalKey<'_>) -> Self {
        Self { keyspace: key.keyspace, user_key: key.user_key.into(), trailer: key.trailer }
    }

    /// The key, borrowed. Not the trait `AsRef`, which can only give a reference.
    #[allow(clippy::should_implement_trait)]
    #[inline]
    pub fn as_ref(&self) -> InternalKey<'_> {
        InternalKey { keyspace: self.keyspace, user_key: &self.user_key, trailer: self.trailer }
    }
}

impl From<InternalKey<'_>> for OwnedKey {
    fn from(key: InternalKey<'_>) -> Self {
        Self::new(key)
    }
}

impl Ord for OwnedKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_ref().cmp(&other.as_ref())
    }
}

impl PartialOrd for OwnedKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Prints lengths, not bytes, as [`InternalKey`] does.
impl fmt::Debug for OwnedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

/// A prefix that many keys share, so that eight bytes behind it decide nearly every comparison.
///
/// [`HeadPrefix::head`] is monotone over all keys, also over those without the prefix: a smaller head proves a
/// smaller key, equal heads prove nothing and the caller compares in full. A badly chosen prefix costs time, never
/// correctness.
///
/// A prefix that spans several keyspaces is empty, and then the head begins with the keyspace.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct HeadPrefix {
    keyspace: Option<KeyspaceId>,
    bytes: Box<[u8]>,
}

impl HeadPrefix {
    /// The empty prefix: keyspace and six key bytes make the head.
    pub fn none() -> Self {
        Self::default()
    }

    /// A prefix of keys within one keyspace.
    pub fn new(keyspace: KeyspaceId, bytes: &[u8]) -> Self {
        Self { keyspace: Some(keyspace), bytes: bytes.into() }
    }

    /// The longest prefix that every key from `first` to `last` shares.
    pub fn between(first: InternalKey<'_>, last: InternalKey<'_>) -> Self {
        let shared = first.shared_prefix(&last);
        shared.map_or_else(Self::none, |shared| Self::new(first.keyspace, shared))
    }

    /// The same without its last `count` bytes: keys that differ there fit it too.
    #[must_use]
    pub fn without_last(self, count: usize) -> Self {
        let len = self.bytes.len().saturating_sub(count);
        Self { bytes: self.bytes.get(..len).unwrap_or_default().into(), ..self }
    }

    /// The keyspace that all keys of the prefix share, if they share one.
    pub fn keyspace(&self) -> Option<KeyspaceId> {
        self.keyspace
    }

    /// The shared bytes of the user keys.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Eight bytes that order keys as their full comparison does, where they differ. Cost: a few cycles.
    #[inline]
    pub fn head(&self, keyspace: KeyspaceId, user_key: &[u8]) -> u64 {
        let Some(own) = self.keyspace else {
            return u64::from(keyspace.0) << 48 | leading_u64(user_key) >> 16;
        };
        if keyspace != own {
            return if keyspace < own { 0 } else { u64::MAX };
        }
        // An empty prefix is common, and comparing even no bytes of it would wait for the key's own.
        if self.bytes.is_empty() {
            return leading_u64(user_key);
        }
        match user_key.strip_prefix(&*self.bytes) {
            Some(rest) => leading_u64(rest),
            None if *user_key < *self.bytes => 0,
            None => u64::MAX,
        }
    }
}

/// The first eight bytes as a big-endian number, zeros behind a shorter slice.
#[inline]
pub fn leading_u64(bytes: &[u8]) -> u64 {
    match bytes.first_chunk::<8>() {
        Some(chunk) => u64::from_be_bytes(*chunk),
        None => {
            let mut padded = [0; 8];
            for (to, from) in padded.iter_mut().zip(bytes) {
                *to = *from;
            }
            u64::from_be_bytes(padded)
        }
    }
}

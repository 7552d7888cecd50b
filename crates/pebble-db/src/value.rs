//! What a read gives: bytes in place, owned by counting.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, Range};

use bytes::Bytes;
use pebble_engine::Pinned;

macro_rules! pinned_bytes {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(Pinned);

        impl $name {
            pub(crate) fn new(bytes: Pinned) -> Self {
                Self(bytes)
            }

            /// A part of the bytes, without a copy.
            ///
            /// # Panics
            ///
            /// When the range does not lie within the bytes, as slicing does.
            pub fn slice(&self, range: Range<usize>) -> Self {
                Self(self.0.slice(range))
            }

            /// The same bytes in memory of their own: lets the segment or table they lie in go. Cost: a copy.
            pub fn detach(self) -> Self {
                Self(self.0.detach())
            }
        }

        impl Deref for $name {
            type Target = [u8];

            #[inline]
            fn deref(&self) -> &[u8] {
                &self.0
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                self
            }
        }

        impl Borrow<[u8]> for $name {
            fn borrow(&self) -> &[u8] {
                self
            }
        }

        /// Without a copy; the bytes stay pinned until the last [`Bytes`] is dropped.
        impl From<$name> for Bytes {
            fn from(bytes: $name) -> Self {
                Bytes::from_owner(bytes.0)
            }
        }

        impl From<$name> for Vec<u8> {
            fn from(bytes: $name) -> Self {
                bytes.to_vec()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "b\"{}\"", self.escape_ascii())
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                **self == **other
            }
        }

        impl Eq for $name {}

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                (**self).cmp(&**other)
            }
        }

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                (**self).hash(state);
            }
        }

        impl PartialEq<[u8]> for $name {
            fn eq(&self, other: &[u8]) -> bool {
                **self == *other
            }
        }

        impl PartialEq<&[u8]> for $name {
            fn eq(&self, other: &&[u8]) -> bool {
                **self == **other
            }
        }

        impl<const N: usize> PartialEq<[u8; N]> for $name {
            fn eq(&self, other: &[u8; N]) -> bool {
                **self == *other
            }
        }

        impl<const N: usize> PartialEq<&[u8; N]> for $name {
            fn eq(&self, other: &&[u8; N]) -> bool {
                **self == **other
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                **self == *other.as_bytes()
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                **self == *other.as_bytes()
            }
        }
    };
}

pinned_bytes! {
    /// The value of a key, in place: a slice of a log segment, a mapped table or a cached block.
    ///
    /// Derefs to `[u8]`. A clone counts a reference; nothing is copied, also not into [`Bytes`].
    ///
    /// ```
    /// # fn main() -> pebble_db::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = pebble_db::Db::open(dir.path())?;
    /// db.put("stone", "granite")?;
    /// let value = db.get("stone")?.expect("just put");
    /// assert_eq!(value, "granite");
    /// assert_eq!(value.slice(0..4), "gran");
    /// let bytes: bytes::Bytes = value.into();
    /// assert_eq!(&bytes[..], b"granite");
    /// # db.close()
    /// # }
    /// ```
    Value
}

pinned_bytes! {
    /// A key that an iterator gave, in place. As [`Value`].
    Key
}

//! Bytes in place, and what keeps them there: how a read hands out a slice of a log segment or of a mapped table.

use std::any::Any;
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::sync::Arc;

/// A slice together with a reference count on its owner. Cloning is one atomic increment; no byte is copied.
///
/// It keeps its owner alive whole: a pinned value of ten bytes in a mapped table keeps that mapping (not its
/// resident memory). [`Pinned::detach`] ends that at the price of a copy.
#[derive(Clone)]
pub struct Pinned {
    bytes: NonNull<[u8]>,
    _owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: a `Pinned` is a shared reference to immutable bytes plus a `Send + Sync` owner.
unsafe impl Send for Pinned {}
// SAFETY: as above; all access through `&Pinned` is reading.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// Pins the slice that `project` finds in `owner`. Cost: one move of the count that the caller gives up.
    #[inline]
    pub fn new<T: Send + Sync + 'static>(
        owner: Arc<T>,
        project: impl for<'a> FnOnce(&'a T) -> &'a [u8],
    ) -> Self {
        let bytes = NonNull::from(project(&owner));
        // The slice lives in `owner` (or in `'static` memory): `project` works for every lifetime `'a`, so it can
        // only return bytes borrowed from its argument. While the count is held nobody gets `&mut T`, and `&'a T`
        // vouches that the bytes stay put and unchanged for any `'a`, hence for as long as the count is held.
        Self { bytes, _owner: owner }
    }

    /// Copies `bytes` into memory of its own.
    pub fn copy(bytes: &[u8]) -> Self {
        Self::new(Arc::new(Box::<[u8]>::from(bytes)), |owned| owned)
    }

    /// The same bytes in memory of their own, releasing the owner.
    pub fn detach(self) -> Self {
        Self::copy(&self)
    }

    /// A part of the slice with the same owner.
    ///
    /// # Panics
    ///
    /// When the range does not lie in the slice, as slicing does.
    pub fn slice(&self, range: Range<usize>) -> Self {
        self.clone().into_slice(range)
    }

    /// As [`Pinned::slice`], giving up the whole: no count is touched.
    #[inline]
    pub fn into_slice(self, range: Range<usize>) -> Self {
        Self { bytes: NonNull::from(&self[range]), _owner: self._owner }
    }
}

impl Deref for Pinned {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: made from a `&[u8]` into `_owner` (see `new`), which is still held.
        unsafe { self.bytes.as_ref() }
    }
}

impl AsRef<[u8]> for Pinned {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pinned({} bytes)", self.len())
    }
}

impl PartialEq for Pinned {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Pinned {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_lives_as_long_as_any_slice() {
        let owner = Arc::new(vec![1_u8, 2, 3, 4]);
        let weak = Arc::downgrade(&owner);
        let whole = Pinned::new(owner, |bytes| bytes);
        let part = whole.slice(1..3);
        let address = whole.as_ptr();
        drop(whole);
        assert_eq!(&*part, [2, 3]);
        assert_eq!(part.as_ptr(), address.wrapping_add(1));
        let copy = part.detach();
        assert!(weak.upgrade().is_none());
        assert_eq!(&*copy, [2, 3]);
    }
}

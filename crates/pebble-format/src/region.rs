//! Memory that one owner appends to and many read in place: a log segment while it lives, and what a memtable
//! points into.
//!
//! ```text
//!   0                          filled                       capacity
//!   ├──────── shared, frozen ────┼──── the appender's alone ────┤
//!        &[u8] for any reader            &mut [u8] for it
//! ```
//!
//! Threading: [`Appender`] is the only writer, by being neither `Clone` nor constructible twice for one region. It
//! writes behind `filled` and moves `filled` with `Release` (back to zero only while no reader exists); a reader
//! loads it with `Acquire`, so what it can reach is whole and never changes again. That makes both sides safe to
//! call; the proof stands at each block.

use std::any::Any;
use std::ptr::NonNull;

use crate::sync::{Accesses, Arc, AtomicUsize, Ordering};

/// See the [module](self).
pub struct AppendRegion {
    base: NonNull<u8>,
    capacity: usize,
    filled: AtomicUsize,
    /// Nothing but in a model, where it finds a byte that is read and written without an order.
    accesses: Accesses,
    /// Owns the memory; dropped last.
    _memory: Box<dyn Any + Send + Sync>,
}

// SAFETY: the memory is owned by `_memory` (Send) and moves with it; no thread-local state is involved.
unsafe impl Send for AppendRegion {}
// SAFETY: shared access reads bytes below `filled` only, and those are never written again (module protocol);
// `filled` itself is atomic, and the unfilled part is reached through the unique `Appender` alone.
unsafe impl Sync for AppendRegion {}

impl AppendRegion {
    /// Zeroed heap memory, wholly unfilled.
    pub fn heap(capacity: usize) -> Appender {
        let memory = HeapMemory::zeroed(capacity);
        let base = memory.0.cast();
        // SAFETY: the allocation lives until `memory` is dropped, stays where it is when `memory` moves, and nobody
        // but the region touches it; a `Vec` is at most `isize::MAX` bytes long.
        unsafe { Self::from_raw(base, capacity, 0, Box::new(memory)) }
    }

    /// A region over memory that `memory` keeps alive, with `filled` bytes readable from the start.
    ///
    /// # Safety
    ///
    /// `base .. base + capacity` must be valid for reads and writes for as long as `memory` lives, `capacity` must
    /// be at most `isize::MAX`, the bytes must be initialised, and nobody else in this process may write them, or
    /// read behind `filled`, for as long as the region lives. (Write-back by the kernel is no access in this
    /// sense.)
    ///
    /// # Panics
    ///
    /// When `filled` exceeds `capacity`.
    pub unsafe fn from_raw(
        base: NonNull<u8>,
        capacity: usize,
        filled: usize,
        memory: Box<dyn Any + Send + Sync>,
    ) -> Appender {
        assert!(filled <= capacity, "filled {filled} of {capacity}");
        let (filled_for_all, accesses) = (AtomicUsize::new(filled), Accesses::of(capacity));
        let region = Self { base, capacity, filled: filled_for_all, accesses, _memory: memory };
        Appender { region: Arc::new(region), filled }
    }

    /// Bytes that can be read so far.
    #[inline]
    pub fn filled(&self) -> usize {
        self.filled.load(Ordering::Acquire)
    }

    /// Bytes that the region can hold.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Everything from `offset` to what is filled now; `None` when `offset` lies behind that.
    #[inline]
    pub fn tail(&self, offset: usize) -> Option<&[u8]> {
        let len = self.filled().checked_sub(offset)?;
        self.accesses.read(offset, len);
        // SAFETY: `offset + len == filled <= capacity`, so the range lies in the region's memory (contract of
        // `from_raw`), which lives as long as `self`. Bytes below `filled` were written before the Release store
        // that our Acquire load saw, and are not written again while `self` is shared: the appender writes behind
        // `filled`, which falls only in `recycle`, when it is the sole owner.
        Some(unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset), len) })
    }

    /// Everything that is filled now.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.tail(0).unwrap_or_default()
    }
}

impl AsRef<[u8]> for AppendRegion {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl std::fmt::Debug for AppendRegion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AppendRegion({} of {} bytes)", self.filled(), self.capacity)
    }
}

/// Heap memory as a raw box, so that no `&mut` to it can be assumed while the region hands out slices.
struct HeapMemory(NonNull<[u8]>);

// SAFETY: the pointer is an owned allocation; only `drop` uses it.
unsafe impl Send for HeapMemory {}
// SAFETY: as above; a shared `HeapMemory` offers no access at all.
unsafe impl Sync for HeapMemory {}

impl HeapMemory {
    fn zeroed(len: usize) -> Self {
        Self(NonNull::from(Box::leak(vec![0; len].into_boxed_slice())))
    }
}

impl Drop for HeapMemory {
    fn drop(&mut self) {
        // SAFETY: a leaked box from `zeroed`, dropped once.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// How far behind the filled bytes [`Appender::prefetch`] looks. Measured with log frames of 152 bytes: 512 to 2,048
/// are alike, 4,096 is worse.
#[cfg(target_arch = "x86_64")]
const PREFETCH_AHEAD: usize = 1024;

/// As many lines as a small record of the log takes; a larger one sets off the processor's own prefetching.
#[cfg(target_arch = "x86_64")]
const PREFETCH_LINES: usize = 3;

/// The one writer of an [`AppendRegion`].
#[derive(Debug)]
pub struct Appender {
    region: Arc<AppendRegion>,
    /// Equals `region.filled`; kept here so that the writer need not load what it alone stores.
    filled: usize,
}

impl Appender {
    /// The region, to be shared with readers.
    #[inline]
    pub fn region(&self) -> &Arc<AppendRegion> {
        &self.region
    }

    /// Bytes filled so far.
    #[inline]
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Bytes that still fit.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.region.capacity - self.filled
    }

    /// The unfilled memory. It may hold stale bytes of an earlier use.
    #[inline]
    pub fn spare(&mut self) -> &mut [u8] {
        let len = self.remaining();
        // SAFETY: the range `filled .. capacity` lies in the region's memory. Readers reach bytes below `filled`
        // only, and there is one appender for a region, borrowed mutably here: so nobody else reads or writes the
        // range.
        unsafe { std::slice::from_raw_parts_mut(self.region.base.as_ptr().add(self.filled), len) }
    }

    /// Starts to load the cache lines that will be written to a few small appends from now. A hint, for a region whose
    /// memory has left the cache since its last use: the processor's own prefetching begins anew with every page, and
    /// stores that wait for their lines make everything behind them wait.
    #[inline]
    pub fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        for line in 0..PREFETCH_LINES {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let target = self.region.base.as_ptr().wrapping_add(self.filled + PREFETCH_AHEAD + line * 64);
            // SAFETY: a prefetch reads nothing as far as the program can tell and faults at no address, so one
            // behind the region's end does no harm either.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(target.cast()) };
        }
    }

    /// Empties the region for another use, if no reader holds it any more; says whether it did. The bytes stay,
    /// stale.
    pub fn recycle(&mut self) -> bool {
        // A sole owner (no other strong or weak count) means that no slice of the region is alive anywhere.
        let Some(region) = Arc::get_mut(&mut self.region) else { return false };
        region.filled = AtomicUsize::new(0);
        self.filled = 0;
        true
    }

    /// Freezes the first `len` spare bytes and lets readers see them.
    ///
    /// # Panics
    ///
    /// When fewer than `len` bytes are spare: a fault of the caller.
    #[inline]
    pub fn fill(&mut self, len: usize) {
        assert!(len <= self.remaining(), "fill {len} of {}", self.remaining());
        self.region.accesses.write(self.filled, len);
        self.filled += len;
        self.region.filled.store(self.filled, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn readers_see_what_is_filled_and_nothing_else() {
        let mut appender = AppendRegion::heap(16);
        let region = Arc::clone(appender.region());
        appender.spare()[..4].copy_from_slice(b"abcd");
        assert_eq!(region.bytes(), b"");
        appender.fill(3);
        assert_eq!(region.bytes(), b"abc");
        assert_eq!(region.tail(2), Some(&b"c"[..]));
        assert_eq!((region.tail(3), region.tail(4)), (Some(&b""[..]), None));
        assert_eq!(appender.spare()[0], b'd');
        assert_eq!(appender.remaining(), 13);
    }

    #[test]
    fn a_reader_on_another_thread_never_sees_a_half_written_word() {
        let mut appender = AppendRegion::heap(8 * 2_000);
        let region = Arc::clone(appender.region());
        let reader = std::thread::spawn(move || {
            let mut seen = 0;
            while seen < region.capacity() {
                seen = region.filled();
                for (index, word) in region.bytes()[..seen].chunks_exact(8).enumerate() {
                    assert_eq!(word, (index as u64 + 1).to_le_bytes());
                }
            }
        });
        for word in 1..=2_000_u64 {
            appender.spare()[..8].copy_from_slice(&word.to_le_bytes());
            appender.fill(8);
        }
        reader.join().unwrap();
    }

    #[test]
    fn a_region_is_recycled_only_when_nobody_reads_it() {
        let mut appender = AppendRegion::heap(4);
        appender.spare().copy_from_slice(b"once");
        appender.fill(4);
        let reader = Arc::clone(appender.region());
        assert!(!appender.recycle());
        assert_eq!(reader.bytes(), b"once");
        drop(reader);
        assert!(appender.recycle());
        assert_eq!((appender.filled(), appender.spare().len()), (0, 4));
    }

    #[test]
    #[should_panic(expected = "fill 17 of 16")]
    fn filling_too_much_panics() {
        AppendRegion::heap(16).fill(17);
    }
}

//! The one processor hint that reads need: ask for a cache line before it is wanted.
//!
//! A miss that waits for another one costs the time of memory each; misses that were asked for together cost it once.
//! Threading: nothing is shared, nothing is changed.

#![allow(unsafe_code)]

/// Bytes of a cache line on the processors that there are hints for.
const LINE: usize = 64;

/// Starts to load the cache line in which `target` begins. A hint: it changes nothing and cannot fault.
#[inline]
pub fn prefetch<T>(target: &T) {
    hint(std::ptr::from_ref(target).cast());
}

/// Starts to load the lines of `len` bytes that begin `offset` bytes behind the start of `base`, also where that is
/// beyond its end: what follows a block of a mapped file is the next one.
#[inline]
pub fn prefetch_lines(base: &[u8], offset: usize, len: usize) {
    let start = base.as_ptr().wrapping_add(offset);
    let mut line = 0;
    while line < len {
        hint(start.wrapping_add(line));
        line += LINE;
    }
}

#[inline]
fn hint(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing as far as the program can tell and faults at no address, so even a
        // wild pointer does.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

//! The one processor hint that reads need: ask for a cache line before it is wanted.

#![allow(unsafe_code)]

/// Starts to load the cache line in which `target` begins. A hint: it changes nothing and cannot fault.
#[inline]
pub(crate) fn prefetch<T>(target: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing as far as the program can tell and faults at no address, so even a
        // wild pointer would do; this one comes from a reference.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(target).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = target;
}

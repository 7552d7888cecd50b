//! What bytes may cost: an allocator that counts, and a bound on what a piece of work holds at a time.
//!
//! Threading: each thread has counters of its own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// Counts what the current thread holds, less what it frees for others.
struct Counting;

fn count(change: isize) {
    // A thread that is ending has no counters any more.
    let _counted = LIVE.try_with(|live| {
        live.set(live.get() + change);
        PEAK.with(|peak| peak.set(peak.get().max(live.get())));
    });
}

fn len(layout: Layout) -> isize {
    isize::try_from(layout.size()).unwrap_or(isize::MAX)
}

// SAFETY: every call goes to the system's allocator with the arguments as they came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(len(layout));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(len(layout));
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-len(layout));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What a decoder may hold for an input of `len` bytes, beside what it was given.
pub fn allowance(len: usize) -> usize {
    16 * len + (1 << 20)
}

/// Does `work`, and panics if it held more than `limit` bytes at a time beyond what was held before.
pub fn bounded<T>(limit: usize, work: impl FnOnce() -> T) -> T {
    let before = LIVE.with(Cell::get);
    let outer = PEAK.with(|peak| peak.replace(before));
    let done = work();
    let peak = PEAK.with(Cell::get);
    PEAK.with(|own| own.set(peak.max(outer)));
    let held = usize::try_from(peak - before).unwrap_or(0);
    assert!(held <= limit, "{held} bytes held, {limit} allowed");
    done
}

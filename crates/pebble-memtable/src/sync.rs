//! The atomics of the tree, and what depends on them: std's in the product, loom's under `cfg(loom)`, where nodes are
//! small so that a model of a few inserts splits leaves and inner nodes.
//!
//! Threading: names only.

#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Slots of a node: 15, as many as fit a permutation word.
#[cfg(not(loom))]
pub const FAN: usize = 15;

/// Slots of a node in a model. One less than a power of two, as 15 is.
#[cfg(loom)]
pub const FAN: usize = 3;

/// Nodes in the first chunk of an arena.
#[cfg(not(loom))]
pub const FIRST_CHUNK: usize = 32;

/// Nodes in the first chunk of an arena in a model, where every atomic costs.
#[cfg(loom)]
pub const FIRST_CHUNK: usize = 4;

/// Asks for a cache line that is read as soon as a rank is known, so that it comes together with the heads, not
/// after them.
#[cfg(not(loom))]
#[inline]
pub fn warm(word: &AtomicU32) {
    std::hint::black_box(word.load(Ordering::Relaxed));
}

/// A model has no caches, and a load whose value nobody uses would only multiply its schedules.
#[cfg(loom)]
pub fn warm(_: &AtomicU32) {}

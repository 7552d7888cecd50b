//! The atomics of the tree, and what depends on them: std's in the product, those of the models under `cfg(loom)` and
//! `cfg(shuttle)`, where nodes are small so that a model of a few inserts splits leaves and inner nodes.
//!
//! Threading: names only.

#[cfg(loom)]
use loom as primitives;
#[cfg(shuttle)]
use shuttle as primitives;
#[cfg(not(any(loom, shuttle)))]
use std as primitives;

pub use primitives::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The atomics of what stands beside the tree. Std's under `cfg(loom)` too: the models of the tree are exhaustive, and
/// figures that guard no record would only multiply their schedules.
pub mod totals {
    #[cfg(shuttle)]
    pub use shuttle::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    #[cfg(not(shuttle))]
    pub use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
}

#[cfg(not(shuttle))]
pub use arc_swap::ArcSwapOption;
#[cfg(shuttle)]
pub use pebble_format::stand_in::ArcSwapOption;

/// Slots of a node: 15, as many as fit a permutation word.
#[cfg(not(any(loom, shuttle)))]
pub const FAN: usize = 15;

/// Slots of a node in a model. One less than a power of two, as 15 is.
#[cfg(any(loom, shuttle))]
pub const FAN: usize = 3;

/// Nodes in the first chunk of an arena.
#[cfg(not(any(loom, shuttle)))]
pub const FIRST_CHUNK: usize = 32;

/// Nodes in the first chunk of an arena in a model, where every atomic costs.
#[cfg(any(loom, shuttle))]
pub const FIRST_CHUNK: usize = 4;

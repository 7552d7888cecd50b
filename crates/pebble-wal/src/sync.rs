//! The primitives that the group commit stands on: std's, or those of the models under `cfg(loom)` and `cfg(shuttle)`.
//!
//! Threading: names only.

#[cfg(loom)]
use loom as primitives;
#[cfg(shuttle)]
use shuttle as primitives;
#[cfg(not(any(loom, shuttle)))]
use std as primitives;

pub(crate) use crate::bell::Bell;
#[cfg(any(loom, shuttle))]
pub(crate) use primitives::sync::Condvar;
pub(crate) use primitives::sync::atomic::{AtomicBool, AtomicU64, Ordering};
pub(crate) use primitives::sync::{Mutex, MutexGuard};
pub(crate) use std::sync::PoisonError;

/// Lets other threads run that can. The models' schedulers choose who runs without being asked.
pub(crate) fn give_way() {
    #[cfg(not(any(loom, shuttle)))]
    std::thread::yield_now();
}

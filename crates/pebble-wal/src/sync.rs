//! The primitives that the group commit stands on: std's, or those of the models under `cfg(loom)` and `cfg(shuttle)`.
//!
//! Threading: names only.

#[cfg(loom)]
use loom as primitives;
#[cfg(shuttle)]
use shuttle as primitives;
#[cfg(not(any(loom, shuttle)))]
use std as primitives;

pub(crate) use primitives::sync::atomic::{AtomicBool, AtomicU64, Ordering};
pub(crate) use primitives::sync::{Condvar, Mutex, MutexGuard};
pub(crate) use std::sync::PoisonError;

//! The lock of the cache's shards and of runs that are streamed: std's, or those of the models under `cfg(loom)` and
//! `cfg(shuttle)`.
//!
//! Threading: names only. The bits of `source.rs` and the cache's numbers guard nothing, and stay std's.

#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::{Mutex, MutexGuard};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::{Mutex, MutexGuard};

use std::sync::PoisonError;

/// Locks, also after a panic of a holder, which leaves nothing half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

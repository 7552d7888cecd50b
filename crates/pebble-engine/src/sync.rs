//! The primitives of the engine: std's, `arc-swap`'s and `crossbeam-channel`'s; those of the models under `cfg(loom)`
//! and `cfg(shuttle)`. And a lock that does not fall over when a thread panicked: whoever guards more than plain data
//! checks for himself.
//!
//! Threading: names only. Figures that guard nothing (`stats.rs`, `pace.rs`, file numbers) keep std's atomics.

#[cfg(loom)]
use loom as primitives;
#[cfg(shuttle)]
use shuttle as primitives;
#[cfg(not(any(loom, shuttle)))]
use std as primitives;

pub(crate) use primitives::sync::atomic::{AtomicBool, AtomicU64, Ordering};
pub(crate) use primitives::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockWriteGuard};
use std::sync::PoisonError;

#[cfg(not(loom))]
pub(crate) use primitives::thread;

#[cfg(not(any(loom, shuttle)))]
pub(crate) use {
    arc_swap::{ArcSwap, Guard},
    crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded},
};

#[cfg(loom)]
pub(crate) use crate::stand_in::thread;
#[cfg(any(loom, shuttle))]
pub(crate) use {
    crate::stand_in::{Receiver, RecvTimeoutError, Sender, bounded},
    pebble_format::stand_in::{ArcSwap, Guard},
};

/// A thread within a scope, or the error where the system has none to give: `Scope::spawn` would panic.
#[cfg(not(any(loom, shuttle)))]
pub(crate) fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    body: impl FnOnce() -> T + Send + 'scope,
) -> std::io::Result<thread::ScopedJoinHandle<'scope, T>> {
    thread::Builder::new().spawn_scoped(scope, body)
}

#[cfg(shuttle)]
pub(crate) fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    body: impl FnOnce() -> T + Send + 'scope,
) -> std::io::Result<thread::ScopedJoinHandle<'scope, T>> {
    Ok(scope.spawn(body))
}

#[cfg(loom)]
pub(crate) use crate::stand_in::thread::spawn_scoped;

/// Locks, also after a panic of a holder.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

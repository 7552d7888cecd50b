//! Locks that do not fall over when a thread panicked: whoever guards more than plain data checks for himself.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after a panic of a holder.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

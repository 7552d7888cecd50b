//! Stand-ins, in models only, for what no model checker sees into: a pointer that is swapped whole.
//!
//! `arc-swap` promises that a load is one step: it gives the pointer that was stored last, and keeps what it points at
//! alive. A lock around an `Arc` promises the same, in more steps than one, none of which shows; so what is checked
//! here is how the pointer is used, and `arc-swap` itself is taken at its word.
//!
//! Threading: as of `arc-swap`: any thread loads or stores.

use std::sync::{Arc, PoisonError};

#[cfg(loom)]
use loom::sync::Mutex;
#[cfg(shuttle)]
use shuttle::sync::Mutex;

/// For `arc_swap::ArcSwapAny`.
#[derive(Debug, Default)]
pub struct ArcSwapAny<T>(Mutex<T>);

/// For `arc_swap::ArcSwap`.
pub type ArcSwap<T> = ArcSwapAny<Arc<T>>;

/// For `arc_swap::ArcSwapOption`.
pub type ArcSwapOption<T> = ArcSwapAny<Option<Arc<T>>>;

/// For `arc_swap::Guard`: a count of its own.
pub type Guard<T> = T;

impl<T> ArcSwap<T> {
    /// One that points at `value`.
    pub fn from_pointee(value: T) -> Self {
        Self(Mutex::new(Arc::new(value)))
    }
}

impl<T: Clone> ArcSwapAny<T> {
    /// The pointer in force.
    pub fn load(&self) -> Guard<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The pointer in force.
    pub fn load_full(&self) -> T {
        self.load()
    }

    /// Puts another one in force. The old one is let go of outside the lock, for it may be the last of many things.
    pub fn store(&self, next: T) {
        let old = std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), next);
        drop(old);
    }
}

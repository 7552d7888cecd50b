//! The primitives that the group commit stands on. The loom model compiles `group.rs` with loom's in this module's
//! place.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

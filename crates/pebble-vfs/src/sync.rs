//! The locks and threads of transfers, of the simulated disk and of the clocks: std's, or shuttle's under
//! `cfg(shuttle)`, where each call to the disk is a place at which another thread may go on.
//!
//! Threading: names only. The words of a simulated file stay std's: they are memory, not a protocol.

#[cfg(not(shuttle))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId},
};

#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId},
};

//! What the region stands on: std's, or shuttle's under `cfg(shuttle)`. The loom model compiles `region.rs` with loom's
//! in this module's place; in every other model the region is std's, for it has a model of its own.
//!
//! Threading: names only.

pub(crate) use std::sync::Arc;

#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicUsize, Ordering};
#[cfg(not(shuttle))]
pub(crate) use std::sync::atomic::{AtomicUsize, Ordering};

/// Which bytes of a region are read and written, for the model to find two that have no order. Nothing here.
pub(crate) struct Accesses;

impl Accesses {
    #[inline]
    pub(crate) fn of(_capacity: usize) -> Self {
        Self
    }

    #[inline]
    pub(crate) fn read(&self, _offset: usize, _len: usize) {}

    #[inline]
    pub(crate) fn write(&self, _offset: usize, _len: usize) {}
}

//! The operating system boundary of PebbleTree: files, maps, locks and time, real and simulated.
//!
//! Everything above this crate is written against the traits [`Fs`], [`File`], [`Lock`] and [`Clock`]
//! and never against the operating system, so that the same engine runs on a real disk, on a disk
//! that loses power at any moment, and on one whose n-th call fails:
//!
//! ```text
//!      engine, log, tables, manifest
//!                  │  Arc<dyn Fs>, Arc<dyn File>, Map, MapMut
//!      ┌───────────┴────────────┐
//!      │ TraceFs   transcript   │   wrappers, stacked at will
//!      │ FaultFs   n-th fails   │
//!      └───────────┬────────────┘
//!           OsFs ──┴── SimFs
//!          Linux       memory: live image, durable image, crash(seed)
//! ```
//!
//! Threading: every type here is `Send + Sync`, and every call may be made from any thread at any
//! time. What a call promises to a concurrent one is what the operating system promises: nothing
//! about overlapping reads and writes of the same bytes.
//!
//! Errors are [`std::io::Error`] whose payload is an [`OpError`]: what was tried, on which path, and why
//! it failed. [`is_no_space`], [`is_no_descriptors`] and [`os_code`] look through that wrapping.

#![deny(unsafe_code)]

mod clock;
mod direct;
mod error;
pub mod fault;
mod fs;
#[allow(unsafe_code, reason = "memory that the kernel, or a simulated file, owns")]
mod map;
mod op;
#[allow(unsafe_code, reason = "system calls that the standard library does not offer")]
mod os;
mod overlay;
mod readable;
mod retry;
pub mod sim;
mod sync;
mod trace;
mod transfer;

pub use clock::{Clock, ManualClock, SystemClock};
pub use direct::{DIRECT_ALIGN, DirectBuffer};
pub use error::{OpError, is_no_descriptors, is_no_space, op_error, os_code};
pub use fault::FaultFs;
pub use fs::{Entry, File, Fs, Lock, LockKind, Open};
pub use map::{Advice, Map, MapMut};
pub use op::{Effect, Op};
pub use os::OsFs;
pub use overlay::OverlayFs;
pub use readable::{is_unreadable, read_what_is_readable};
pub use sim::SimFs;
pub use trace::TraceFs;
pub use transfer::{Helpers, Job, NoHelpers, Transfer};

/// Compiles and runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

//! The bodies of the fuzz targets, each with its oracle, on any compiler.
//!
//! ```text
//!   fuzz_targets/table.rs ──┐ libFuzzer: bytes, then mutate and repair
//!                           ├──► table::TARGET { run, repair, seeds }
//!   tests/replay.rs ────────┘ stable: seeds, regressions, and mutations of both
//! ```
//!
//! A body never panics by itself, whatever the bytes: every panic is a finding. What a decoder takes is compared with
//! something naive, encoded again, or both. [`guard`] bounds the memory that bytes from a file may cost, and every
//! walk counts its steps.
//!
//! Threading: a body runs on one thread, and starts none.

mod disk;
mod forge;
pub mod guard;
mod input;
mod records;
mod tables;

pub mod batch;
pub mod block;
pub mod decompress;
pub mod directory;
pub mod engine;
pub mod footer;
pub mod keys;
pub mod log_frame;
pub mod log_replay;
pub mod manifest_edit;
pub mod manifest_replay;
pub mod merge;
pub mod point_index;
pub mod table;

pub use input::Rng;

/// Name and bytes of a seed.
pub type Seed = (&'static str, Vec<u8>);

/// One fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of its binary and of its directories.
    pub name: &'static str,
    /// Tries one input. A panic is a finding.
    pub run: fn(&[u8]),
    /// Puts the checksums of an input right, as far as its numbers allow, so that what is behind them is reached.
    /// `None` where an input has none.
    pub repair: Option<fn(&mut [u8])>,
    /// The inputs to begin with, the same ones each time.
    pub seeds: fn() -> Vec<Seed>,
    /// How many mutations of its seeds the replay tries.
    pub rounds: u32,
}

/// All of them, in the order of the README.
pub const TARGETS: [Target; 14] = [
    log_frame::TARGET,
    log_replay::TARGET,
    block::TARGET,
    table::TARGET,
    point_index::TARGET,
    footer::TARGET,
    manifest_edit::TARGET,
    manifest_replay::TARGET,
    batch::TARGET,
    decompress::TARGET,
    keys::TARGET,
    merge::TARGET,
    engine::TARGET,
    directory::TARGET,
];

impl Target {
    /// What a mutation is followed by: most of the time the checksums are put right, and sometimes they are not, so
    /// that the refusal is tried too.
    pub fn mend(&self, bytes: &mut [u8], seed: u32) {
        if let Some(repair) = self.repair
            && !seed.is_multiple_of(8)
        {
            repair(bytes);
        }
    }
}

/// The binary of a target.
#[cfg(feature = "libfuzzer")]
#[macro_export]
macro_rules! fuzz {
    ($target:ident) => {
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ($crate::$target::TARGET.run)(bytes));
        libfuzzer_sys::fuzz_mutator!(|bytes: &mut [u8], size: usize, max_size: usize, seed: u32| {
            let size = libfuzzer_sys::fuzzer_mutate(bytes, size, max_size);
            $crate::$target::TARGET.mend(&mut bytes[..size], seed);
            size
        });
    };
}

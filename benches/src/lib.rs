//! Shared helpers of the benchmarks.

pub mod keys;
pub mod rounds;

//! One binary for all integration tests of the table.

#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside test functions")]

mod blocks;
mod cache;
mod cursors;
mod damage;
mod files;
mod hostile;
mod model;
mod ranges;
mod remains;
mod roundtrip;
mod stream;
mod values;
mod zstd;

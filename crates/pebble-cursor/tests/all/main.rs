//! Tests of the crate against naive models, in one binary.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod blocks;
mod concat;
mod failing;
mod merge;
mod model;
mod ranges;

mod veil;
mod visible;

//! The crate's integration tests, one binary.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod blocks;
mod collapse;
mod model;
mod plan;
mod planted;
mod run;
mod simulate;
mod text;
mod tree;

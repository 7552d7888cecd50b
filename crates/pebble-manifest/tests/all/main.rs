//! The crate's integration tests, one binary.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod crash;
mod damage;
mod model;
mod recover;
mod salvage;
mod tree;
mod version;

//! The crate's integration tests, one binary.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod fault;
mod model;
mod real;
mod sim;
mod trace;

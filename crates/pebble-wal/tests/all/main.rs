//! The crate's integration tests, one binary.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod crash;
mod damage;
mod faults;
mod group;
mod reopen;
mod roundtrip;
mod salvage;
mod support;

//! The promises of the database, seen from outside, in one binary.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod campaign;
mod concurrency;
mod crash;
mod damage;
mod faults;
mod golden;
mod health;
mod heat;
mod history;
mod kill;
mod large;
mod limits;
mod model;
mod ranges;
mod read_only;
mod repair;
mod rows;
mod salvage;
mod scans;
mod support;
mod values;
mod zstd;

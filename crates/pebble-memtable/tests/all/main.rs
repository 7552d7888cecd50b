//! The tests of pebble-memtable, one binary.
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod approached;
mod content;
mod limits;
mod log;
mod model;
mod ranges;
mod readers;
mod relearned;

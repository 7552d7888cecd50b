//! The tests of pebble-memtable, one binary.

mod content;
mod limits;
mod log;
mod model;
mod readers;

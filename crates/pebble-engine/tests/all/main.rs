//! The engine between its own seams: the moments that the facade's tests cannot stop at. One binary.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod close;
mod drop;
mod merge;
mod reopen;

use std::path::Path;
use std::sync::Arc;

use pebble_engine::{Components, Engine, Executor, KeyspaceId, Options, Policy};
use pebble_vfs::Fs;

const KEYS: KeyspaceId = KeyspaceId::DEFAULT;

fn dir() -> &'static Path {
    Path::new("/db")
}

/// Runs that overlap stay apart until somebody asks.
fn options() -> Options {
    let mut options = Options::default();
    options.sync_interval = None;
    options.shape = Policy { fan_out: [100; 6], last_percent: Policy::NEVER, ..Policy::default() };
    options
}

/// Opens without threads: nothing happens unseen.
fn open(fs: impl Fs) -> pebble_engine::Result<Engine> {
    let components = Components { fs: Arc::new(fs), executor: Executor::Inline, ..Components::default() };
    Engine::open(dir(), options(), components)
}

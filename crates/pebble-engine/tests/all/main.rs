//! The engine between its own seams: the moments that the facade's tests cannot stop at. One binary.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod close;
mod merge;
mod reopen;

use std::path::Path;
use std::sync::Arc;

use pebble_engine::{Components, Engine, Executor, KeyspaceId, Options};
use pebble_vfs::Fs;

const KEYS: KeyspaceId = KeyspaceId::DEFAULT;

fn dir() -> &'static Path {
    Path::new("/db")
}

fn options() -> Options {
    let mut options = Options::default();
    options.sync_interval = None;
    options
}

/// Opens without threads: nothing happens unseen.
fn open(fs: impl Fs) -> pebble_engine::Result<Engine> {
    let components = Components { fs: Arc::new(fs), executor: Executor::Inline, ..Components::default() };
    Engine::open(dir(), options(), components)
}

//! Planned merges, carried out by the caller.

use std::sync::Arc;

use pebble_engine::{Components, Durability, Engine, Executor};
use pebble_vfs::SimFs;

use crate::{KEYS, dir, options};

#[test]
fn a_step_merges_when_too_many_runs_stand() {
    let mut options = options();
    options.runs_max = 2;
    let components =
        Components { fs: Arc::new(SimFs::new(5)), executor: Executor::Inline, ..Components::default() };
    let engine = Engine::open(dir(), options, components).unwrap();
    let runs = || engine.stats().levels.iter().map(|level| level.runs).sum::<usize>();
    for round in 0..3_u32 {
        assert!(!engine.step().unwrap(), "{round} runs are not too many");
        engine.put(KEYS, b"every round", &round.to_be_bytes(), Durability::Buffered).unwrap();
        engine.put(KEYS, &round.to_be_bytes(), b"once", Durability::Buffered).unwrap();
        engine.flush().unwrap();
    }
    assert_eq!(runs(), 3);
    assert!(engine.step().unwrap());
    assert!(runs() < 3);
    assert_eq!(&*engine.get(KEYS, b"every round", None).unwrap().unwrap(), 2_u32.to_be_bytes());
    for round in 0..3_u32 {
        assert_eq!(&*engine.get(KEYS, &round.to_be_bytes(), None).unwrap().unwrap(), b"once");
    }
}

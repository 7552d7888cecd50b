//! Planned merges, carried out by the caller.

use std::sync::Arc;

use pebble_engine::{Components, Durability, Engine, Executor, Policy};
use pebble_vfs::SimFs;

use crate::{KEYS, dir, options};

fn open(shape: Policy) -> Engine {
    let mut options = options();
    options.shape = shape;
    let components =
        Components { fs: Arc::new(SimFs::new(5)), executor: Executor::Inline, ..Components::default() };
    Engine::open(dir(), options, components).unwrap()
}

fn runs(engine: &Engine) -> Vec<(u8, usize)> {
    engine.stats().levels.iter().map(|level| (level.level, level.runs)).collect()
}

/// Overlapping flushes pile up to the fan-out, then they go down by themselves; a rest brings all to one run.
#[test]
fn runs_go_down_when_they_are_too_many_and_a_rest_leaves_one() {
    let engine =
        open(Policy { fan_out: [3, 2, 2, 2, 2, 2], last_percent: Policy::NEVER, ..Policy::default() });
    for round in 0..20_u32 {
        engine.put(KEYS, b"every round", &round.to_be_bytes(), Durability::Buffered).unwrap();
        engine.put(KEYS, &round.to_be_bytes(), b"once", Durability::Buffered).unwrap();
        engine.put(KEYS, b"zzz", b"last", Durability::Buffered).unwrap();
        engine.flush().unwrap();
        let stand = runs(&engine);
        assert!(
            stand.iter().all(|(level, runs)| *runs < if *level == 0 { 3 } else { 2 }.max(2)),
            "{stand:?}"
        );
    }
    assert!(engine.stats().compactions > 0);
    while engine.step(true).unwrap() {}
    assert_eq!(runs(&engine), [(6, 1)]);
    assert_eq!(engine.stats().levels[0].records, 22, "every version but the newest is gone");
    assert_eq!(&*engine.get(KEYS, b"every round", None).unwrap().unwrap(), 19_u32.to_be_bytes());
    for round in 0..20_u32 {
        assert_eq!(&*engine.get(KEYS, &round.to_be_bytes(), None).unwrap().unwrap(), b"once");
    }
    engine.verify().unwrap();
}

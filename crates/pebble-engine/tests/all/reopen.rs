//! What an open may believe of what it reads back after a failed sync or a kill: the power may fail next.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use pebble_engine::{Durability, Engine};
use pebble_vfs::fault::{Fault, FaultKind, Op};
use pebble_vfs::sim::CrashImage;
use pebble_vfs::{FaultFs, SimFs};

use crate::{KEYS, open};

/// The seal's own sync fails at the close, and its bytes stay in the page cache only. Whoever goes on behind them loses
/// what comes after.
#[test]
fn nothing_is_built_on_a_seal_whose_sync_failed() {
    for len in (0..520).step_by(4) {
        let disk = SimFs::new(3);
        let fs = FaultFs::over_sim(disk.clone());
        let engine = open(fs.clone()).unwrap();
        engine.put(KEYS, b"1", &[1; 300], Durability::Sync).unwrap();
        fs.inject(Fault::once(Op::Sync, 1, FaultKind::LyingSync).on(".log"));
        engine.put(KEYS, b"2", &vec![1; len], Durability::Buffered).unwrap();
        engine.close().expect_err("the seal's sync fails");
        assert_eq!(fs.fired(), 1);
        fs.clear();
        drop(engine);

        let engine = open(fs).unwrap();
        engine.put(KEYS, b"3", &[1; 900], Durability::Sync).unwrap();
        let engine_after = open(disk.crash_with(CrashImage::NothingUnsynced)).unwrap();
        for key in [b"1", b"3"] {
            assert!(
                engine_after.get(KEYS, key, None).unwrap().is_some(),
                "{key:?} is lost with {len} B between"
            );
        }
    }
}

/// A merge is killed at each of its file-system calls, reopened, and the power fails then: what the reopening removed
/// must not be what the device still needs.
#[test]
fn an_open_removes_nothing_before_its_own_state_is_durable() {
    for appends_first in [false, true] {
        let disk = SimFs::new(1);
        let engine = open(disk.clone()).unwrap();
        for round in 0..3_u32 {
            engine.put(KEYS, &round.to_be_bytes(), b"v", Durability::Sync).unwrap();
            engine.put(KEYS, b"every round", b"v", Durability::Sync).unwrap();
            engine.flush().unwrap();
        }
        engine.close().unwrap();
        drop(engine);
        let engine = open(disk.clone()).unwrap();
        if appends_first {
            engine.keyspace("more").unwrap();
        }
        let images: Arc<Mutex<Vec<SimFs>>> = Arc::default();
        let sink = Arc::clone(&images);
        disk.on_event(move |fs, _| sink.lock().unwrap().push(fs.kill()));
        engine.compact(None, &mut |_| ControlFlow::Continue(())).unwrap();
        disk.clear_on_event();

        let images = std::mem::take(&mut *images.lock().unwrap());
        assert!(images.len() > 5, "{} events", images.len());
        for (event, image) in images.iter().enumerate() {
            for second in 0..6 {
                let image = image.kill();
                let reopened = open(image.clone()).unwrap();
                let after = match second {
                    0 => image.crash_with(CrashImage::NamesOnly),
                    1 => image.crash_with(CrashImage::NothingUnsynced),
                    seed => image.crash(seed),
                };
                drop(reopened);
                let all = open(after).and_then(|engine| found(&engine));
                assert_eq!(all.unwrap(), 3, "killed at event {event}, second crash {second}");
            }
        }
    }
}

fn found(engine: &Engine) -> pebble_engine::Result<usize> {
    let keys = (0..3_u32).map(u32::to_be_bytes);
    let values = keys.map(|key| engine.get(KEYS, &key, None)).collect::<pebble_engine::Result<Vec<_>>>()?;
    Ok(values.into_iter().flatten().count())
}

//! The contract's tables 1 and 2, one test a row, each under the row's id (`docs/contract.md`): the fault as the row
//! states it, what the caller sees, and the state after.
//!
//! What only numbers can show (every bit, every event, every call, hundreds of kills) is in `damage`, `crash`, `faults`
//! and `kill`, and counted to the same rows.

mod gate;
mod listen;

use std::sync::Arc;
use std::time::{Duration, Instant};

use pebble_db::{
    Components, Db, Error, Executor, LogIo, ReadMode, Recovery, WriteBatch, WriteOptions, limits,
};
use pebble_format::checksum::crc32c;
use pebble_vfs::fault::{Fault, FaultKind, Op};
use pebble_vfs::sim::CrashImage;
use pebble_vfs::{FaultFs, ManualClock, SimFs, TraceFs};

use self::gate::GateFs;
use crate::support::{Config, LOG_MODES, Map, State, bytes, check_reads, dir, dump, kind, scan, write_file};
use crate::{campaign, damage, limits as calls};

/// A simulated disk, rules over it, a transcript of what is asked of them, and a database on all that.
struct Bench {
    sim: SimFs,
    fs: FaultFs,
    trace: TraceFs,
    config: Config,
    db: Db,
}

impl Bench {
    fn new(config: Config) -> Self {
        Self::with(config, Executor::Inline)
    }

    fn with(config: Config, executor: Executor) -> Self {
        let sim = SimFs::new(5);
        let fs = FaultFs::over_sim(sim.clone());
        let trace = TraceFs::new(Arc::new(fs.clone()), dir());
        let db = config.sim_with(Arc::new(trace.clone()), executor).open().unwrap();
        Self { sim, fs, trace, config, db }
    }

    /// With a synced and a buffered commit.
    fn prepared(log_io: LogIo) -> Self {
        let bench = Self::new(Config::tiny(log_io));
        bench.db.put_with("synced", "1", &WriteOptions::sync()).unwrap();
        bench.db.put("buffered", "2").unwrap();
        bench
    }

    /// What [`Bench::prepared`] wrote is there, and `extra`, and nothing else.
    fn assert_prepared(&self, db: &Db, extra: &[(&str, &str)]) {
        check_reads(db, &prepared(extra), &[b"lost", b"next"]).unwrap();
    }

    /// The database as the process's death leaves it, opened again.
    fn after_kill(&self) -> Db {
        self.config.sim(self.sim.kill()).open().unwrap()
    }

    /// The database as a power cut leaves it that spares nothing, opened again.
    fn after_power_cut(&self) -> Db {
        self.config.sim(self.sim.crash_with(CrashImage::NothingUnsynced)).open().unwrap()
    }

    /// The calls so far that begin like this and are about such a file.
    fn calls(&self, op: &str, file: &str) -> usize {
        let transcript = self.trace.transcript();
        let about = |line: &&str| line.starts_with(op) && line.contains(file);
        transcript.lines().filter(about).count()
    }

    /// Every way to write is refused until a reopen, and every way to read goes on.
    fn assert_read_only(&self, extra: &[(&str, &str)]) {
        let db = &self.db;
        let mut batch = WriteBatch::new();
        batch.put(&db.default_keyspace(), "next", "");
        for refused in [
            db.put("next", ""),
            db.put_with("next", "", &WriteOptions::sync()),
            db.delete("synced"),
            db.delete_range(..),
            db.write(batch),
            db.persist(),
            db.flush(),
            db.keyspace("next").map(drop),
        ] {
            assert_eq!(kind(&refused.unwrap_err()), "ReadOnly");
        }
        assert!(db.stopped().is_some());
        self.assert_prepared(db, extra);
    }
}

fn prepared(extra: &[(&str, &str)]) -> State {
    let entries = [("synced", "1"), ("buffered", "2")].iter().chain(extra);
    let map: Map = entries.map(|(key, value)| ((*key).into(), (*value).into())).collect();
    [("default".to_owned(), map)].into()
}

fn names_of(fs: &SimFs, end: &str) -> Vec<String> {
    dump(fs).into_keys().filter(|name| name.ends_with(end)).collect()
}

const ALL_KINDS: [CrashImage; 5] = [
    CrashImage::NothingUnsynced,
    CrashImage::EverythingUnsynced,
    CrashImage::NamesOnly,
    CrashImage::DataOnly,
    CrashImage::ZeroedTail,
];

/// Enough commits for several segments; the directory's sync of a new one is asked for too, because without it the
/// power cut would take the name.
#[test]
fn acknowledged() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        let bench = Bench::new(Config::tiny(log_io));
        let mut expected = Map::new();
        for n in 0..30_u64 {
            let (key, value) = (n.to_be_bytes().to_vec(), bytes(n, 900));
            let before = bench.calls("sync ", ".log");
            if n % 2 == 0 {
                bench.db.put(&key, &value).unwrap();
                expected.insert(key, value);
                let state = [("default".to_owned(), expected.clone())].into();
                check_reads(&bench.after_kill(), &state, &[]).unwrap();
            } else {
                bench.db.put_with(&key, &value, &WriteOptions::sync()).unwrap();
                assert!(bench.calls("sync ", ".log") > before, "{log_io:?}: acknowledged without a sync");
                expected.insert(key, value);
                let state = [("default".to_owned(), expected.clone())].into();
                check_reads(&bench.after_power_cut(), &state, &[]).unwrap();
            }
            cases += 1;
        }
        assert!(bench.calls("create", ".log") >= 3, "one segment says nothing about new ones");
    }
    campaign::count(&["acknowledged"], "cases", cases);
}

#[test]
fn killed() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        let bench = Bench::new(Config::tiny(log_io));
        let users = bench.db.keyspace("users").unwrap();
        for n in 0..40_u64 {
            let options = if n % 3 == 0 { WriteOptions::sync() } else { WriteOptions::buffered() };
            let mut batch = WriteBatch::new();
            batch.put(&users, (n % 7).to_be_bytes(), bytes(n, 300)).put(
                &bench.db.default_keyspace(),
                (n % 5).to_be_bytes(),
                bytes(n, 100),
            );
            batch.delete(&users, ((n + 3) % 7).to_be_bytes());
            bench.db.write_with(batch, &options).unwrap();
            if n % 11 == 10 {
                bench.db.flush().unwrap();
            }
            assert_eq!(scan(&bench.after_kill()).unwrap(), scan(&bench.db).unwrap(), "{log_io:?}, {n}");
            cases += 1;
        }
    }
    campaign::count(&["killed", "kill"], "cases", cases);
}

/// What a power cut takes is behind the last sync: a commit's own, a `persist()`, the background's.
#[test]
fn power_lost() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        let bench = Bench::new(Config::tiny(log_io));
        let mut floor = 0;
        for n in 1..=40_u64 {
            let sync = n % 9 == 4;
            let options = if sync { WriteOptions::sync() } else { WriteOptions::buffered() };
            bench.db.put_with("counter", n.to_be_bytes(), &options).unwrap();
            if n % 9 == 7 {
                bench.db.persist().unwrap();
            }
            if sync || n % 9 == 7 {
                floor = n;
            }
            for image in ALL_KINDS.into_iter().chain((0..3).map(CrashImage::Random)) {
                let db = bench.config.sim(bench.sim.crash_with(image)).open().unwrap();
                let found = db.get("counter").unwrap();
                let found = found.map_or(0, |value| u64::from_be_bytes((*value).try_into().unwrap()));
                assert!((floor..=n).contains(&found), "{log_io:?}, {image:?}: {found} of {floor}..={n}");
                cases += 1;
            }
        }

        // The background's, here every millisecond. It is waited for, however long it takes.
        let sim = SimFs::new(5);
        let config = Config::tiny(log_io);
        let builder = config.sim_with(Arc::new(sim.clone()), Executor::Threads);
        let db = builder.sync_interval(Some(Duration::from_millis(1))).open().unwrap();
        db.put("buffered", "1").unwrap();
        let begun = Instant::now();
        loop {
            let cut = config.sim(sim.crash_with(CrashImage::NothingUnsynced)).open().unwrap();
            if cut.contains("buffered").unwrap() {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "nobody syncs in the background");
            std::thread::yield_now();
        }
        cases += 1;
    }
    campaign::count(&["power-lost"], "cases", cases);
}

#[test]
fn mixed() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        for way in ["a commit", "persist", "an empty batch"] {
            for before in 0..12_u64 {
                let bench = Bench::new(Config::tiny(log_io));
                let users = bench.db.keyspace("users").unwrap();
                // Over several segments, and over a flush in some.
                for n in 0..before {
                    users.put(n.to_be_bytes(), bytes(n, 1500)).unwrap();
                    bench.db.put(n.to_be_bytes(), "").unwrap();
                    if n == 4 && before % 2 == 1 {
                        bench.db.flush().unwrap();
                    }
                }
                match way {
                    "persist" => bench.db.persist().unwrap(),
                    "a commit" => bench.db.put_with("sync", "", &WriteOptions::sync()).unwrap(),
                    _ => bench.db.write_with(WriteBatch::new(), &WriteOptions::sync()).unwrap(),
                }
                let expected = scan(&bench.db).unwrap();
                bench.db.put("behind", "").unwrap();
                let mut found = scan(&bench.after_power_cut()).unwrap();
                if let Some(map) = found.get_mut("default") {
                    map.remove(&b"behind"[..]);
                }
                found.retain(|_, map| !map.is_empty());
                assert_eq!(found, expected, "{log_io:?}, {before} before, by {way}");
                cases += 1;
            }
        }
    }
    campaign::count(&["mixed"], "cases", cases);
}

/// The process ends at every event of commits, a flush and a merge; the report says what the open met.
#[test]
fn kill() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        let bench = Bench::new(Config::tiny(log_io));
        let images = Arc::<std::sync::Mutex<Vec<SimFs>>>::default();
        let sink = Arc::clone(&images);
        bench.sim.on_event(move |sim, _| sink.lock().unwrap().push(sim.kill()));
        for n in 0..30_u64 {
            bench.db.put(n.to_be_bytes(), bytes(n, 400)).unwrap();
            if n % 10 == 9 {
                bench.db.flush().unwrap();
            }
        }
        bench.db.compact_range(..).unwrap();
        bench.db.put("last", "").unwrap();
        bench.sim.clear_on_event();
        let images = std::mem::take(&mut *images.lock().unwrap());
        let (mut replayed, mut orphans) = (0, 0);
        for image in images {
            let db = bench.config.sim(image).open().unwrap();
            let report = db.recovery();
            let found = db.iter().unwrap().count() as u64;
            assert_eq!(report.dropped_bytes, 0, "a kill tears nothing: {report:?}");
            assert!(!report.clean);
            assert_eq!(report.last_seqno, found, "{report:?}");
            assert!(report.replayed <= report.last_seqno, "{report:?}");
            assert!(db.stopped().is_none());
            db.put("healthy", "").unwrap();
            replayed += report.replayed;
            orphans += report.orphans;
            cases += 1;
        }
        assert!(replayed > 0 && orphans > 0, "{log_io:?}: {replayed} replayed, {orphans} orphans");
    }
    campaign::count(&["kill"], "cases", cases);
}

/// The end of a log above the last promise: cut, zeroed, overwritten, or with a frame of another place in it.
#[test]
fn power_loss() {
    let mut cases = 0;
    let mut reported = 0;
    for log_io in LOG_MODES {
        let bench = Bench::new(Config { segments: (16384, 16384), ..Config::tiny(log_io) });
        bench.db.put_with("synced", "", &WriteOptions::sync()).unwrap();
        let synced_len = used_len(&only_log(&bench.sim).1);
        for n in 0..6_u8 {
            bench.db.put([n], bytes(u64::from(n), 100)).unwrap();
        }
        let (name, log) = only_log(&bench.sim);
        let used = used_len(&log);
        let frame = (used - synced_len) / 6;
        for at in synced_len..used {
            let zeroed = [&log[..at], &vec![0; log.len() - at]].concat();
            let torn = [&log[..at], &vec![0; frame.min(used - at)], &log[(at + frame).min(used)..]].concat();
            let stale_len = frame.min(log.len() - at);
            let stale =
                [&log[..at], &log[synced_len..synced_len + stale_len], &log[at + stale_len..]].concat();
            for (what, damaged) in [("zeroed", zeroed), ("torn", torn), ("stale", stale)] {
                let disk = bench.sim.kill();
                write_file(&disk, &name, &damaged);
                let db = bench.config.sim(disk.clone()).open();
                let db = db.unwrap_or_else(|error| panic!("{log_io:?}, {what} at {at} of {used}: {error}"));
                let same = |n: &usize| damaged[..synced_len + n * frame] == log[..synced_len + n * frame];
                let whole = (1..=6).take_while(same).count();
                let found = db.iter().unwrap().count() - 1;
                assert!(db.contains("synced").unwrap());
                assert_eq!(found, whole, "{log_io:?}, {what} at {at}");
                for n in 0..u8::try_from(found).unwrap() {
                    assert_eq!(db.get([n]).unwrap().as_deref(), Some(&bytes(u64::from(n), 100)[..]));
                }
                reported += db.recovery().dropped_bytes;
                db.put_with("healthy", "", &WriteOptions::sync()).unwrap();
                drop(db);
                assert_eq!(bench.config.sim(disk).open().unwrap().iter().unwrap().count(), found + 2);
                cases += 1;
            }
        }
    }
    assert!(reported > 0, "no dropped byte was reported");
    campaign::count(&["power-loss"], "cases", cases);
}

fn only_log(sim: &SimFs) -> (String, Vec<u8>) {
    let mut logs = dump(&sim.kill()).into_iter().filter(|(name, _)| name.ends_with(".log"));
    let log = logs.next().unwrap();
    assert!(logs.next().is_none(), "more than one segment");
    log
}

fn used_len(log: &[u8]) -> usize {
    log.iter().rposition(|byte| *byte != 0).map_or(0, |last| (last + 4) & !3)
}

#[test]
fn clock_jump() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        let fs = SimFs::new(1);
        let clock = Arc::new(ManualClock::new());
        let components =
            Components { fs: Arc::new(fs.clone()), clock: clock.clone(), executor: Executor::Inline };
        let open =
            || Config::tiny(log_io).apply(Db::builder(dir())).components(components.clone()).open().unwrap();
        let mut db = open();
        for n in 0..60 {
            db.put(format!("{n:02}"), n.to_string()).unwrap();
            clock.advance(Duration::from_secs(5 * 365 * 86_400));
            match n % 12 {
                5 => db.flush().unwrap(),
                8 => db.compact_range(..).unwrap(),
                11 => {
                    drop(db);
                    db = open();
                }
                _ => {}
            }
            assert_eq!(db.iter().unwrap().count(), n + 1);
            assert!(db.stopped().is_none());
            cases += 1;
        }
    }
    campaign::count(&["clock-jump"], "cases", cases);
}

/// As if closed: the next open finds a seal. When that fails there is no panic, and nothing that was acknowledged is
/// lost.
#[test]
fn dropped() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        let bench = Bench::prepared(log_io);
        let Bench { sim, db, config, .. } = bench;
        drop(db);
        let db = config.sim(sim.kill()).open().unwrap();
        assert!(db.recovery().clean, "{log_io:?}: a drop is a close");
        drop(db);
        for op in [Op::Write, Op::Sync, Op::SyncDir, Op::Create, Op::Any] {
            for fault in [FaultKind::Io, FaultKind::NoSpace, FaultKind::LyingSync, FaultKind::Panic] {
                for nth in 0..6 {
                    let Bench { sim, fs, db, config, trace } = Bench::prepared(log_io);
                    fs.inject(Fault::once(op, nth, fault).sticky());
                    // A panic of the disk itself passes through; the drop makes none of its own.
                    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(db)));
                    assert!(ended.is_ok() || fault == FaultKind::Panic, "{op:?} {nth} {fault:?}");
                    drop(trace);
                    let db = config.sim(sim.kill()).open().unwrap();
                    check_reads(&db, &prepared(&[]), &[]).unwrap();
                    let cut = config.sim(sim.crash_with(CrashImage::NothingUnsynced)).open().unwrap();
                    assert!(cut.contains("synced").unwrap());
                    cases += 1;
                }
            }
        }
    }
    campaign::count(&["dropped"], "cases", cases);
}

/// Damage below the promise of a sync, or before a seal: refused, and by choice the prefix before it.
#[test]
fn log_damage() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        for closed in [false, true] {
            let bench = Bench::new(Config { segments: (16384, 16384), ..Config::tiny(log_io) });
            for n in 0..8_u8 {
                bench.db.put_with([n], bytes(u64::from(n), 60), &WriteOptions::sync()).unwrap();
            }
            if closed {
                bench.db.close().unwrap();
            }
            let (name, log) = only_log(&bench.sim);
            // Behind the segment's header; the last sync group of a log that was not closed is nobody's promise.
            let frame = 24 + usize::from(log[64 + 4]);
            let end = if closed { used_len(&log) } else { 64 + 7 * frame };
            for at in (64..end).step_by(5) {
                let disk = bench.sim.kill();
                let mut damaged = log.clone();
                damaged[at] ^= 0x10;
                write_file(&disk, &name, &damaged);
                let before = dump(&disk);
                let what = format!("{log_io:?}, closed: {closed}, byte {at} of {end}");
                let refused = bench.config.sim(disk.clone()).open().expect_err(&what);
                assert_eq!(kind(&refused), "Corruption", "{what}: {refused}");
                assert!(dump(&disk) == before, "{what}: the directory was changed");
                let db = bench.config.sim(disk.clone()).recovery(Recovery::PointInTime).open().expect(&what);
                let found = db.iter().unwrap().count();
                assert_eq!(found, ((at - 64) / frame).min(8), "{what}");
                for n in 0..u8::try_from(found).unwrap() {
                    assert_eq!(db.get([n]).unwrap().as_deref(), Some(&bytes(u64::from(n), 60)[..]), "{what}");
                }
                cases += 1;
            }
        }
    }
    campaign::count(&["log-damage"], "cases", cases);
}

#[test]
fn full_disk_log() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        for room in (0..6000).step_by(600) {
            let bench = Bench::prepared(log_io);
            let used: usize = dump(&bench.sim).values().map(Vec::len).sum();
            bench.sim.set_capacity(Some((used + room) as u64));
            let mut state = prepared(&[]);
            let map = state.get_mut("default").unwrap();
            let mut refused = 0;
            for n in 0..60_u64 {
                let (a, b) = (format!("a-{n:02}"), format!("b-{n:02}"));
                let mut batch = WriteBatch::new();
                batch.put(&bench.db.default_keyspace(), &a, bytes(n, 300));
                batch.put(&bench.db.default_keyspace(), &b, bytes(n, 200));
                match bench.db.write(batch) {
                    Ok(()) => {
                        map.insert(a.into(), bytes(n, 300));
                        map.insert(b.into(), bytes(n, 200));
                    }
                    Err(error) => {
                        assert_eq!(kind(&error), "NoSpace", "{error}");
                        assert!(error.is_retryable());
                        refused += 1;
                    }
                }
            }
            assert!(refused > 0, "{log_io:?}, {room}: nothing was refused");
            check_reads(&bench.db, &state, &[b"a-59", b"b-59"]).unwrap();
            bench.sim.set_capacity(None);
            bench.db.put_with("resumed", "", &WriteOptions::sync()).unwrap();
            state.get_mut("default").unwrap().insert(b"resumed".to_vec(), Vec::new());
            check_reads(&bench.db, &state, &[]).unwrap();
            check_reads(&bench.after_power_cut(), &state, &[b"a-59", b"b-59"]).unwrap();
            cases += 1;
        }
    }
    campaign::count(&["full-disk-log"], "cases", cases);
}

/// First a flush and a merge that are asked for, each with too little space by another amount; then writers whose
/// memtables are full because the background cannot flush.
#[test]
fn full_disk_flush() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        for step in 0..30 {
            let bench = Bench::prepared(log_io);
            for n in 0..20_u64 {
                bench.db.put(format!("key-{n:02}"), bytes(n, 200)).unwrap();
                if n % 7 == 6 && step % 2 == 1 {
                    bench.db.flush().unwrap();
                }
            }
            if step % 2 == 1 {
                bench.db.flush().unwrap();
            }
            let state = scan(&bench.db).unwrap();
            let inputs = names_of(&bench.sim, ".sst");
            let failing = |outcome: pebble_db::Result<()>| match outcome {
                Ok(()) => {}
                Err(error) => {
                    assert_eq!(kind(&error), "NoSpace", "{error}");
                    let left = names_of(&bench.sim, ".sst");
                    assert_eq!(left, inputs, "{log_io:?}, {step}: an output stays, or an input went");
                }
            };
            // The tables themselves, or the edit that would install them.
            let (nth, file) = if step % 6 < 2 { (0, "MANIFEST") } else { (step, ".sst") };
            bench.fs.inject(Fault::once(Op::Write, nth, FaultKind::ShortWrite).on(file).sticky());
            failing(match step % 2 {
                0 => bench.db.flush(),
                _ => bench.db.compact_range(..),
            });
            bench.fs.clear();
            assert!(bench.db.stopped().is_none());
            check_reads(&bench.db, &state, &[]).unwrap();
            bench.db.flush().unwrap();
            bench.db.compact_range(..).unwrap();
            check_reads(&bench.db, &state, &[]).unwrap();
            check_reads(&bench.after_kill(), &state, &[]).unwrap();
            cases += 1;
        }

        let bench = Bench::with(Config::tiny(log_io), Executor::Threads);
        bench.fs.inject(Fault::once(Op::Write, 0, FaultKind::NoSpace).on(".sst").sticky());
        let mut map = Map::new();
        let refused = loop {
            let n = map.len() as u64;
            match bench.db.put(n.to_be_bytes(), bytes(n, 3000)) {
                Ok(()) => _ = map.insert(n.to_be_bytes().to_vec(), bytes(n, 3000)),
                Err(error) => break error,
            }
        };
        assert_eq!(kind(&refused), "NoSpace", "{refused}");
        let mut state: State = [("default".to_owned(), map)].into();
        check_reads(&bench.db, &state, &[b"absent"]).unwrap();
        assert!(bench.db.stopped().is_none());
        assert!(names_of(&bench.sim, ".sst").is_empty(), "an output stays");
        bench.fs.clear();
        // It is tried again by itself, with pauses; a writer that asks often enough finds it done.
        let begun = Instant::now();
        while let Err(error) = bench.db.put("resumed", "") {
            assert_eq!(kind(&error), "NoSpace", "{error}");
            assert!(begun.elapsed() < Duration::from_secs(60), "it never resumes");
            std::thread::yield_now();
        }
        state.get_mut("default").unwrap().insert(b"resumed".to_vec(), Vec::new());
        check_reads(&bench.db, &state, &[b"absent"]).unwrap();
        cases += 1;
    }
    campaign::count(&["full-disk-flush"], "cases", cases);
}

#[test]
fn log_sync_fails() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        for fault in [FaultKind::Io, FaultKind::LyingSync, FaultKind::NoSpace] {
            for sticky in [false, true] {
                let bench = Bench::prepared(log_io);
                let rule = Fault::once(Op::Sync, 0, fault).on(".log");
                bench.fs.inject(if sticky { rule.sticky() } else { rule });
                let snapshot = bench.db.snapshot();
                let error = bench.db.put_with("lost", "?", &WriteOptions::sync()).unwrap_err();
                assert_eq!(kind(&error), "CommitUnknown", "{log_io:?}, {fault:?}: {error}");
                assert!(!error.is_retryable());
                let before = (bench.calls("sync ", ".log"), bench.calls("write", ".log"));
                bench.assert_read_only(&[]);
                assert!(!snapshot.contains(&bench.db.default_keyspace(), "lost").unwrap());
                assert!(bench.db.close().is_err() || sticky || bench.db.stopped().is_some());
                let after = (bench.calls("sync ", ".log"), bench.calls("write", ".log"));
                assert_eq!(after, before, "{log_io:?}, {fault:?}: the log was synced or written again");
                drop(snapshot);
                let db = bench.after_kill();
                let unknown: &[_] = if db.contains("lost").unwrap() { &[("lost", "?")] } else { &[] };
                bench.assert_prepared(&db, unknown);
                let db = bench.after_power_cut();
                assert_eq!(db.get("synced").unwrap().as_deref(), Some(&b"1"[..]));
                db.put("next", "").unwrap();
                cases += 1;
            }
        }
    }
    campaign::count(&["log-sync-fails", "I6"], "cases", cases);
}

#[test]
fn table_sync_fails() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        for fault in [FaultKind::Io, FaultKind::LyingSync] {
            let bench = Bench::prepared(log_io);
            bench.fs.inject(Fault::once(Op::Sync, 0, fault).on(".sst"));
            bench.db.flush().unwrap();
            let transcript = bench.trace.transcript();
            let failed = transcript.lines().find(|line| line.contains(".sst !")).unwrap();
            let failed = failed.trim_start_matches("sync ").split_once(' ').unwrap().0;
            let tables = names_of(&bench.sim, ".sst");
            assert_eq!(tables.len(), 1);
            assert!(*tables[0] > *failed, "{} after {failed}: a number was given twice", tables[0]);
            assert_eq!(bench.calls("sync ", failed), 1, "the file was synced again");
            assert!(bench.db.stopped().is_none());
            bench.db.put_with("more", "3", &WriteOptions::sync()).unwrap();
            bench.assert_prepared(&bench.after_power_cut(), &[("more", "3")]);

            let bench = Bench::prepared(log_io);
            bench.fs.inject(Fault::once(Op::Sync, 0, fault).on(".sst").sticky());
            assert_eq!(kind(&bench.db.flush().unwrap_err()), "Io");
            bench.assert_read_only(&[]);
            bench.assert_prepared(&bench.after_kill(), &[]);
            cases += 2;
        }
    }
    campaign::count(&["table-sync-fails"], "cases", cases);
}

#[test]
fn manifest_sync_fails() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        for fault in [
            Fault::once(Op::Sync, 0, FaultKind::LyingSync).on("MANIFEST"),
            Fault::once(Op::Sync, 0, FaultKind::Io).on("MANIFEST"),
            Fault::once(Op::SyncDir, 0, FaultKind::Io),
        ] {
            for sticky in [false, true] {
                let bench = Bench::prepared(log_io);
                bench.fs.inject(if sticky { fault.clone().sticky() } else { fault.clone() });
                assert!(bench.db.flush().is_err(), "{fault:?}");
                assert!(bench.fs.fired() > 0);
                let count = || (bench.calls("write", "MANIFEST"), bench.calls("sync ", "MANIFEST"));
                let before = count();
                bench.assert_read_only(&[]);
                _ = bench.db.close().unwrap_err();
                assert_eq!(count(), before, "{fault:?}: the manifest was written or synced again");
                for db in [bench.after_kill(), bench.after_power_cut()] {
                    assert!(db.contains("synced").unwrap());
                    db.put_with("next", "", &WriteOptions::sync()).unwrap();
                    db.flush().unwrap();
                }
                bench.assert_prepared(&bench.after_kill(), &[]);
                cases += 1;
            }
        }
    }
    campaign::count(&["manifest-sync-fails", "I6"], "cases", cases);
}

/// The n-th read of a table fails, or gives a flipped bit: that call tells, an iterator repeats it, a merge that meets
/// it keeps its inputs, and all goes on.
#[test]
fn read_error() {
    let mut cases = 0;
    let config = Config { read_mode: ReadMode::Pread, ..Config::tiny(LogIo::Map) };
    let bench = Bench::new(config.clone());
    let mut map = Map::new();
    for n in 0..50_u64 {
        bench.db.put(n.to_be_bytes(), bytes(n, 300)).unwrap();
        map.insert(n.to_be_bytes().to_vec(), bytes(n, 300));
        if n % 13 == 12 {
            bench.db.flush().unwrap();
        }
    }
    bench.db.close().unwrap();
    let state: State = [("default".to_owned(), map)].into();
    let (mut by_iterator, mut by_merge) = (0, 0);
    for (fault, wanted) in [(FaultKind::Io, "Io"), (FaultKind::FlipBit { bit: 77 }, "Corruption")] {
        for nth in 0..40 {
            let sim = bench.sim.kill();
            let fs = FaultFs::over_sim(sim.clone());
            let db = config.sim(fs.clone()).open().unwrap();
            fs.inject(Fault::once(Op::Read, nth, fault).on(".sst"));
            let mut iter = db.iter().unwrap();
            let mut entries = state["default"].iter();
            loop {
                match iter.next() {
                    Some(Ok((key, value))) => {
                        let (wanted_key, wanted_value) = entries.next().unwrap();
                        assert_eq!((&*key, &*value), (&wanted_key[..], &wanted_value[..]));
                    }
                    Some(Err(error)) => {
                        assert_eq!(kind(&error), wanted, "{nth}: {error}");
                        for _ in 0..3 {
                            assert_eq!(kind(&iter.next().unwrap().unwrap_err()), wanted);
                            assert_eq!(kind(&iter.next_back().unwrap().unwrap_err()), wanted);
                        }
                        by_iterator += 1;
                        break;
                    }
                    None => {
                        assert!(entries.next().is_none(), "ended early");
                        break;
                    }
                }
            }
            fs.clear();
            check_reads(&db, &state, &[]).unwrap();
            let inputs = names_of(&sim, ".sst");
            fs.inject(Fault::once(Op::Read, nth, fault).on(".sst"));
            if let Err(error) = db.compact_range(..) {
                assert_eq!(kind(&error), wanted, "{nth}: {error}");
                assert_eq!(names_of(&sim, ".sst"), inputs, "{nth}: the inputs of a merge that failed");
                by_merge += 1;
            }
            fs.clear();
            assert!(db.stopped().is_none());
            db.put("healthy", "").unwrap();
            db.delete("healthy").unwrap();
            check_reads(&db, &state, &[]).unwrap();
            db.compact_range(..).unwrap();
            check_reads(&config.sim(sim.kill()).open().unwrap(), &state, &[]).unwrap();
            cases += 1;
        }
    }
    assert!(by_iterator > 0 && by_merge > 0, "{by_iterator} met by an iterator, {by_merge} by a merge");
    campaign::count(&["read-error"], "cases", cases);
}

/// Every bit of every file of closed databases, small ones of two layouts.
#[test]
fn bit_flip() {
    let flips = damage::flip_every_bit();
    campaign::count(&["bit-flip", "I4", "I8"], "flips", flips);
}

#[test]
fn swapped() {
    let cases = damage::exchange_files() + damage::take_files_of_another() + damage::put_old_copies_back();
    campaign::count(&["swapped", "I4", "I8"], "cases", cases);
}

#[test]
fn missing() {
    let cases = damage::remove_files() + damage::cut_files();
    campaign::count(&["missing", "I4", "I8"], "cases", cases);
}

#[test]
fn foreign_file() {
    let cases = damage::leave_strangers_alone();
    campaign::count(&["foreign-file", "I8"], "cases", cases);
}

/// Each kind of file that has a version says that it is of the next one, with a right checksum.
#[test]
fn newer_format() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        let bench = Bench::prepared(log_io);
        bench.db.flush().unwrap();
        bench.db.put("in the log", "").unwrap();
        bench.db.close().unwrap();
        let kinds: [(&str, usize, usize); 3] = [(".log", 0, 60), ("MANIFEST", 0, 44), (".sst", 256, 252)];
        for (kind_of_file, from_end, covered) in kinds {
            let files = dump(&bench.sim);
            let (name, file) = files.iter().find(|(name, _)| name.contains(kind_of_file)).unwrap();
            let begin = if from_end == 0 { 0 } else { file.len() - from_end };
            let mut newer = file.clone();
            let version = newer[begin + 8];
            newer[begin + 8] = version + 1;
            let crc = crc32c(0, &newer[begin..begin + covered]);
            newer[begin + covered..begin + covered + 4].copy_from_slice(&crc.to_le_bytes());
            let disk = bench.sim.kill();
            write_file(&disk, name, &newer);
            let before = dump(&disk);
            let error = bench.config.sim(disk.clone()).open().unwrap_err();
            let Error::UnsupportedVersion { file, found, max } = &error else { panic!("{name}: {error}") };
            assert_eq!((&**file, *found, *max), (&**name, u32::from(version) + 1, u32::from(version)));
            assert!(dump(&disk) == before, "{name}: something was written");
            cases += 1;
        }
    }
    campaign::count(&["newer-format", "I8"], "cases", cases);
}

/// In this process and in another, at once, and without a trace; the first one goes on.
#[test]
fn second_open() {
    let fs = SimFs::new(1);
    let clock = Arc::new(ManualClock::new());
    let components =
        || Components { fs: Arc::new(fs.clone()), clock: clock.clone(), executor: Executor::Inline };
    let db = Db::builder(dir()).components(components()).open().unwrap();
    db.put("k", "v").unwrap();
    let (before, events, files) = (pebble_vfs::Clock::now(&*clock), fs.events(), dump(&fs));
    for create in [true, false] {
        let second = Db::builder(dir()).components(components()).create_if_missing(create).open();
        assert_eq!(kind(&second.unwrap_err()), "Locked");
    }
    assert_eq!(pebble_vfs::Clock::now(&*clock), before, "it waited");
    assert_eq!(fs.events(), events, "it wrote");
    assert!(dump(&fs) == files);
    db.put("k", "w").unwrap();
    db.close().unwrap();
    let again = Db::builder(dir()).components(components()).open().unwrap();
    assert_eq!(again.get("k").unwrap().unwrap(), "w", "a close lets go while a handle is held");
    assert_eq!(kind(&db.get("k").unwrap_err()), "Closed");

    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let db = Db::open(&path).unwrap();
    db.put("k", "v").unwrap();
    // The least of a few tries: what a busy machine adds is not the database's.
    let here = (0..5).map(|_| {
        let begun = Instant::now();
        assert_eq!(kind(&Db::open(&path).unwrap_err()), "Locked");
        begun.elapsed()
    });
    let there = (0..3).map(|_| {
        let (answer, took) = calls::open_in_a_child(&path);
        assert_eq!(answer, "Locked");
        took
    });
    for least in [here.min(), there.min()] {
        assert!(least < Some(Duration::from_millis(100)), "{least:?}");
    }
    db.put("k", "w").unwrap();
    db.close().unwrap();
    assert_eq!(calls::open_in_a_child(&path).0, "w");
    assert_eq!(Db::open(&path).unwrap().get("k").unwrap().unwrap(), "w");
    campaign::count(&["second-open"], "cases", 11);
}

#[test]
fn limits() {
    let db = Config::tiny(LogIo::Map).sim(SimFs::new(1)).open().unwrap();
    let space = db.default_keyspace();
    let refused = |outcome: pebble_db::Result<()>| {
        let error = outcome.unwrap_err();
        assert_eq!(kind(&error), "InvalidArgument", "{error}");
    };
    let (longest, longer) = (vec![7; limits::KEY_LEN_MAX], vec![7; limits::KEY_LEN_MAX + 1]);
    assert_eq!((longest.len(), limits::VALUE_LEN_MAX, limits::BATCH_LEN_MAX), (65_535, 1 << 30, 2 << 30));
    db.put(&longest, "fits").unwrap();
    assert_eq!(db.get(&longest).unwrap().unwrap(), "fits");
    let before = (scan(&db).unwrap(), db.stats().visible_seqno);
    refused(db.put(&longer, ""));
    refused(db.delete(&longer));
    // Zeros that nobody touches are not in memory.
    let huge = vec![0; limits::VALUE_LEN_MAX + 1];
    refused(db.put("huge", &huge));
    refused(db.put_with("huge", &huge, &WriteOptions::sync()));
    for over in [
        WriteBatch::new().put(&space, "first", "1").put(&space, &longer, "").put(&space, "third", "3"),
        WriteBatch::new().put(&space, "first", "1").put(&space, "huge", &huge),
        WriteBatch::new().put(&space, "first", "1").delete(&space, &longer),
    ] {
        refused(db.write(over.clone()));
    }
    assert_eq!((scan(&db).unwrap(), db.stats().visible_seqno), before);
    assert!(db.stopped().is_none());
    // What cannot be there is not found, or not allowed to be asked for.
    match db.get(&longer) {
        Ok(found) => assert_eq!(found, None),
        Err(error) => assert_eq!(kind(&error), "InvalidArgument"),
    }
    db.put("", "").unwrap();
    assert_eq!(db.get("").unwrap().as_deref(), Some(&b""[..]));
    assert_eq!(db.iter().unwrap().next().unwrap().unwrap().0, "");
    campaign::count(&["limits"], "cases", 7);
}

/// Writers wait for a flush that waits at a gate and then panics: each is woken, with an error, within a second.
#[test]
fn panic() {
    const WRITERS: u8 = 3;
    let mut cases = 0;
    for log_io in LOG_MODES {
        let sim = SimFs::new(5);
        let (fs, keeper) = GateFs::new(sim.clone());
        let config = Config::tiny(log_io);
        let db = config.sim_with(Arc::new(fs), Executor::Threads).open().unwrap();
        let done = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let db = &db;
                    scope.spawn(move || {
                        for n in 0_u32.. {
                            let key = [&[writer][..], &n.to_be_bytes()].concat();
                            if let Err(error) = db.put(key, bytes(u64::from(n), 6000)) {
                                assert!(matches!(kind(&error), "Background" | "ReadOnly"), "{error}");
                                return (n, Instant::now());
                            }
                        }
                        unreachable!("memtables take everything");
                    })
                })
                .collect();
            keeper.arrived.recv().unwrap();
            // All of them wait when the counter of commits stands still over many turns of this thread.
            let (mut last, mut still) = (0, 0);
            while still < 2000 {
                std::thread::sleep(Duration::from_micros(50));
                let seqno = db.stats().visible_seqno;
                still = if seqno == last { still + 1 } else { 0 };
                last = seqno;
            }
            keeper.opens.send(()).unwrap();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
        });
        let began = keeper.panicked_at.lock().unwrap().unwrap();
        let mut map = Map::new();
        for (writer, (count, woken)) in (0..WRITERS).zip(done) {
            let late = woken.saturating_duration_since(began);
            assert!(late < Duration::from_secs(1), "writer {writer} was woken after {late:?}");
            for n in 0..count {
                map.insert([&[writer][..], &n.to_be_bytes()].concat(), bytes(u64::from(n), 6000));
            }
        }
        let state: State = [("default".to_owned(), map)].into();
        for refused in [db.put("next", ""), db.flush(), db.persist(), db.keyspace("next").map(drop)] {
            assert!(matches!(kind(&refused.unwrap_err()), "Background" | "ReadOnly"));
        }
        assert!(db.stopped().is_some());
        check_reads(&db, &state, &[b"next"]).unwrap();
        drop(db);
        let db = config.sim(sim.kill()).open().unwrap();
        check_reads(&db, &state, &[b"next"]).unwrap();
        db.put("next", "1").unwrap();
        cases += u64::from(WRITERS);
    }
    campaign::count(&["panic", "I9"], "cases", cases);
}

/// The n-th call that needs a descriptor finds none, once and for a while.
#[test]
fn no_descriptors() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        for op in [Op::Create, Op::Open] {
            for nth in 0..4 {
                for sticky in [false, true] {
                    let bench = Bench::prepared(log_io);
                    let rule = Fault::once(op, nth, FaultKind::TooManyFiles);
                    bench.fs.inject(if sticky { rule.sticky() } else { rule });
                    for outcome in
                        [bench.db.flush(), bench.db.put("more", bytes(1, 9000)), bench.db.compact_range(..)]
                    {
                        if let Err(error) = outcome {
                            assert_eq!(kind(&error), "Io", "{op:?} {nth}: {error}");
                        }
                    }
                    assert!(bench.db.stopped().is_none(), "{op:?} {nth}: {:?}", bench.db.stopped());
                    bench.fs.clear();
                    bench.db.put("more", "3").unwrap();
                    bench.db.flush().unwrap();
                    bench.assert_prepared(&bench.db, &[("more", "3")]);
                    bench.assert_prepared(&bench.after_kill(), &[("more", "3")]);
                    cases += 1;
                }
            }
        }
        // The background's own: it is tried again by itself, and a flush that is asked for finds it done or does it.
        let bench = Bench::with(Config::tiny(log_io), Executor::Threads);
        bench.fs.inject(Fault::once(Op::Create, 0, FaultKind::TooManyFiles).on(".sst"));
        let mut n = 0_u64;
        while bench.db.stats().flushes == 0 {
            match bench.db.put(n.to_be_bytes(), bytes(n, 3000)) {
                Ok(()) => n += 1,
                Err(error) => assert_eq!(kind(&error), "Io", "{error}"),
            }
        }
        assert_eq!(bench.fs.fired(), 1);
        assert_eq!(bench.db.iter().unwrap().count() as u64, n);
        cases += 1;
    }
    campaign::count(&["no-descriptors"], "cases", cases);
}

/// Modes of a real directory; and what is told, in errors and in the log, of databases that hold nothing but secrets.
#[test]
fn private() {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("deep/db");
        let db = Db::open(&path).unwrap();
        db.put("k", "v").unwrap();
        db.flush().unwrap();
        db.close().unwrap();
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&root.path().join("deep"))), (0o700, 0o700));
        let mut files = 0;
        for entry in std::fs::read_dir(&path).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
            files += 1;
        }
        assert!(files >= 5, "{files} files");
    }
    let secret = "s3cr3t";
    let told = listen::to(|| {
        let mut errors = Vec::new();
        for log_io in LOG_MODES {
            let bench = Bench::new(Config::tiny(log_io));
            let fill = |n: u64| bench.db.put(format!("{secret}-{n}"), secret.repeat(40)).unwrap();
            (0..20).for_each(fill);
            bench.fs.inject(Fault::once(Op::Sync, 0, FaultKind::Io).on(".sst"));
            bench.db.flush().unwrap();
            (20..30).for_each(fill);
            let long = secret.repeat(20_000);
            errors.extend(bench.db.put(&long, secret).err());
            bench.fs.inject(Fault::once(Op::Sync, 0, FaultKind::Io).on(".log"));
            errors.extend(bench.db.put_with(secret, secret, &WriteOptions::sync()).err());
            errors.extend(bench.db.put(secret, secret).err());
            let files = dump(&bench.sim.kill());
            for (name, bytes) in files.iter().filter(|(name, _)| *name != "LOCK") {
                for at in (0..bytes.len().min(6000)).step_by(53) {
                    let disk = bench.sim.kill();
                    let mut bytes = bytes.clone();
                    bytes[at] ^= 1;
                    write_file(&disk, name, &bytes);
                    match bench.config.sim(disk).open() {
                        Err(error) => errors.push(error),
                        Ok(db) => {
                            errors.extend(scan(&db).err());
                            errors.extend(db.verify().err());
                        }
                    }
                }
            }
        }
        let told = |error: &Error| format!("{error}\n{error:?}\n");
        assert!(errors.len() > 100, "{} errors", errors.len());
        errors.iter().map(told).collect::<String>()
    });
    assert!(told.contains("opened"), "nothing was heard: {told}");
    for hidden in [secret.to_owned(), format!("{:?}", secret.as_bytes()).replace(['[', ']'], "")] {
        let found = told.lines().find(|line| line.contains(&hidden));
        assert_eq!(found, None, "a key or a value was told");
    }
    campaign::count(&["private"], "cases", told.lines().count() as u64);
}

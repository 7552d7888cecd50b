//! What most rows are shown on: a database on a simulated disk that fails by rules and writes down what is asked of it.

use std::sync::Arc;

use pebble_db::{Db, Executor, LogIo, WriteBatch, WriteOptions};
use pebble_vfs::sim::CrashImage;
use pebble_vfs::{FaultFs, SimFs, TraceFs};

use crate::support::{Config, Map, State, check_reads, dir, dump, kind};

/// A simulated disk, rules over it, a transcript of what is asked of them, and a database on all that.
pub struct Bench {
    pub sim: SimFs,
    pub fs: FaultFs,
    pub trace: TraceFs,
    pub config: Config,
    pub db: Db,
}

impl Bench {
    pub fn new(config: Config) -> Self {
        Self::with(config, Executor::Inline)
    }

    pub fn with(config: Config, executor: Executor) -> Self {
        let sim = SimFs::new(5);
        let fs = FaultFs::over_sim(sim.clone());
        let trace = TraceFs::new(Arc::new(fs.clone()), dir());
        let db = config.sim_with(Arc::new(trace.clone()), executor).open().unwrap();
        Self { sim, fs, trace, config, db }
    }

    /// With a synced and a buffered commit.
    pub fn prepared(log_io: LogIo) -> Self {
        let bench = Self::new(Config::tiny(log_io));
        bench.db.put_with("synced", "1", &WriteOptions::sync()).unwrap();
        bench.db.put("buffered", "2").unwrap();
        bench
    }

    /// What [`Bench::prepared`] wrote is there, and `extra`, and nothing else.
    pub fn assert_prepared(&self, db: &Db, extra: &[(&str, &str)]) {
        check_reads(db, &prepared(extra), &[b"lost", b"next"]).unwrap();
    }

    /// The database as the process's death leaves it, opened again.
    pub fn after_kill(&self) -> Db {
        self.config.sim(self.sim.kill()).open().unwrap()
    }

    /// The database as a power cut leaves it that spares nothing, opened again.
    pub fn after_power_cut(&self) -> Db {
        self.config.sim(self.sim.crash_with(CrashImage::NothingUnsynced)).open().unwrap()
    }

    /// The calls so far that begin like this and are about such a file.
    pub fn calls(&self, op: &str, file: &str) -> usize {
        let transcript = self.trace.transcript();
        let about = |line: &&str| line.starts_with(op) && line.contains(file);
        transcript.lines().filter(about).count()
    }

    /// Every way to write is refused until a reopen, and every way to read goes on.
    pub fn assert_read_only(&self, extra: &[(&str, &str)]) {
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

pub fn prepared(extra: &[(&str, &str)]) -> State {
    let entries = [("synced", "1"), ("buffered", "2")].iter().chain(extra);
    let map: Map = entries.map(|(key, value)| ((*key).into(), (*value).into())).collect();
    [("default".to_owned(), map)].into()
}

pub fn names_of(fs: &SimFs, end: &str) -> Vec<String> {
    dump(fs).into_keys().filter(|name| name.ends_with(end)).collect()
}

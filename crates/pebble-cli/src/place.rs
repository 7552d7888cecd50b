//! Where the database is and how it is opened: the arguments that all verbs share.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use pebble_db::{Builder, Db, Keyspace, LogIo, ReadMode, WriteOptions};

use crate::failure::{Failure, Result, note};
use crate::human;

/// How a database is opened.
#[derive(Args, Clone, Debug)]
pub struct Tuning {
    /// Memory for memtables, indexes, filters and caches together, such as 64M [default: 256M]
    #[arg(long, value_name = "BYTES", value_parser = human::parse_bytes)]
    pub memory_budget: Option<u64>,
    /// How tables are read [default: map]
    #[arg(long, value_enum)]
    pub read_mode: Option<Reads>,
    /// How the log is written [default: map]
    #[arg(long, value_enum)]
    pub log_io: Option<Logs>,
}

/// See [`ReadMode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Reads {
    /// Through a memory map, in place
    Map,
    /// With positioned reads and a cache; safe against SIGBUS
    Pread,
}

/// See [`LogIo`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Logs {
    /// Through mapped segments, without a system call
    Map,
    /// With one write for each commit
    Write,
}

/// Where the database is.
#[derive(Args, Clone, Debug)]
pub struct Place {
    /// Directory of the database
    #[arg(value_name = "DB")]
    pub db: PathBuf,
    #[command(flatten)]
    pub tuning: Tuning,
}

/// One keyspace of a database.
#[derive(Args, Clone, Debug)]
pub struct Spot {
    #[command(flatten)]
    pub place: Place,
    /// The keyspace
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub keyspace: String,
}

/// Whether a verb makes what is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A database and a keyspace that are not there are made.
    Create,
    /// They are an error.
    Refuse,
}

impl Tuning {
    /// Opens the database in `path`.
    pub fn open(&self, path: &Path, missing: Missing) -> Result<Db> {
        Ok(self.builder(path, missing).open()?)
    }

    fn builder(&self, path: &Path, missing: Missing) -> Builder {
        let mut builder = Db::builder(path).create_if_missing(missing == Missing::Create);
        if let Some(bytes) = self.memory_budget {
            builder = builder.memory_budget(bytes);
        }
        if let Some(mode) = self.read_mode {
            builder = builder.read_mode(match mode {
                Reads::Map => ReadMode::Map,
                Reads::Pread => ReadMode::Pread,
            });
        }
        if let Some(io) = self.log_io {
            builder = builder.log_io(match io {
                Logs::Map => LogIo::Map,
                Logs::Write => LogIo::Write,
            });
        }
        builder
    }
}

impl Tuning {
    /// The same again, as arguments for another process.
    pub fn arguments(&self) -> Vec<String> {
        fn name<V: ValueEnum>(value: V) -> Option<String> {
            Some(value.to_possible_value()?.get_name().to_owned())
        }
        let budget = self.memory_budget.map(|bytes| format!("--memory-budget={bytes}"));
        let reads = self.read_mode.and_then(name).map(|mode| format!("--read-mode={mode}"));
        let log = self.log_io.and_then(name).map(|io| format!("--log-io={io}"));
        [budget, reads, log].into_iter().flatten().collect()
    }
}

impl Place {
    /// Opens, works, closes. The first failure counts: that a database with a problem does not close is no news.
    pub fn with<T>(&self, missing: Missing, work: impl FnOnce(&Db) -> Result<T>) -> Result<T> {
        let db = self.tuning.open(&self.db, missing)?;
        let found = db.recovery();
        if !found.clean {
            note(&format!(
                "{} was not closed: {} records recovered from the log, {} bytes of an unfinished write dropped",
                self.db.display(),
                human::count(found.replayed),
                human::count(found.dropped_bytes),
            ));
        }
        let done = work(&db);
        let closed = db.close();
        let done = done?;
        closed?;
        Ok(done)
    }
}

impl Place {
    /// Opens for reading only, works, closes.
    pub fn read<T>(&self, work: impl FnOnce(&Db) -> Result<T>) -> Result<T> {
        let db = self.tuning.builder(&self.db, Missing::Refuse).read_only(true).open()?;
        let done = work(&db)?;
        db.close()?;
        Ok(done)
    }
}

impl Spot {
    /// [`Place::with`] for one keyspace.
    pub fn with<T>(&self, missing: Missing, work: impl FnOnce(&Db, &Keyspace) -> Result<T>) -> Result<T> {
        self.place.with(missing, |db| {
            if missing == Missing::Refuse && !db.keyspaces().contains(&self.keyspace) {
                let path = self.place.db.display();
                return Err(Failure::Failed(format!("{path} has no keyspace {:?}", self.keyspace)));
            }
            work(db, &db.keyspace(&self.keyspace)?)
        })
    }
}

/// How a write is acknowledged.
#[derive(Args, Clone, Copy, Debug)]
pub struct Sync {
    /// Wait until the device has it: a power cut loses nothing then
    #[arg(long)]
    pub sync: bool,
}

impl Sync {
    /// For the database.
    pub fn options(self) -> WriteOptions {
        if self.sync { WriteOptions::sync() } else { WriteOptions::buffered() }
    }
}

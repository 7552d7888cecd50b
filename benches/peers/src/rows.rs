//! The rows of the contest: what each does, and what PebbleTree has to reach in it.

use crate::data::{Content, Keys};
use crate::report::Better;
use crate::store::Compression;

/// What a row does. Its records are loaded before, in random order, and the engine has come to rest, unless it fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Writes every record once into a new database, `batch` of them in one commit.
    Fill { batch: usize },
    /// Syncs every write.
    FillSync { threads: usize },
    /// Overwrites random records, as many as there are.
    Overwrite,
    /// Gets of random records.
    Read { threads: usize },
    /// Gets of keys that are not there.
    Missing,
    /// All records in order.
    Scan { reverse: bool },
    /// A seek to a random record, and so many entries from there.
    Seek { entries: usize },
    /// A thread reads, another overwrites.
    ReadWhileWriting,
    /// A workload of YCSB, by its letter.
    Ycsb(char),
    /// Deletes nine records of ten, then scans the rest.
    Delete,
    /// Kills a process that wrote all records, and opens what it left.
    ReopenKilled,
    /// Closes a database, and opens it.
    ReopenClosed,
    /// Writes random records, measuring each put.
    Puts,
    /// Loads, reads and overwrites with a quarter of the data's size as memory, the kernel's page cache included.
    BeyondMemory,
}

impl Work {
    /// Whether it only reads, so that several may use one loaded database.
    pub fn only_reads(self) -> bool {
        matches!(
            self,
            Self::Read { .. } | Self::Missing | Self::Scan { .. } | Self::Seek { .. } | Self::Ycsb('C')
        )
    }

    /// Whether it begins with loaded records.
    pub fn loads(self) -> bool {
        let fills =
            matches!(self, Self::Fill { .. } | Self::FillSync { .. } | Self::Puts | Self::BeyondMemory);
        !fills && !matches!(self, Self::ReopenKilled | Self::ReopenClosed)
    }
}

/// What a figure of PebbleTree is measured against. `Best`, `Lsm` and `RocksDb`: how many times better it has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Than the best peer of any kind.
    Best(f64),
    /// Than the best peer of any kind, with this many million records or more the second.
    BestAt(f64, f64, f64),
    /// Than the best peer that is a log-structured merge tree.
    Lsm(f64),
    /// Than RocksDB.
    RocksDb(f64),
    /// Below a number.
    AtMost(f64),
    /// Above a number.
    AtLeast(f64),
}

/// A figure with what it has to reach.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// One of [`FIGURES`].
    pub figure: &'static str,
    /// What it has to reach.
    pub target: Target,
}

/// A row of the contest.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// On the command line and in files.
    pub name: &'static str,
    /// What it does.
    pub work: Work,
    /// What its keys look like.
    pub keys: Keys,
    /// Bytes of a value.
    pub value_len: usize,
    /// One record of so many that the contest runs with.
    pub part: u64,
    /// So many records for each.
    pub times: u64,
    /// At most so many records.
    pub records_max: u64,
    /// Compression of tables; with it values can be compressed to half, and only merge trees take part.
    pub compression: Compression,
    /// What is to be reached beside [`COMMON`].
    pub goals: &'static [Goal],
}

impl Row {
    /// Bytes of a key.
    pub fn key_len(&self) -> usize {
        if self.keys == Keys::Prefixed { 56 } else { 16 }
    }

    /// What the values hold.
    pub fn content(&self) -> Content {
        if self.compression == Compression::None { Content::Random } else { Content::Half }
    }

    /// How many records there are when the contest runs with `records`.
    pub fn records(&self, records: u64) -> u64 {
        (records * self.times / self.part).clamp(1000, self.records_max)
    }

    /// The name of the loaded data that this row begins with; rows with the same name share it.
    pub fn data_name(&self, records: u64) -> String {
        format!("{:?}-{}-{}-{:?}", self.keys, self.value_len, self.records(records), self.compression)
            .to_lowercase()
    }
}

const fn goal(figure: &'static str, target: Target) -> Goal {
    Goal { figure, target }
}

/// Goals of every row.
pub const COMMON: &[Goal] =
    &[goal("anonymous_mb", Target::RocksDb(1.0)), goal("cpu_per_million", Target::Best(1.0))];

/// Goals of rows that write much, beside their rate: PebbleTree's tables are the fewest bytes of all merge trees',
/// and its files at most a tenth larger than RocksDB's.
const WRITES: [Goal; 2] =
    [goal("write_amp_tables", Target::Lsm(1.0)), goal("space_amp", Target::RocksDb(1.0 / 1.1))];

const BASE: Row = Row {
    name: "",
    work: Work::Fill { batch: 1 },
    keys: Keys::Hashed,
    value_len: 100,
    part: 1,
    times: 1,
    records_max: u64::MAX,
    compression: Compression::None,
    goals: &[],
};

const fn row(name: &'static str, work: Work, goals: &'static [Goal]) -> Row {
    Row { name, work, goals, ..BASE }
}

const fn best(times: f64) -> Goal {
    goal("rate", Target::Best(times))
}

/// All rows, in the order of the report.
pub const ROWS: &[Row] = &[
    row("fillrandom", Work::Fill { batch: 1 }, &[best(5.0), WRITES[0], WRITES[1]]),
    row("overwrite", Work::Overwrite, &[best(5.0), WRITES[0], WRITES[1]]),
    row("fillbatch", Work::Fill { batch: 1000 }, &[best(5.0), WRITES[0], WRITES[1]]),
    Row {
        keys: Keys::Ascending,
        ..row("fillseq", Work::Fill { batch: 1 }, &[best(3.0), WRITES[0], WRITES[1]])
    },
    Row { records_max: 100_000, ..row("fillsync-1", Work::FillSync { threads: 1 }, &[best(1.0)]) },
    Row { records_max: 1_000_000, ..row("fillsync-16", Work::FillSync { threads: 16 }, &[best(3.0)]) },
    row("readrandom-1", Work::Read { threads: 1 }, &[goal("rate", Target::BestAt(1.5, 10e6, 2.0))]),
    row("readrandom-2", Work::Read { threads: 2 }, &[goal("rate", Target::BestAt(1.5, 10e6, 2.0))]),
    row("readmissing", Work::Missing, &[best(2.0)]),
    row("readseq", Work::Scan { reverse: false }, &[best(2.0)]),
    row("readreverse", Work::Scan { reverse: true }, &[best(2.0)]),
    row("seek-10", Work::Seek { entries: 10 }, &[best(1.5)]),
    row("seek-100", Work::Seek { entries: 100 }, &[best(1.5)]),
    row(
        "readwhilewriting",
        Work::ReadWhileWriting,
        &[goal("reader_rate", Target::Best(1.5)), goal("writer_rate", Target::Best(3.0))],
    ),
    row("ycsb-a", Work::Ycsb('A'), &[best(1.5)]),
    row("ycsb-b", Work::Ycsb('B'), &[best(1.5)]),
    row("ycsb-c", Work::Ycsb('C'), &[best(1.5)]),
    row("ycsb-d", Work::Ycsb('D'), &[best(1.5)]),
    row("ycsb-e", Work::Ycsb('E'), &[best(1.5)]),
    row("ycsb-f", Work::Ycsb('F'), &[best(1.5)]),
    row(
        "delete",
        Work::Delete,
        &[
            best(3.0),
            goal("scan_fresh", Target::Lsm(5.0)),
            // Of any kind: what is settled is a tree like any other.
            goal("scan_settled", Target::Best(1.0)),
        ],
    ),
    Row { value_len: 16 << 10, part: 16, records_max: 65_536, ..row("large-fill", BASE.work, &[best(1.5)]) },
    Row {
        value_len: 16 << 10,
        part: 16,
        records_max: 65_536,
        ..row("large-read", Work::Read { threads: 1 }, &[best(1.0)])
    },
    Row { value_len: 8, ..row("small-fill", BASE.work, &[best(5.0)]) },
    Row { value_len: 8, ..row("small-read", Work::Read { threads: 1 }, &[best(1.5)]) },
    Row { keys: Keys::Prefixed, ..row("prefix-fill", BASE.work, &[best(5.0)]) },
    Row { keys: Keys::Prefixed, ..row("prefix-read", Work::Read { threads: 1 }, &[best(1.5)]) },
    row("reopen-killed", Work::ReopenKilled, &[goal("open_ms", Target::RocksDb(5.0))]),
    row("reopen-closed", Work::ReopenClosed, &[goal("open_ms", Target::AtMost(20.0))]),
    Row {
        value_len: 984,
        times: 4,
        records_max: 4_000_000,
        ..row(
            "puts-4gb",
            Work::Puts,
            &[goal("lowest_second", Target::AtLeast(50.0)), goal("p999_us", Target::Lsm(1.0)), WRITES[0]],
        )
    },
    Row {
        value_len: 984,
        records_max: 1_000_000,
        ..row(
            "beyond-memory",
            Work::BeyondMemory,
            &[goal("reader_rate", Target::Lsm(1.0)), goal("writer_rate", Target::Lsm(1.0))],
        )
    },
    Row { compression: Compression::Lz4, ..row("lz4-fillrandom", BASE.work, &[WRITES[0], WRITES[1]]) },
    Row { compression: Compression::Lz4, ..row("lz4-readrandom", Work::Read { threads: 1 }, &[best(1.5)]) },
    Row { compression: Compression::Lz4, ..row("lz4-readseq", Work::Scan { reverse: false }, &[best(2.0)]) },
];

/// A figure that rows have: its key in JSON, what it is, its unit, and which of two is better.
pub struct FigureKind {
    /// In JSON.
    pub key: &'static str,
    /// For people.
    pub title: &'static str,
    /// Such as `MB`.
    pub unit: &'static str,
    /// How two are compared.
    pub better: Better,
}

const fn kind(key: &'static str, title: &'static str, unit: &'static str, better: Better) -> FigureKind {
    FigureKind { key, title, unit, better }
}

/// All figures, in the order of the report.
pub const FIGURES: &[FigureKind] = &[
    kind("rate", "operations", "1/s", Better::Higher),
    kind("reader_rate", "reads", "1/s", Better::Higher),
    kind("reader_p999_us", "read, p99.9", "us", Better::Lower),
    kind("writer_rate", "writes", "1/s", Better::Higher),
    kind("fill_rate", "load", "1/s", Better::Higher),
    kind("scan_fresh", "scan, fresh tombstones", "1/s", Better::Higher),
    kind("scan_settled", "scan, settled", "1/s", Better::Higher),
    kind("open_ms", "open to first get", "ms", Better::Lower),
    kind("p50_us", "put, p50", "us", Better::Lower),
    kind("p99_us", "put, p99", "us", Better::Lower),
    kind("p999_us", "put, p99.9", "us", Better::Lower),
    kind("max_us", "put, max", "us", Better::Lower),
    kind("lowest_second", "lowest second of median", "%", Better::Higher),
    kind("write_amp_tables", "table bytes per user byte", "x", Better::Lower),
    kind("write_amp_device", "device bytes per user byte", "x", Better::Lower),
    kind("space_amp", "disk per live byte, end", "x", Better::Lower),
    kind("device_mb", "bytes to the device", "MB", Better::Lower),
    kind("tables_mb", "bytes of tables", "MB", Better::Lower),
    kind("disk_mb", "disk, end", "MB", Better::Lower),
    kind("log_mb", "of it the log, with what is allocated ahead", "MB", Better::Lower),
    kind("anonymous_mb", "anonymous memory, peak", "MB", Better::Lower),
    kind("cpu_s", "CPU", "s", Better::Lower),
    kind("cpu_per_million", "CPU per million operations", "s", Better::Lower),
    kind("settle_s", "quiet after", "s", Better::Lower),
    kind("operations", "operations measured", "", Better::Neither),
    kind("stopped", "stopped at the time limit", "", Better::Neither),
];

/// The figure of that key.
pub fn figure(key: &str) -> Option<&'static FigureKind> {
    FIGURES.iter().find(|kind| kind.key == key)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_differ_and_goals_have_figures() {
        let names: HashSet<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
        for goal in ROWS.iter().flat_map(|row| row.goals).chain(COMMON) {
            assert!(figure(goal.figure).is_some(), "{}", goal.figure);
        }
    }

    #[test]
    fn only_equal_data_is_shared() {
        for (i, a) in ROWS.iter().enumerate() {
            for b in &ROWS[..i] {
                let equal = (a.keys, a.value_len, a.records(1_000_000), a.compression)
                    == (b.keys, b.value_len, b.records(1_000_000), b.compression);
                assert_eq!(a.data_name(1_000_000) == b.data_name(1_000_000), equal, "{} {}", a.name, b.name);
            }
        }
    }
}

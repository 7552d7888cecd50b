//! What the tests share: seeded choices, small configurations, the content of a database as a map, and children.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};

use pebble_db::{
    Builder, CompactionPolicy, Components, Compression, Db, Error, Executor, Keyspace, LogIo, PointIndex,
    ReadMode, Result,
};
use pebble_vfs::{Fs, ManualClock, Open, SimFs};

use crate::history::{Bug, BuggyFs};

pub const LOG_MODES: [LogIo; 2] = [LogIo::Map, LogIo::Write];

/// Where the database lies on a simulated disk.
pub fn dir() -> &'static Path {
    Path::new("/db")
}

/// A small generator (splitmix64, Steele et al. 2014): every seed is a good one.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number in `0..bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// A bijection over `u64` that leaves no pattern.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `len` bytes that nothing else has, drawn from `seed`.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng(mix(seed));
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&rng.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Small fan-outs, so that a few flushes reach every rule.
fn policy(fan_out: u16, last_percent: u32) -> CompactionPolicy {
    CompactionPolicy { fan_out: [fan_out; 6], last_percent, crumbs: 4, ..CompactionPolicy::default() }
}

/// One of each kind, with fan-outs so small that a few flushes reach every rule, and tombstones that count soon.
pub fn policies() -> [CompactionPolicy; 5] {
    let small = |shape: CompactionPolicy, fan_out: [u16; 6]| CompactionPolicy {
        fan_out,
        tombstones_min: 4,
        crumbs: 4,
        crumb_bytes: 2048,
        ..shape
    };
    let lazy = CompactionPolicy::lazy();
    [
        small(lazy, [3, 2, 2, 2, 2, 2]),
        small(CompactionPolicy::leveled(), [2, 3, 3, 2, 2, 2]),
        small(CompactionPolicy::tiered(2), [2, 2, 2, 2, 2, 2]),
        CompactionPolicy { merge_bytes_max: 8192, ..small(lazy, [1, 1, 1, 1, 1, 1]) },
        // Merges that only a user asks for, and deep trees until then.
        CompactionPolicy {
            tombstones_min: u64::MAX,
            care_factor: 0,
            ..small(CompactionPolicy::tiered(40), [40; 6])
        },
    ]
}

/// How a database is laid out, in the test's words.
#[derive(Clone, Debug)]
pub struct Config {
    pub log_io: LogIo,
    pub read_mode: ReadMode,
    pub compression: Compression,
    pub index: PointIndex,
    pub values_apart: Option<usize>,
    pub block_len: usize,
    pub table_len: u64,
    pub compaction: CompactionPolicy,
    /// Matters where threads merge.
    pub merge_threads: usize,
    pub segments: (u32, u32),
    pub budget: u64,
    /// A bug that is planted between the database and the simulated disk; see `history.rs`.
    pub bug: Option<Bug>,
}

impl Config {
    /// As small as the options allow, so that a few records fill blocks, tables and segments.
    pub fn tiny(log_io: LogIo) -> Self {
        Self {
            log_io,
            read_mode: ReadMode::Map,
            compression: Compression::None,
            index: PointIndex::Location,
            values_apart: Some(64),
            block_len: 64,
            table_len: 4096,
            compaction: policy(2, 70),
            merge_threads: 1,
            segments: (4096, 16384),
            budget: 1 << 20,
            bug: None,
        }
    }

    /// Any of them.
    pub fn random(rng: &mut Rng) -> Self {
        Self {
            log_io: rng.pick(&LOG_MODES),
            read_mode: rng.pick(&[ReadMode::Map, ReadMode::Pread]),
            compression: rng.pick(&[Compression::None, Compression::Lz4]),
            index: rng.pick(&[
                PointIndex::Location,
                PointIndex::Bloom { bits_per_key: 10 },
                PointIndex::Bloom { bits_per_key: 1 },
                PointIndex::None,
            ]),
            values_apart: rng.pick(&[None, Some(64), Some(100), Some(4096)]),
            block_len: rng.pick(&[64, 256, 4096]),
            table_len: rng.pick(&[1024, 4096, 65536]),
            compaction: policy(rng.pick(&[1, 2, 4]), rng.pick(&[10, 70, CompactionPolicy::NEVER])),
            merge_threads: 1 + rng.below(3),
            segments: rng.pick(&[(4096, 4096), (4096, 16384), (65536, 1 << 20)]),
            budget: rng.pick(&[1 << 20, 4 << 20]),
            bug: None,
        }
    }

    pub fn apply(&self, builder: Builder) -> Builder {
        builder
            .log_io(self.log_io)
            .read_mode(self.read_mode)
            .compression(self.compression)
            .point_index(self.index)
            .values_apart(self.values_apart)
            .block_len(self.block_len)
            .table_len(self.table_len)
            .compaction(self.compaction)
            .merge_threads(self.merge_threads)
            .segment_len(self.segments.0, self.segments.1)
            .memory_budget(self.budget)
    }

    /// The database in `/db` of a simulated file system. Nothing runs but in the caller.
    pub fn sim(&self, fs: impl Fs) -> Builder {
        self.sim_with(Arc::new(fs), Executor::Inline)
    }

    pub fn sim_with(&self, fs: Arc<dyn Fs>, executor: Executor) -> Builder {
        // The defaults ask the machine for the number of its cores, which takes as long as a small open.
        static DEFAULTS: OnceLock<Builder> = OnceLock::new();
        let builder = DEFAULTS.get_or_init(|| Db::builder(dir())).clone();
        let components = Components { fs: self.seam(fs), clock: Arc::new(ManualClock::new()), executor };
        self.apply(builder).sync_interval(None).components(components)
    }

    /// The file system with the planted bug over it, if there is one.
    pub fn seam(&self, fs: Arc<dyn Fs>) -> Arc<dyn Fs> {
        match self.bug {
            Some(bug) => Arc::new(BuggyFs::new(fs, bug)),
            None => fs,
        }
    }

    /// The database in a real directory, with threads.
    pub fn real(&self, path: &Path) -> Builder {
        self.apply(Db::builder(path))
    }
}

/// One keyspace as a map.
pub type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// All keyspaces by name; a keyspace without entries is left out.
pub type State = BTreeMap<String, Map>;

/// The keyspace with a name, the default one included.
pub fn keyspace(db: &Db, name: &str) -> Result<Keyspace> {
    if name == "default" { Ok(db.default_keyspace()) } else { db.keyspace(name) }
}

/// What a scan of every keyspace gives. A test that needs no more than the content uses this.
pub fn scan(db: &Db) -> Result<State> {
    let mut state = State::new();
    for name in db.keyspaces() {
        let mut map = Map::new();
        for entry in keyspace(db, &name)?.iter()? {
            let (key, value) = entry?;
            let last = map.last_key_value().map(|(last, _): (&Vec<u8>, &Vec<u8>)| last.as_slice());
            assert!(last < Some(&key), "keys of {name} in order");
            map.insert(key.to_vec(), value.to_vec());
        }
        if !map.is_empty() {
            state.insert(name, map);
        }
    }
    Ok(state)
}

/// Checks every way of reading against `expected`: forward, backward, and every key by itself. An error is handed
/// back, a wrong answer is a panic. Absent keys are those of `absent`.
pub fn check_reads(db: &Db, expected: &State, absent: &[&[u8]]) -> Result<()> {
    let empty = Map::new();
    let names = db.keyspaces();
    for name in &names {
        let map = expected.get(name).unwrap_or(&empty);
        let keyspace = keyspace(db, name)?;
        let mut entries = map.iter();
        for entry in keyspace.iter()? {
            let (key, value) = entry?;
            assert_entry(&key, &value, entries.next(), name, "forward");
        }
        assert_eq!(entries.next().map(|(key, _)| short(key)), None, "{name}, forward, ended early");
        let mut entries = map.iter().rev();
        for entry in keyspace.iter()?.rev() {
            let (key, value) = entry?;
            assert_entry(&key, &value, entries.next(), name, "backward");
        }
        assert_eq!(entries.next().map(|(key, _)| short(key)), None, "{name}, backward, ended early");
        for (key, value) in map {
            assert_value(keyspace.get(key)?.as_deref(), Some(value), name, key);
        }
        for key in absent.iter().filter(|key| !map.contains_key(**key)) {
            assert_value(keyspace.get(key)?.as_deref(), None, name, key);
        }
    }
    for name in expected.keys() {
        assert!(names.contains(name), "keyspace {name} is gone");
    }
    Ok(())
}

/// The bytes are compared as they are, and made short for the message alone: a crash image is compared so often that
/// hashing what is equal would be most of the campaign's time.
fn assert_entry(key: &[u8], value: &[u8], wanted: Option<(&Vec<u8>, &Vec<u8>)>, name: &str, way: &str) {
    if wanted.is_some_and(|wanted| (key, value) == (&**wanted.0, &**wanted.1)) {
        return;
    }
    let wanted = wanted.map(|(key, value)| (short(key), short(value)));
    panic!("{name}, {way}: found {:?}, not {wanted:?}", (short(key), short(value)));
}

fn assert_value(found: Option<&[u8]>, wanted: Option<&Vec<u8>>, name: &str, key: &[u8]) {
    if found == wanted.map(Vec::as_slice) {
        return;
    }
    let (found, wanted) = (found.map(short), wanted.map(|value| short(value)));
    panic!("{name}: get {} found {found:?}, not {wanted:?}", short(key));
}

/// Bytes for a message: the beginning, the length and a hash that tells long ones apart.
pub fn short(bytes: &[u8]) -> String {
    if bytes.len() <= 40 {
        return bytes.escape_ascii().to_string();
    }
    let hash = bytes.iter().fold(bytes.len() as u64, |hash, byte| mix(hash ^ u64::from(*byte)));
    format!("{}..{}#{hash:016x}", bytes[..24].escape_ascii(), bytes.len())
}

/// Every file under `/db`, with its bytes.
pub fn dump(fs: &SimFs) -> BTreeMap<String, Vec<u8>> {
    let entries = fs.list(dir()).unwrap_or_default();
    entries
        .into_iter()
        .filter(|entry| entry.is_file)
        .map(|entry| {
            let name = entry.name.into_string().unwrap();
            let bytes = read_file(fs, &name);
            (name, bytes)
        })
        .collect()
}

pub fn read_file(fs: &SimFs, name: &str) -> Vec<u8> {
    let file = fs.open(&dir().join(name), Open::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Makes `name` hold exactly `bytes`, whatever it was.
pub fn write_file(fs: &SimFs, name: &str, bytes: &[u8]) {
    let path = dir().join(name);
    if fs.metadata(&path).unwrap().is_some() {
        fs.remove(&path).unwrap();
    }
    fs.open(&path, Open::CreateNew).unwrap().write_at(bytes, 0).unwrap();
}

/// The name of an error's kind, for tables of what may happen.
pub fn kind(error: &Error) -> &'static str {
    match error {
        Error::Io(_) => "Io",
        Error::NoSpace(_) => "NoSpace",
        Error::Corruption(_) => "Corruption",
        Error::MissingFile { .. } => "MissingFile",
        Error::UnsupportedVersion { .. } => "UnsupportedVersion",
        Error::UnsupportedCodec { .. } => "UnsupportedCodec",
        Error::NotADatabase { .. } => "NotADatabase",
        Error::Locked { .. } => "Locked",
        Error::ReadOnly { .. } => "ReadOnly",
        Error::CommitUnknown { .. } => "CommitUnknown",
        Error::InvalidArgument(_) => "InvalidArgument",
        Error::Background { .. } => "Background",
        Error::Closed => "Closed",
        _ => "another kind",
    }
}

/// A number from the environment, for the large versions of a test.
pub fn env_number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// This binary again, running the one test `test` with `env` set. A test that is such a child does nothing
/// when its variable is not set.
pub fn child(test: &str, env: &[(&str, &str)], stderr: Option<&PathBuf>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).envs(env.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    if let Some(path) = stderr {
        command.stderr(std::fs::File::create(path).unwrap());
    }
    command.spawn().unwrap()
}

/// What a panic says.
pub fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// Runs one of many cases; what it panics with goes to `failures` under its name, and the next case is run.
pub fn attempt(failures: &mut Vec<String>, name: impl FnOnce() -> String, case: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(case)) {
        failures.push(format!("{}: {}", name(), message(&*panic)));
    }
}

/// Fails with the first of the failures, if there are any.
pub fn assert_none(failures: &[String]) {
    let first: Vec<_> = failures.iter().take(20).map(String::as_str).collect();
    assert!(first.is_empty(), "{} cases failed, such as\n{}", failures.len(), first.join("\n"));
}

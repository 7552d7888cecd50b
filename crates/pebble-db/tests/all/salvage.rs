//! One damaged byte, anywhere: what a strict open does, what salvage serves, and what a repair gives back.
//!
//! Each case flips one byte of one file of a closed database, or of one that was not closed. The fixture's values are
//! found in its files by search, so which keys a byte touches is known without asking the code under test.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use pebble_db::{
    Components, Compression, Damage, Db, Error, Executor, HealthState, LogIo, PointIndex, ReadMode, Recovery,
    RepairOptions, RepairReport, WriteBatch, WriteOptions, inspect_with, repair_with,
};
use pebble_vfs::fault::{Fault, FaultKind, Op};
use pebble_vfs::{FaultFs, Fs, ManualClock, SimFs};

use crate::campaign;
use crate::support::{
    Config, LOG_MODES, Map, Rng, State, assert_none, attempt, bytes, dir, dump, env_number, keyspace, kind,
    policies, read_file, scan, short, write_file,
};

pub type Files = BTreeMap<String, Vec<u8>>;

/// The name and the content of a database: its files as they were left.
pub struct Fixture {
    pub config: Config,
    pub files: Files,
    pub expected: State,
    /// Keys that were deleted, or never there.
    pub absent: Vec<(&'static str, Vec<u8>)>,
    /// Where the newest value of a key lies, if it was found: a file and a place in it. Of one that lies apart, also
    /// where its key does, of which one refers to it.
    places: BTreeMap<(String, Vec<u8>), Vec<PlaceIn>>,
}

/// The name of a file, and an offset in it.
type PlaceIn = (String, usize);

pub const WHOLE: &str = "/whole";

/// A key that may be there.
const TAIL: &str = "tail";

pub fn components(fs: &SimFs) -> Components {
    Components { fs: Arc::new(fs.clone()), clock: Arc::new(ManualClock::new()), executor: Executor::Inline }
}

impl Fixture {
    /// Several levels and runs, of which newer ones overwrite and delete what older ones hold; range deletes in tables
    /// and in the log; records that are in no table.
    pub fn new(config: Config, is_closed: bool) -> Self {
        let fs = SimFs::new(3);
        let db = config.sim(fs.clone()).open().unwrap();
        let users = db.keyspace("users").unwrap();
        for n in 0..24_u64 {
            db.put(format!("key-{n:02}"), bytes(n, 24)).unwrap();
            users.put(format!("user-{n:02}"), bytes(100 + n, 20)).unwrap();
        }
        db.put("long", bytes(7, 700)).unwrap();
        db.put("text", "to be or not to be, ".repeat(12)).unwrap();
        db.flush().unwrap();
        db.compact_range(..).unwrap();
        for n in (0..24_u64).step_by(3) {
            db.put(format!("key-{n:02}"), bytes(200 + n, 24)).unwrap();
        }
        db.delete("key-04").unwrap();
        users.delete_range("user-05".."user-08").unwrap();
        db.flush().unwrap();
        for n in (0..24_u64).step_by(5) {
            users.put(format!("user-{n:02}"), bytes(300 + n, 20)).unwrap();
        }
        db.delete("key-07").unwrap();
        db.delete_range("key-10".."key-12").unwrap();
        db.flush().unwrap();
        let sync = WriteOptions::sync();
        let mut batch = WriteBatch::new();
        batch.put(&users, "user-01", bytes(400, 20)).delete(&users, "user-02");
        batch.put(&db.default_keyspace(), "key-01", bytes(401, 24));
        db.write_with(batch, &sync).unwrap();
        for n in [2_u64, 3, 5, 30, 31] {
            db.put_with(format!("key-{n:02}"), bytes(410 + n, 24), &sync).unwrap();
        }
        db.delete("key-14").unwrap();
        users.delete_range("user-20".."user-22").unwrap();
        db.put_with("last", bytes(450, 30), &sync).unwrap();
        let expected = scan(&db).unwrap();
        if is_closed {
            db.close().unwrap();
        } else {
            // The last group that was synced before an unclean end is not told from a torn tail: let that be this one.
            db.put_with(TAIL, "1", &sync).unwrap();
        }
        let files = dump(&fs.kill());
        let gone = ["key-04", "key-07", "key-10", "key-11", "key-14", "never"].map(|key| ("default", key));
        let gone = gone.into_iter().chain(["user-02", "user-06", "user-20"].map(|key| ("users", key)));
        let absent = gone.map(|(name, key)| (name, key.as_bytes().to_vec())).collect();
        let mut fixture = Self { config, files, expected, absent, places: BTreeMap::new() };
        fixture.find_places();
        fixture
    }

    fn find_places(&mut self) {
        for (name, map) in &self.expected {
            for (key, value) in map.iter().filter(|(_, value)| value.len() >= 20) {
                let holding = |wanted: &[u8]| -> Vec<_> {
                    let place = |(file, bytes): (&String, &Vec<u8>)| {
                        let at = bytes.windows(wanted.len()).position(|window| window == wanted)?;
                        Some((file.clone(), at))
                    };
                    self.files.iter().filter_map(place).collect()
                };
                let mut found = holding(value);
                if found.len() == 1 {
                    let apart = self.config.values_apart.is_some_and(|from_len| value.len() >= from_len);
                    found.extend(if apart { holding(key) } else { Vec::new() });
                    self.places.insert((name.clone(), key.clone()), found);
                }
            }
        }
    }

    pub fn disk(&self) -> SimFs {
        disk_of(&self.files)
    }

    /// The database in `path`, opened with nothing special.
    pub fn strict(&self, fs: &SimFs, path: &str) -> pebble_db::Result<Db> {
        self.config.apply(Db::builder(path)).sync_interval(None).components(components(fs)).open()
    }

    pub fn salvage(&self, fs: &SimFs) -> pebble_db::Result<Db> {
        self.config.sim(fs.clone()).recovery(Recovery::SalvageReadOnly).open()
    }

    pub fn repair(&self, fs: &SimFs) -> pebble_db::Result<RepairReport> {
        let go_on = |_| ControlFlow::Continue(());
        repair_with(dir(), WHOLE, RepairOptions::default(), &components(fs), go_on)
    }

    /// One case: a byte of a file is another. Gives how many keys were lost by it.
    fn suffers(&self, name: &str, at: usize, delta: u8) -> usize {
        let mut damaged = self.files[name].clone();
        damaged[at] ^= delta;
        let fs = self.disk();
        write_file(&fs, name, &damaged);

        // Strict: refused and unchanged, or right, or an error of the read that meets it.
        let other = fs.kill();
        match self.strict(&other, "/db") {
            Err(error) => {
                let told = matches!(kind(&error), "Corruption" | "MissingFile" | "UnsupportedVersion");
                assert!(told, "strict: {error}");
                assert_eq!(dump(&other), dump(&fs), "a refused open changed the directory");
            }
            Ok(db) => {
                for (name, key, value) in self.entries() {
                    if let Ok(found) = keyspace(&db, name).unwrap().get(key) {
                        assert_eq!(found.as_deref(), Some(value), "strict: {}", short(key));
                    }
                }
            }
        }

        let (before, events) = (dump(&fs), fs.events());
        let db = self.salvage(&fs).unwrap();
        let skipped = db.recovery().skipped;
        let lost = self.check(&db);
        let left = scan(&db).unwrap();
        assert!(matches!(db.health().state, HealthState::ReadOnly(_)));
        assert!(matches!(db.put("a", "b"), Err(Error::ReadOnly { .. })));
        db.close().unwrap();
        assert_eq!((dump(&fs), fs.events()), (before.clone(), events), "salvage changed the directory");
        // What is lost lies in a part that was skipped, and that part holds the byte.
        for key in &lost {
            let Some(places) = self.places.get(key) else { continue };
            let within = |(file, place): &PlaceIn| {
                let holds = |skipped: &Damage| {
                    let range = skipped.from..skipped.to;
                    *skipped.file == **file
                        && range.contains(&(*place as u64))
                        && range.contains(&(at as u64))
                };
                file == name && skipped.iter().any(holds)
            };
            assert!(
                places.iter().any(within),
                "{} is lost at {places:?}, skipped {skipped:?}",
                short(&key.1)
            );
        }
        assert!(
            skipped.iter().all(|skipped| *skipped.file == *name || skipped.from == skipped.to),
            "{skipped:?}"
        );

        let report = self.repair(&fs).unwrap();
        check_account(&report, &before);
        assert_eq!(dump(&fs), before, "repair changed the damaged directory");
        let whole = self.strict(&fs, WHOLE).unwrap();
        assert_eq!(scan(&whole).unwrap(), left, "repair gives what salvage serves");
        let backward: Vec<_> = whole.iter().unwrap().rev().map(|entry| entry.unwrap().0.to_vec()).collect();
        let keys: Vec<_> =
            left.get("default").map(|map| map.keys().rev().cloned().collect()).unwrap_or_default();
        assert_eq!(backward, keys);
        for (name, map) in &left {
            for (key, value) in map {
                assert_eq!(keyspace(&whole, name).unwrap().get(key).unwrap().as_deref(), Some(&value[..]));
            }
        }
        for (name, key) in lost.iter().map(|(name, key)| (&**name, key)).chain(self.absent()) {
            assert!(!keyspace(&whole, name).unwrap().contains(key).unwrap(), "{} came back", short(key));
        }
        assert!(whole.verify_with(|_| ControlFlow::Continue(())).unwrap().damage.is_empty());
        whole.put("new", "1").unwrap();
        whole.close().unwrap();
        lost.len()
    }

    fn entries(&self) -> impl Iterator<Item = (&str, &Vec<u8>, &[u8])> {
        self.expected
            .iter()
            .flat_map(|(name, map)| map.iter().map(move |(key, value)| (&**name, key, &**value)))
    }

    fn absent(&self) -> impl Iterator<Item = (&str, &Vec<u8>)> {
        self.absent.iter().map(|(name, key)| (*name, key))
    }

    /// Every key has its value, or cannot be read and is left out of scans. Gives those.
    pub fn check(&self, db: &Db) -> BTreeSet<(String, Vec<u8>)> {
        let mut lost = BTreeSet::new();
        let found = scan(db).unwrap();
        let none = Map::new();
        for (name, key, value) in self.entries() {
            let scanned = found.get(name).unwrap_or(&none).get(key);
            match keyspace(db, name).unwrap().get(key) {
                Ok(got) => {
                    let (got, wanted) = (got.as_deref().map(short), Some(short(value)));
                    assert_eq!(got, wanted, "get {name} {}", short(key));
                    assert_eq!(scanned.map(|value| &**value), Some(value), "scan of {name}, {}", short(key));
                }
                Err(error) => {
                    assert!(error.is_corruption(), "{error}");
                    assert_eq!(scanned.map(|value| short(value)), None, "scan of {name}, {}", short(key));
                    lost.insert((name.to_owned(), key.clone()));
                }
            }
        }
        for (name, map) in &found {
            for key in map.keys().filter(|key| **key != TAIL.as_bytes()) {
                assert!(self.expected[name].contains_key(key), "{name} {} is made up", short(key));
            }
        }
        for (name, key) in self.absent() {
            match keyspace(db, name).unwrap().get(key) {
                Ok(found) => assert!(found.is_none(), "{} came back", short(key)),
                Err(error) => assert!(error.is_corruption()),
            }
        }
        lost
    }
}

pub fn disk_of(files: &Files) -> SimFs {
    let fs = SimFs::new(1);
    fs.create_dir(dir()).unwrap();
    for (name, bytes) in files {
        write_file(&fs, name, bytes);
    }
    fs
}

/// Damages the first file that holds these bytes: the first of them is another.
pub fn flip(files: &mut Files, wanted: &[u8]) {
    let find = |bytes: &[u8]| bytes.windows(wanted.len()).position(|bytes| bytes == wanted);
    let (bytes, at) = files.values_mut().find_map(|bytes| find(bytes).map(|at| (bytes, at))).unwrap();
    bytes[at] ^= 1;
}

/// The extents of every file follow each other from its first byte to its last.
pub fn check_account(report: &RepairReport, files: &Files) {
    let mut ends: BTreeMap<&str, u64> = BTreeMap::new();
    for extent in &report.extents {
        let end = ends.entry(&extent.file).or_default();
        assert_eq!(*end, extent.from, "{extent:?}");
        assert!(extent.to > extent.from, "{extent:?}");
        *end = extent.to;
    }
    for (name, bytes) in files {
        assert_eq!(ends.get(&**name).copied().unwrap_or(0), bytes.len() as u64, "{name}");
    }
}

pub fn fixtures() -> Vec<(&'static str, Fixture)> {
    let map = Config::tiny(LogIo::Map);
    let pread = Config {
        read_mode: ReadMode::Pread,
        compression: Compression::Lz4,
        index: PointIndex::Bloom { bits_per_key: 10 },
        ..Config::tiny(LogIo::Write)
    };
    let plain = Config { index: PointIndex::None, block_len: 512, ..map.clone() };
    let larger = Config { block_len: 512, ..map.clone() };
    vec![
        ("map, closed", Fixture::new(map.clone(), true)),
        ("larger blocks, closed", Fixture::new(larger, true)),
        ("map, killed", Fixture::new(map, false)),
        ("pread and lz4, closed", Fixture::new(pread, true)),
        ("without point index, closed", Fixture::new(plain, true)),
    ]
}

/// The kind of a file, for the figures.
pub fn class(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((_, "log")) => "log",
        Some((_, "sst")) => "table",
        _ if name.starts_with("MANIFEST") => "manifest",
        _ => name,
    }
}

#[test]
fn a_damaged_byte_costs_what_it_touches_and_repair_gives_the_rest_back() {
    // One byte in so many; 1 is all of them.
    let step = env_number("PEBBLE_SALVAGE_STEP", 5);
    let (mut failures, mut cases) = (Vec::new(), 0);
    let mut figures: BTreeMap<(&str, &str), (usize, usize, usize)> = BTreeMap::new();
    let fixtures = fixtures();
    for (round, (title, fixture)) in fixtures.iter().enumerate() {
        let mut rng = Rng(round as u64);
        for (name, bytes) in fixture.files.iter().filter(|(name, _)| *name != "LOCK") {
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            for at in (0..used).filter(|at| (at + round) % step == 0 || name == "CURRENT") {
                let delta = rng.pick(&[1, 2, 4, 8, 16, 32, 64, 128, 0xff, 0x5a]);
                let mut lost = 0;
                attempt(
                    &mut failures,
                    || format!("{title}: {name}, byte {at} of {used} xor {delta:#x}"),
                    || lost = fixture.suffers(name, at, delta),
                );
                cases += 1;
                let figure = figures.entry((title, class(name))).or_default();
                *figure = (figure.0 + 1, figure.1 + lost, figure.2.max(lost));
            }
        }
    }
    for ((title, class), (cases, lost, most)) in &figures {
        println!(
            "salvage, {title}: {class}: {cases} bytes damaged, {lost} keys lost in all, at most {most} by one"
        );
    }
    assert_none(&failures);
    let lost_any = |class: &str| figures.iter().any(|((_, of), (_, lost, _))| *of == class && *lost > 0);
    assert!(lost_any("table") && lost_any("log"), "no damage cost anything");
    assert!(!lost_any("manifest") && !lost_any("CURRENT"), "damage beside the records cost some");
    campaign::count(&["bit-flip", "I4", "I5", "I8", "log-damage"], "flips", cases);
}

/// A whole database is opened for salvage as it is, and nothing is skipped.
#[test]
fn salvage_of_a_whole_database_is_a_plain_open_for_reading() {
    for (title, fixture) in fixtures() {
        let fs = fixture.disk();
        let events = fs.events();
        let db = fixture.salvage(&fs).unwrap();
        assert_eq!(db.recovery().skipped, [], "{title}");
        assert_eq!(fixture.check(&db), BTreeSet::new(), "{title}");
        assert_eq!(fs.events(), events, "{title}");
        drop(db);
        let found = inspect_with(dir(), &components(&fs), |_| ControlFlow::Continue(())).unwrap();
        assert!(found.is_complete && found.damage.is_empty() && found.bytes > 0, "{title}: {found:?}");
    }
}

/// Zeroed and overwritten sectors, cut files and missing ones: more than a checksum can put right.
#[test]
fn larger_damage_never_gives_a_wrong_value() {
    let (mut failures, mut cases) = (Vec::new(), 0);
    for (title, fixture) in fixtures() {
        let mut rng = Rng(11);
        for (name, bytes) in fixture.files.iter().filter(|(name, _)| *name != "LOCK") {
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            let mut damages: Vec<(String, Option<Vec<u8>>)> = vec![("removed".into(), None)];
            for at in (0..used).step_by(64) {
                let mut zeroed = bytes.clone();
                zeroed[at..(at + 64).min(used)].fill(0);
                damages.push((format!("zeros at {at}"), Some(zeroed)));
                let mut noise = bytes.clone();
                noise[at..(at + 64).min(used)].fill_with(|| u8::try_from(rng.below(256)).unwrap());
                damages.push((format!("noise at {at}"), Some(noise)));
                damages.push((format!("cut to {at}"), Some(bytes[..at].to_vec())));
            }
            for (what, damaged) in damages {
                cases += 1;
                attempt(
                    &mut failures,
                    || format!("{title}: {name} {what}"),
                    || {
                        let fs = fixture.disk();
                        fs.remove(&dir().join(name)).unwrap();
                        if let Some(damaged) = &damaged {
                            write_file(&fs, name, damaged);
                        }
                        larger(&fixture, &fs, name);
                    },
                );
            }
        }
    }
    println!("salvage: {cases} larger damages");
    assert_none(&failures);
    campaign::count(&["bit-flip", "missing", "I4"], "cases", cases);
}

/// Salvage and repair agree, and every value is one that the key had.
fn larger(fixture: &Fixture, fs: &SimFs, name: &str) {
    let before = dump(fs);
    let db = match fixture.salvage(fs) {
        Err(Error::UnsupportedVersion { .. }) => return,
        db => db.unwrap(),
    };
    if class(name) == "table" {
        // The order of everything else is known, so what is lost cannot uncover what is old.
        fixture.check(&db);
    }
    let left = scan(&db).unwrap();
    drop(db);
    let report = fixture.repair(fs).unwrap();
    check_account(&report, &before);
    let whole = fixture.strict(fs, WHOLE).unwrap();
    assert_eq!(scan(&whole).unwrap(), left);
    assert_eq!(dump(fs), before);
}

/// The manifest has lost the edit of a flush, whose log is gone since: what was flushed lies in a table that no edit
/// names.
#[test]
fn a_flush_that_the_manifest_has_lost_is_found() {
    for log_io in LOG_MODES {
        let config = Config { compaction: policies()[4], ..Config::tiny(log_io) };
        let fs = SimFs::new(1);
        let db = config.sim(fs.clone()).open().unwrap();
        for value in ["old", "new"] {
            db.put("key", value).unwrap();
            db.flush().unwrap();
        }
        let mut files = dump(&fs.kill());
        let count = |wanted| files.keys().filter(|name| class(name) == wanted).count();
        assert_eq!((count("table"), count("log")), (2, 1), "the log of both flushes is gone");
        let (_, manifest) = files.iter_mut().find(|(name, _)| class(name) == "manifest").unwrap();
        let last = manifest.iter().rposition(|byte| *byte != 0).unwrap();
        manifest[last - 16..last].fill(0);

        let fs = disk_of(&files);
        assert_eq!(kind(&config.sim(fs.clone()).open().unwrap_err()), "MissingFile");
        let salvaged = config.sim(fs.clone()).recovery(Recovery::SalvageReadOnly).open().unwrap();
        assert_eq!(salvaged.get("key").unwrap().as_deref(), Some(&b"new"[..]));
        let left = scan(&salvaged).unwrap();
        repair_with(dir(), WHOLE, RepairOptions::default(), &components(&fs), |_| ControlFlow::Continue(()))
            .unwrap();
        let whole =
            config.apply(Db::builder(WHOLE)).sync_interval(None).components(components(&fs)).open().unwrap();
        assert_eq!(scan(&whole).unwrap(), left);
    }
    campaign::count(&["I4", "missing"], "cases", 2);
}

/// Bytes that the device cannot give, beside the tables: at the first attempt, or never.
#[test]
fn what_the_device_cannot_give_is_damage() {
    let mut cases = 0;
    for (title, fixture) in fixtures() {
        let files = ["CURRENT", "MANIFEST", ".log"];
        for (file, sticky) in files.into_iter().flat_map(|file| [(file, false), (file, true)]) {
            let fs = FaultFs::over_sim(fixture.disk());
            let fault = Fault::once(Op::Read, 0, FaultKind::Io).on(file);
            let inject = || fs.inject(if sticky { fault.clone().sticky() } else { fault.clone() });
            inject();
            let db = fixture
                .config
                .sim_with(Arc::new(fs.clone()), Executor::Inline)
                .recovery(Recovery::SalvageReadOnly)
                .open()
                .unwrap();
            assert!(fs.fired() > 0, "{title}: {file}");
            if !sticky || file == "CURRENT" {
                assert_eq!(fixture.check(&db), BTreeSet::new(), "{title}: {file}");
            }
            let left = scan(&db).unwrap();
            assert!(left["default"].contains_key(&b"text"[..]));
            drop(db);
            fs.clear();
            inject();
            let components = Components { fs: Arc::new(fs.clone()), ..components(&fixture.disk()) };
            let options = RepairOptions::default();
            repair_with(dir(), WHOLE, options, &components, |_| ControlFlow::Continue(())).unwrap();
            fs.clear();
            let builder = fixture.config.apply(Db::builder(WHOLE)).sync_interval(None);
            assert_eq!(scan(&builder.components(components).open().unwrap()).unwrap(), left);
            cases += 1;
        }
    }
    campaign::count(&["I4", "read-error"], "cases", cases);
}

#[test]
fn a_salvage_of_no_database_says_so() {
    let fs = SimFs::new(1);
    let config = Config::tiny(LogIo::Map);
    let open = || config.sim(fs.clone()).recovery(Recovery::SalvageReadOnly).open();
    assert_eq!(kind(&open().unwrap_err()), "NotADatabase");
    fs.create_dir(dir()).unwrap();
    write_file(&fs, "notes.txt", b"mine");
    assert_eq!(kind(&open().unwrap_err()), "NotADatabase");
    assert_eq!(read_file(&fs, "notes.txt"), b"mine");
    assert!(fs.metadata(Path::new(WHOLE)).unwrap().is_none());
}

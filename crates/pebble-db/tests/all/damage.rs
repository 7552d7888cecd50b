//! Damage to each file of a closed database: flipped, cut, removed, swapped, put back from before. The rows of the
//! contract call the functions; what is more than a row is a test here.
//!
//! Whatever was done, the database gives an error that says so, or the right data; and an open that is refused
//! leaves the directory as it was, byte for byte.

use std::collections::BTreeMap;

use pebble_db::{Db, Error, LogIo, ReadMode, Recovery, WriteBatch, WriteOptions};
use pebble_vfs::{Fs, SimFs};

use crate::campaign;
use crate::salvage::{disk_of, flip};
use crate::support::{
    Config, LOG_MODES, State, bytes, check_reads, dir, dump, kind, read_file, scan, write_file,
};

type Files = BTreeMap<String, Vec<u8>>;

/// A database that was closed: its files, and what it holds.
struct Fixture {
    config: Config,
    files: Files,
    expected: State,
}

impl Fixture {
    /// Tables, a log with records that are in no table, two keyspaces, deletes. `salt` makes the content its own.
    fn new(config: Config, salt: u64) -> Self {
        let fs = SimFs::new(salt);
        let fixture = Self { config, files: Files::new(), expected: State::new() };
        fixture.fill(&fs, salt);
        fixture.of(&fs)
    }

    fn fill(&self, fs: &SimFs, salt: u64) {
        let db = self.config.sim(fs.clone()).open().unwrap();
        let users = db.keyspace("users").unwrap();
        for n in 0..14 {
            db.put(format!("key-{n:02}"), bytes(salt + n, 24)).unwrap();
        }
        db.put("text", "to be or not to be, ".repeat(12)).unwrap();
        users.put("ann", bytes(salt, 90)).unwrap();
        db.flush().unwrap();
        db.delete("key-03").unwrap();
        db.put("key-04", bytes(salt + 100, 8)).unwrap();
        db.flush().unwrap();
        let mut batch = WriteBatch::new();
        batch.put(&users, "bob", "2").delete(&users, "ann").put(&db.default_keyspace(), "both", "1");
        db.write_with(batch, &WriteOptions::sync()).unwrap();
        db.put("last", bytes(salt + 200, 40)).unwrap();
        db.close().unwrap();
    }

    fn of(self, fs: &SimFs) -> Self {
        let mut files = dump(fs);
        for (name, bytes) in files.iter_mut().filter(|(name, _)| class(name) == "log") {
            // A log may be cut behind its last frame. Of the space that it has in store, a little stands for the rest.
            bytes.truncate(needed_len(name, bytes) + 64);
        }
        let db = self.config.sim(fs.kill()).open().unwrap();
        let expected = scan(&db).unwrap();
        Self { files, expected, ..self }
    }

    /// The same files on a new disk.
    fn disk(&self) -> SimFs {
        let fs = SimFs::new(1);
        fs.create_dir(dir()).unwrap();
        for (name, bytes) in &self.files {
            write_file(&fs, name, bytes);
        }
        fs
    }

    /// What `damage` does to the files is told, or does no harm.
    fn suffers(&self, what: &str, damage: impl FnOnce(&SimFs)) -> Outcome {
        let fs = self.disk();
        damage(&fs);
        self.holds(&fs, what)
    }

    fn holds(&self, fs: &SimFs, what: &str) -> Outcome {
        let _context = Context(format!("{:?}, {:?}: {what}", self.config.log_io, self.config.read_mode));
        let before = dump(fs);
        match self.config.sim(fs.clone()).open() {
            Err(error) => {
                assert_damage(&error);
                assert_eq!(names(&dump(fs)), names(&before), "a refused open made or removed files");
                assert!(dump(fs) == before, "a refused open changed a file");
                Outcome::Refused
            }
            Ok(db) => {
                let read = check_reads(&db, &self.expected, &[b"key-03", b"absent"]);
                let verified = db.verify();
                for error in [read.as_ref().err(), verified.as_ref().err()].into_iter().flatten() {
                    assert_damage(error);
                }
                assert!(read.is_ok() || verified.is_err(), "a scan saw what a verification did not");
                if read.is_ok() && verified.is_ok() { Outcome::Harmless } else { Outcome::Told }
            }
        }
    }

    fn flip(&self, name: &str, at: usize, bit: u32) -> Outcome {
        self.suffers(&format!("{name}, bit {bit} of byte {at}"), |fs| {
            let mut bytes = self.files[name].clone();
            bytes[at] ^= 1 << bit;
            write_file(fs, name, &bytes);
        })
    }

    /// A file that was `bytes` is `damaged`: told, unless nothing changed that is needed.
    fn replaced(&self, what: &str, name: &str, bytes: &[u8], damaged: Vec<u8>) -> Outcome {
        let outcome = self.suffers(what, |fs| write_file(fs, name, &damaged));
        let needed = needed_len(name, bytes);
        let told = outcome != Outcome::Harmless;
        assert!(told || damaged[..needed] == bytes[..needed], "{what}: not told");
        outcome
    }
}

/// What became of a damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// The open was refused.
    Refused,
    /// A read or the verification gave the error.
    Told,
    /// All is right: nobody needs those bytes.
    Harmless,
}

fn assert_damage(error: &Error) {
    let told = matches!(kind(error), "Corruption" | "MissingFile" | "UnsupportedVersion");
    assert!(told, "{} for damage: {error}", kind(error));
}

fn names(files: &Files) -> Vec<&String> {
    files.keys().collect()
}

struct Context(String);

impl Drop for Context {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.0);
        }
    }
}

fn fixtures() -> Vec<Fixture> {
    let map = Config::tiny(LogIo::Map);
    let pread = Config {
        read_mode: ReadMode::Pread,
        compression: pebble_db::Compression::Lz4,
        index: pebble_db::PointIndex::Bloom { bits_per_key: 10 },
        ..Config::tiny(LogIo::Write)
    };
    vec![Fixture::new(map, 1), Fixture::new(pread, 1)]
}

/// Files whose bytes mean something; a lock has none.
fn meaningful(fixture: &Fixture) -> impl Iterator<Item = (&String, &Vec<u8>)> {
    fixture.files.iter().filter(|(name, _)| *name != "LOCK")
}

/// The kind of a file, for the figures.
fn class(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((_, "log")) => "log",
        Some((_, "sst")) => "table",
        _ if name.starts_with("MANIFEST") => "manifest",
        _ => name,
    }
}

/// How often each outcome was met, by class of file.
#[derive(Debug, Default)]
struct Figures(BTreeMap<(String, Outcome), u64>);

impl Figures {
    fn add(&mut self, name: &str, outcome: Outcome) {
        *self.0.entry((class(name).to_owned(), outcome)).or_default() += 1;
    }

    fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// How many cases there were of a class of file, and how many were told.
    fn of(&self, file: &str) -> (u64, u64) {
        let of = self.0.iter().filter(|((class, _), _)| class == file);
        of.fold((0, 0), |(all, told), ((_, outcome), n)| {
            (all + n, told + if *outcome == Outcome::Harmless { 0 } else { *n })
        })
    }
}

/// Where the bytes begin that nobody needs: in a log behind the last frame; in a manifest the last edit, which a crash
/// may tear, and whose loss changes nothing when all that it says is where the log was sealed. Tables have none.
fn needed_len(name: &str, bytes: &[u8]) -> usize {
    let used = used_len(bytes);
    if class(name) != "manifest" {
        return if class(name) == "log" { used } else { bytes.len() };
    }
    let (mut at, mut last) = (48, 48);
    while let Some(len) = bytes.get(at + 8..at + 12) {
        last = at;
        at += 12 + usize::try_from(u32::from_le_bytes(len.try_into().unwrap())).unwrap();
    }
    assert_eq!(at, bytes.len(), "{name} is not a row of frames");
    last
}

fn used_len(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| (last + 4) & !3)
}

/// Every bit of every file. Each that is needed is told, without an exception; the number of cases is returned.
pub fn flip_every_bit() -> u64 {
    let mut figures = Figures::default();
    let mut bits = 0;
    for fixture in fixtures() {
        for (name, bytes) in meaningful(&fixture) {
            let needed = needed_len(name, bytes);
            for at in 0..bytes.len() {
                for bit in 0..8 {
                    let outcome = fixture.flip(name, at, bit);
                    let told = outcome != Outcome::Harmless;
                    assert!(
                        told || at >= needed,
                        "bit {bit} of byte {at} of {name} ({needed} needed) is not told"
                    );
                    figures.add(name, outcome);
                }
            }
            bits += 8 * bytes.len() as u64;
        }
    }
    println!("damage, flipped bits: {figures:?}");
    assert_eq!(figures.total(), bits);
    for file in ["CURRENT", "table"] {
        let (all, told) = figures.of(file);
        assert!(all > 0 && told == all, "{told} of {all} bits of a {file} were told");
    }
    for file in ["manifest", "log"] {
        assert!(figures.of(file).1 > 0, "no flipped bit of a {file} was told");
    }
    bits
}

/// Every length that a file may be cut to.
pub fn cut_files() -> u64 {
    let mut figures = Figures::default();
    for fixture in fixtures() {
        for (name, bytes) in meaningful(&fixture) {
            let needed = needed_len(name, bytes);
            for len in 0..bytes.len() {
                let outcome = fixture.suffers(&format!("{name} cut to {len}"), |fs| {
                    write_file(fs, name, &bytes[..len]);
                });
                assert!(
                    outcome != Outcome::Harmless || len >= needed,
                    "{name} cut to {len} of {needed} needed"
                );
                figures.add(name, outcome);
            }
        }
    }
    println!("damage, truncations: {figures:?}");
    figures.total()
}

pub fn remove_files() -> u64 {
    let mut cases = 0;
    for fixture in fixtures() {
        for (name, _) in meaningful(&fixture) {
            for create in [true, false] {
                let fs = fixture.disk();
                fs.remove(&dir().join(name)).unwrap();
                let before = dump(&fs);
                let refused = fixture.config.sim(fs.clone()).create_if_missing(create).open();
                assert_damage(&refused.map(drop).expect_err(name));
                assert!(dump(&fs) == before, "{name} removed: something was written");
                cases += 1;
            }
        }
        let outcome = fixture.suffers("LOCK removed", |fs| _ = fs.remove(&dir().join("LOCK")));
        assert_eq!(outcome, Outcome::Harmless);
        cases += 1;
    }
    cases
}

pub fn exchange_files() -> u64 {
    let mut cases = 0;
    for fixture in fixtures() {
        let all: Vec<_> = meaningful(&fixture).collect();
        for (name, bytes) in &all {
            for (other, others) in &all {
                if bytes != others {
                    let what = format!("{other} in the place of {name}");
                    let outcome = fixture.suffers(&what, |fs| write_file(fs, name, others));
                    assert_ne!(outcome, Outcome::Harmless, "{what}");
                    cases += 1;
                }
            }
        }
    }
    cases
}

pub fn take_files_of_another() -> u64 {
    let mut exchanged = 0;
    for mine in fixtures() {
        let other = Fixture::new(mine.config.clone(), 50);
        let before = exchanged;
        for (name, bytes) in meaningful(&mine) {
            let Some(theirs) = other.files.get(name).filter(|theirs| *theirs != bytes) else { continue };
            let what = format!("{name} of another database");
            let outcome = mine.suffers(&what, |fs| write_file(fs, name, theirs));
            assert_ne!(outcome, Outcome::Harmless, "{what}");
            exchanged += 1;
        }
        assert!(
            exchanged >= before + 3,
            "the two databases have few names in common: {:?}",
            names(&other.files)
        );
    }
    exchanged
}

/// The files of an earlier close, put back one by one and in pairs, over the present ones.
pub fn put_old_copies_back() -> u64 {
    let mut cases = 0;
    for log_io in LOG_MODES {
        let config = Config::tiny(log_io);
        let fs = SimFs::new(1);
        let fixture = Fixture { config: config.clone(), files: Files::new(), expected: State::new() };
        fixture.fill(&fs, 1);
        let old = dump(&fs);
        let db = config.sim(fs.clone()).open().unwrap();
        for n in 0..6 {
            db.put(format!("key-{n:02}"), bytes(n + 900, 30)).unwrap();
            if n % 2 == 1 {
                db.flush().unwrap();
            }
        }
        db.put("new", "1").unwrap();
        db.close().unwrap();
        let fixture = fixture.of(&fs);
        let names: Vec<_> = old.keys().filter(|name| *name != "LOCK").collect();
        for (at, first) in names.iter().enumerate() {
            for second in &names[at..] {
                fixture.suffers(&format!("old {first} and {second}"), |fs| {
                    for name in [first, second] {
                        write_file(fs, name, &old[*name]);
                    }
                });
                cases += 1;
            }
        }
    }
    cases
}

pub fn leave_strangers_alone() -> u64 {
    let strangers = [
        "notes.txt",
        "1.log",
        "0000001.sst",
        "000001.SST",
        "000001.sst.bak",
        "MANIFEST-",
        "current",
        "LOCK2",
        ".hidden",
    ];
    let mut cases = 0;
    for fixture in fixtures() {
        let fs = fixture.disk();
        for name in strangers {
            write_file(&fs, name, name.as_bytes());
        }
        fs.create_dir(&dir().join("000777.sst.d")).unwrap();
        write_file(&fs, "000777.sst.d/inside", b"inside");
        fs.create_dir(&dir().join("directory")).unwrap();
        let db = fixture.config.sim(fs.clone()).open().unwrap();
        check_reads(&db, &fixture.expected, &[]).unwrap();
        for n in 0..40_u64 {
            db.put("key", bytes(n, 3000)).unwrap();
        }
        db.flush().unwrap();
        db.compact_range(..).unwrap();
        db.close().unwrap();
        drop(fixture.config.sim(fs.kill()).open().unwrap());
        for name in strangers {
            assert_eq!(read_file(&fs, name), name.as_bytes());
            cases += 1;
        }
        assert_eq!(read_file(&fs, "000777.sst.d/inside"), b"inside");
        assert!(fs.metadata(&dir().join("directory")).unwrap().is_some());
    }
    cases
}

const SECTOR: usize = 512;

/// Sectors zeroed, exchanged, and written over each other, in and between all files.
#[test]
fn a_sector_that_is_not_what_was_written_is_told() {
    let mut figures = Figures::default();
    for fixture in fixtures() {
        let all: Vec<_> = meaningful(&fixture).collect();
        let sectors =
            |bytes: &[u8]| (0..bytes.len().div_ceil(SECTOR)).map(|n| n * SECTOR).collect::<Vec<_>>();
        for (name, bytes) in &all {
            for at in sectors(bytes) {
                let end = (at + SECTOR).min(bytes.len());
                let mut damaged = (*bytes).clone();
                damaged[at..end].fill(0);
                figures.add(name, fixture.replaced(&format!("{name}: zeros at {at}"), name, bytes, damaged));
                for (other, from) in &all {
                    for from_at in sectors(from) {
                        let len = (end - at).min(from.len() - from_at);
                        let mut damaged = (*bytes).clone();
                        damaged[at..at + len].copy_from_slice(&from[from_at..from_at + len]);
                        let what = format!("{name} at {at}: {len} bytes of {other} at {from_at}");
                        figures.add(name, fixture.replaced(&what, name, bytes, damaged.clone()));
                        if name == other && from_at > at {
                            damaged[from_at..from_at + len].copy_from_slice(&bytes[at..at + len]);
                            figures.add(
                                name,
                                fixture.replaced(&format!("{what}, exchanged"), name, bytes, damaged),
                            );
                        }
                    }
                }
            }
        }
    }
    println!("damage, sectors: {figures:?}");
    campaign::count(&["swapped", "bit-flip", "I4", "I8"], "cases", figures.total());
}

/// The ranges of a table's blocks, as its directory tells them (`docs/format/table.md`).
fn blocks(table: &[u8]) -> Vec<std::ops::Range<usize>> {
    let number = |at: usize, len: usize| {
        let mut wide = [0; 8];
        wide[..len].copy_from_slice(&table[at..at + len]);
        usize::try_from(u64::from_le_bytes(wide)).unwrap()
    };
    let region = table.len() - 256 + 48 + 16;
    let (directory, len) = (number(region, 8), number(region + 8, 4));
    let entry = |at| number(at, 8)..number(at, 8) + number(at + 8, 4).next_multiple_of(4);
    (directory..directory + len).step_by(24).map(entry).collect()
}

/// Blocks of one length exchanged within a table, and put in each other's place between tables.
#[test]
fn a_block_in_the_place_of_another_is_told() {
    let mut cases = 0;
    for fixture in fixtures() {
        let tables: Vec<_> = meaningful(&fixture).filter(|(name, _)| class(name) == "table").collect();
        for (name, table) in &tables {
            for (other, from) in &tables {
                for (block, source) in pairs(&blocks(table), &blocks(from)) {
                    let mut damaged = (*table).clone();
                    damaged[block.clone()].copy_from_slice(&from[source.clone()]);
                    if name == other {
                        damaged[source.clone()].copy_from_slice(&table[block.clone()]);
                    }
                    if damaged == **table {
                        continue;
                    }
                    let what =
                        format!("{name}, block at {}: that of {other} at {}", block.start, source.start);
                    let outcome = fixture.suffers(&what, |fs| write_file(fs, name, &damaged));
                    assert_ne!(outcome, Outcome::Harmless, "{what}");
                    cases += 1;
                }
            }
        }
    }
    println!("damage, blocks: {cases} exchanged");
    assert!(cases >= 50, "{cases} pairs of blocks of one length");
    campaign::count(&["swapped", "I4"], "cases", cases);
}

type Block = std::ops::Range<usize>;

fn pairs(these: &[Block], those: &[Block]) -> Vec<(Block, Block)> {
    let all = these.iter().flat_map(|a| those.iter().map(move |b| (a.clone(), b.clone())));
    all.filter(|(a, b)| a.len() == b.len()).collect()
}

/// A log that was not closed, with a synced commit for every entry: damage in it costs the last one at most, and
/// nothing unseen before it.
#[test]
fn damage_below_what_was_durable_is_told_without_a_close() {
    const COMMITS: u64 = 12;
    for log_io in LOG_MODES {
        let config = Config::tiny(log_io);
        let fs = SimFs::new(1);
        let db = config.sim(fs.clone()).open().unwrap();
        for n in 0..COMMITS {
            db.put_with(n.to_be_bytes(), bytes(n, 150), &WriteOptions::sync()).unwrap();
        }
        let files = dump(&fs.kill());
        drop(db);
        let prefix = |db: &Db, floor: u64| {
            let found = scan(db).unwrap().remove("default").unwrap_or_default();
            let count = found.len() as u64;
            let wanted = (0..count).map(|n| (n.to_be_bytes().to_vec(), bytes(n, 150)));
            assert!(found.into_iter().eq(wanted), "{count} entries that are no prefix");
            assert!((floor..=COMMITS).contains(&count), "{count} commits of {COMMITS}");
        };
        let (mut refused, mut flips) = (0, 0_u64);
        for (name, bytes) in files.iter().filter(|(name, _)| class(name) == "log") {
            let used = used_len(bytes);
            for (at, bit) in (0..used).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
                let _context = Context(format!("{log_io:?}: {name}, bit {bit} of byte {at} of {used}"));
                let damaged = SimFs::new(1);
                damaged.create_dir(dir()).unwrap();
                for (name, bytes) in &files {
                    write_file(&damaged, name, bytes);
                }
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                write_file(&damaged, name, &bytes);
                flips += 1;
                match config.sim(damaged.clone()).open() {
                    Ok(db) => prefix(&db, COMMITS - 1),
                    Err(error) => {
                        assert_damage(&error);
                        refused += 1;
                        let before = files.keys().collect::<Vec<_>>();
                        assert_eq!(names(&dump(&damaged)), before, "a refused open made or removed files");
                        if at % 16 == 0 && bit == 0 {
                            by_choice(&config, &damaged, &prefix);
                        }
                    }
                }
            }
        }
        println!("damage, {log_io:?}: {flips} flipped bits of a log in use, {refused} refused");
        assert!(refused > flips / 2);
        campaign::count(&["bit-flip", "log-damage", "I2", "I8"], "flips", flips);
    }
}

/// What a user may choose when the open is refused: the prefix before the damage, to go on from.
fn by_choice(config: &Config, damaged: &SimFs, prefix: &dyn Fn(&Db, u64)) {
    let db = config.sim(damaged.clone()).recovery(Recovery::PointInTime).open().unwrap();
    prefix(&db, 0);
    db.put_with("z", "1", &WriteOptions::sync()).unwrap();
    db.delete("z").unwrap();
    let count = db.iter().unwrap().count();
    db.close().unwrap();
    let db = config.sim(damaged.clone()).open().unwrap();
    prefix(&db, 0);
    assert_eq!(db.iter().unwrap().count(), count);
}

/// What was written behind the seal of a clean close is torn, but for its end: it was no clean close that dropped it.
#[test]
fn what_is_dropped_behind_a_seal_is_told() {
    for log_io in LOG_MODES {
        let config = Config::tiny(log_io);
        let fs = SimFs::new(1);
        let open = || config.sim(fs.clone()).open().unwrap();
        let db = open();
        db.put("kept", "1").unwrap();
        db.close().unwrap();
        let db = open();
        assert!(db.recovery().clean);
        ["torn", "whole"].iter().for_each(|value| db.put("more", value).unwrap());
        let mut files = dump(&fs.kill());
        flip(&mut files, b"torn");

        let db = config.sim(disk_of(&files)).open().unwrap();
        let told = db.recovery();
        assert!(!told.clean && told.dropped_bytes > 0, "{told:?}");
        assert_eq!(db.iter().unwrap().count(), 1);
    }
}

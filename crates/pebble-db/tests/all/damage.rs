//! Damage to each file of a closed database: flipped, cut, removed, swapped, put back from before.
//!
//! Whatever was done, the database gives an error that says so, or the right data; and an open that is refused
//! leaves the directory as it was, byte for byte.

use std::collections::BTreeMap;

use pebble_db::{Db, Error, LogIo, ReadMode, Recovery, WriteBatch, WriteOptions};
use pebble_vfs::{Fs, SimFs};

use crate::support::{
    Config, LOG_MODES, Rng, State, bytes, check_reads, dir, dump, kind, read_file, scan, write_file,
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
        let files = dump(fs);
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

#[test]
fn a_flipped_bit_is_told_or_does_no_harm() {
    let mut figures: BTreeMap<(String, Outcome), usize> = BTreeMap::new();
    for fixture in fixtures() {
        let mut rng = Rng(1);
        for (name, bytes) in meaningful(&fixture) {
            let mut zeros = 0;
            for (at, byte) in bytes.iter().enumerate() {
                // Of the space that a log has in store, a part stands for the rest.
                zeros = if *byte == 0 { zeros + 1 } else { 0 };
                if class(name) == "log" && zeros > 64 && at % 41 != 0 {
                    continue;
                }
                let outcome = fixture.flip(name, at, u32::try_from(rng.below(8)).unwrap());
                *figures.entry((class(name).to_owned(), outcome)).or_default() += 1;
            }
        }
    }
    println!("damage, flipped bits: {figures:?}");
    for file in ["CURRENT", "manifest", "log", "table"] {
        let told = |outcome| figures.get(&(file.to_owned(), outcome)).copied().unwrap_or(0);
        assert!(told(Outcome::Refused) + told(Outcome::Told) > 0, "no damage to a {file} was told");
    }
}

#[test]
fn a_truncated_file_is_told_or_does_no_harm() {
    let mut figures: BTreeMap<(String, Outcome), usize> = BTreeMap::new();
    for fixture in fixtures() {
        for (name, bytes) in meaningful(&fixture) {
            let step = if bytes.len() > 3000 { 7 } else { 1 };
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            for len in (0..bytes.len()).step_by(step).chain(used.saturating_sub(70)..used) {
                let outcome = fixture.suffers(&format!("{name} cut to {len}"), |fs| {
                    write_file(fs, name, &bytes[..len]);
                });
                // The manifest's last edit may say nothing that the other files do not say.
                if len < used && class(name) != "manifest" {
                    assert_ne!(outcome, Outcome::Harmless, "{name} cut to {len} of {used}");
                }
                *figures.entry((class(name).to_owned(), outcome)).or_default() += 1;
            }
        }
    }
    println!("damage, truncations: {figures:?}");
}

#[test]
fn a_missing_file_is_told() {
    for fixture in fixtures() {
        for (name, _) in meaningful(&fixture) {
            let outcome = fixture.suffers(&format!("{name} removed"), |fs| {
                fs.remove(&dir().join(name)).unwrap();
            });
            assert_eq!(outcome, Outcome::Refused, "{name} removed");
        }
        let outcome = fixture.suffers("LOCK removed", |fs| _ = fs.remove(&dir().join("LOCK")));
        assert_eq!(outcome, Outcome::Harmless);
    }
}

#[test]
fn files_of_the_same_database_are_not_exchanged_unseen() {
    for fixture in fixtures() {
        let all: Vec<_> = meaningful(&fixture).collect();
        for (name, bytes) in &all {
            for (other, others) in &all {
                if bytes != others && class(name) == class(other) {
                    let what = format!("{other} in the place of {name}");
                    let outcome = fixture.suffers(&what, |fs| write_file(fs, name, others));
                    assert_ne!(outcome, Outcome::Harmless, "{what}");
                }
            }
        }
    }
}

#[test]
fn a_file_of_another_database_is_told() {
    for (mine, other) in fixtures().into_iter().zip([LogIo::Map, LogIo::Write].map(|io| {
        Fixture::new(Config { log_io: io, ..fixtures()[usize::from(io == LogIo::Write)].config.clone() }, 50)
    })) {
        let mut exchanged = 0;
        for (name, bytes) in meaningful(&mine) {
            let Some(theirs) = other.files.get(name).filter(|theirs| *theirs != bytes) else { continue };
            let what = format!("{name} of another database");
            let outcome = mine.suffers(&what, |fs| write_file(fs, name, theirs));
            assert_ne!(outcome, Outcome::Harmless, "{what}");
            exchanged += 1;
        }
        assert!(exchanged >= 3, "the two databases have few names in common: {:?}", names(&other.files));
    }
}

/// The files of an earlier close, put back one by one, in pairs, over the present ones.
#[test]
fn an_old_copy_is_told_or_does_no_harm() {
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
            }
        }
    }
}

#[test]
fn foreign_files_are_never_touched() {
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
        }
        assert_eq!(read_file(&fs, "000777.sst.d/inside"), b"inside");
        assert!(fs.metadata(&dir().join("directory")).unwrap().is_some());
    }
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
            db.put_with(n.to_be_bytes(), bytes(n, 600), &WriteOptions::sync()).unwrap();
        }
        let files = dump(&fs.kill());
        drop(db);
        let prefix = |db: &Db, floor: u64| {
            let found = scan(db).unwrap().remove("default").unwrap_or_default();
            let count = found.len() as u64;
            let wanted = (0..count).map(|n| (n.to_be_bytes().to_vec(), bytes(n, 600)));
            assert!(found.into_iter().eq(wanted), "{count} entries that are no prefix");
            assert!((floor..=COMMITS).contains(&count), "{count} commits of {COMMITS}");
        };
        let (mut refused, mut flips) = (0, 0);
        for (name, bytes) in files.iter().filter(|(name, _)| class(name) == "log") {
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            for at in 0..used {
                let _context = Context(format!("{log_io:?}: {name}, byte {at} of {used}"));
                let damaged = SimFs::new(1);
                damaged.create_dir(dir()).unwrap();
                for (name, bytes) in &files {
                    write_file(&damaged, name, bytes);
                }
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << (at % 8);
                write_file(&damaged, name, &bytes);
                flips += 1;
                match config.sim(damaged.clone()).open() {
                    Ok(db) => prefix(&db, COMMITS - 1),
                    Err(error) => {
                        assert_damage(&error);
                        refused += 1;
                        let before = files.keys().collect::<Vec<_>>();
                        assert_eq!(names(&dump(&damaged)), before, "a refused open made or removed files");
                        if at % 16 == 0 {
                            by_choice(&config, &damaged, &prefix);
                        }
                    }
                }
            }
        }
        println!("damage, {log_io:?}: {flips} flipped bits of a log in use, {refused} refused");
        assert!(refused > flips / 2);
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

//! Bugs of other stores, planted in front of this one: the campaign must convict each of them.
//!
//! ```text
//!     database ── BuggyFs ── (FaultFs) ── SimFs       a missing sync, an error that is swallowed, a lock that
//!                    ╳                                does not lock: what such a bug does, seen from below
//! ```
//!
//! Each bug is run through the part of the campaign that is there for its kind, and the same part runs without it. A
//! bug that nobody convicts says that the campaign cannot see its kind. What is wrong inside a merge (versions of a key
//! parted, runs in the wrong order, snapshots forgotten, range deletes lost) is planted in front of the data mover,
//! in `pebble-compaction`'s `planted.rs`.

mod seam;

use std::sync::Arc;

use pebble_db::{LogIo, Recovery, WriteOptions};
use pebble_vfs::SimFs;

pub use self::seam::{Bug, BuggyFs};
use crate::support::{Config, dump, kind, write_file};
use crate::{campaign, crash, faults};

/// What ran, how many cases of it, and the first failure.
type Verdict = (u64, Option<String>);

/// A part of the campaign.
type Part = fn(Option<Bug>) -> Verdict;

/// The bug, what it was called where it happened, and who convicts it.
const HISTORY: [(Bug, &str, &str, Part); 18] = [
    (Bug::NoSyncAfterRename, "#1 RocksDB 10573, LevelDB 195", "crash", crashes),
    (Bug::OneSyncForManifestAndName, "#2 Pebble 5825", "crash", crashes),
    (Bug::TableNameNotSynced, "#3 RocksDB 14780", "crash", crashes),
    (Bug::DirectorySyncsEnd, "#4 RocksDB 7.4.0", "crash", crashes),
    (Bug::ManifestNotSyncedBeforeNamed, "#5 LevelDB 189", "crash", crashes),
    (Bug::OnlyNewestSegmentSynced, "#6 LevelDB 193 and 1081", "crash", crashes),
    (Bug::DamageTakenForTheEnd, "#9 Badger 434 and 592", "log damage", log_damage),
    (Bug::SyncTriedAgain, "#10 cockroach 37102", "faults", failing_calls),
    (Bug::AppendErrorDropped, "#12 fjall 304", "faults", failing_calls),
    (Bug::FullDiskNotSaid, "#13 cockroach 32605", "faults", failing_calls),
    (Bug::LogNotSynced, "#16 Badger 1847", "crash", crashes),
    (Bug::TablesNotSynced, "#17 Badger 1625", "crash", crashes),
    (Bug::NameBeforeItsBytes, "#18 redb fd82cedb", "crash", crashes),
    (Bug::SyncErrorDropped, "#19 redb 3ca4467e", "faults", failing_calls),
    (Bug::ManifestErrorDropped, "#20 RocksDB 6316, LevelDB 160", "faults", failing_calls),
    (Bug::NotAllocated, "#21 LevelDB 150, Badger 1682", "crash", crashes),
    (Bug::LockDoesNotLock, "#35 RocksDB 1780 and 14881", "second open", second_open),
    (Bug::RemovedBeforeSynced, "#42 Badger 1756 and 2198", "crash", crashes),
];

fn config(bug: Option<Bug>, log_io: LogIo) -> Config {
    Config { bug, ..Config::tiny(log_io) }
}

/// In both log modes, if the first convicts nobody.
fn both(bug: Option<Bug>, part: fn(&Config) -> Verdict) -> Verdict {
    // Only a mapped log can be without blocks.
    let modes = [LogIo::Write, LogIo::Map];
    let modes = if bug == Some(Bug::NotAllocated) { [modes[1], modes[0]] } else { modes };
    let (cases, failure) = part(&config(bug, modes[0]));
    if failure.is_some() {
        return (cases, failure);
    }
    let (more, failure) = part(&config(bug, modes[1]));
    (cases + more, failure)
}

fn crashes(bug: Option<Bug>) -> Verdict {
    both(bug, crash::first_failure)
}

fn failing_calls(bug: Option<Bug>) -> Verdict {
    both(bug, faults::first_failure)
}

/// Flips bits of a log below what was known durable. The bug is a choice that the builder offers to whoever asks for
/// it: to take the prefix, and not to say that it is one.
fn log_damage(bug: Option<Bug>) -> Verdict {
    let recovery = if bug.is_some() { Recovery::PointInTime } else { Recovery::Strict };
    let config = Config::tiny(LogIo::Map);
    let fs = SimFs::new(11);
    let db = config.sim(fs.clone()).open().unwrap();
    for n in 0..8_u8 {
        db.put_with([n], [n; 40], &WriteOptions::sync()).unwrap();
    }
    let files = dump(&fs);
    let (name, bytes) = files.iter().find(|(name, _)| name.ends_with(".log")).unwrap();
    let (mut cases, written) = (0, bytes.iter().rposition(|byte| *byte != 0).unwrap());
    // The last group is not known durable to anything behind it.
    for at in (64..written / 2).step_by(7) {
        let image = fs.kill();
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        write_file(&image, name, &bytes);
        cases += 1;
        if let Ok(db) = config.sim(image).recovery(recovery).open() {
            let found = (0..8_u8).filter(|n| db.contains([*n]).unwrap()).count();
            if found < 8 {
                return (cases, Some(format!("byte {at}: opened with {found} of 8 durable commits")));
            }
        }
    }
    (cases, None)
}

/// A second open while the first one lives.
fn second_open(bug: Option<Bug>) -> Verdict {
    let config = config(bug, LogIo::Map);
    let fs = SimFs::new(11);
    let db = config.sim(fs.clone()).open().unwrap();
    db.put("a", "1").unwrap();
    let failure = match config.sim(fs).open() {
        Ok(_) => Some("opened twice".to_owned()),
        Err(error) if kind(&error) == "Locked" => None,
        Err(error) => Some(error.to_string()),
    };
    (1, failure)
}

fn convict(from: usize) {
    for (bug, row, test, part) in HISTORY.iter().skip(from).step_by(2) {
        let (cases, failure) = part(Some(*bug));
        let failure =
            failure.unwrap_or_else(|| panic!("bug {row}, {bug:?}: not seen by {test} in {cases} cases"));
        let first = failure.lines().next().unwrap_or_default();
        println!("bug {row}, {bug:?}: convicted by {test} after {cases} cases: {first}");
        campaign::count(&["I1", "I2", "I6"], "bugs convicted", 1);
    }
}

#[test]
fn every_bug_of_history_is_convicted_by_one_half() {
    convict(0);
}

#[test]
fn every_bug_of_history_is_convicted_by_the_other_half() {
    convict(1);
}

/// The same parts, and nobody planted anything: what they convict is the bug.
#[test]
fn without_a_bug_nobody_is_convicted() {
    for part in [failing_calls as Part, log_damage, second_open] {
        let (cases, failure) = part(None);
        assert_eq!(failure, None, "after {cases} cases");
        assert!(cases > 0);
    }
    // A wrapper that does nothing is no bug either; the scripts run without one in `crash.rs`.
    let fs = Arc::new(BuggyFs::new(Arc::new(SimFs::new(1)), Bug::OnlyNewestSegmentSynced));
    let db = Config::tiny(LogIo::Map).sim_with(fs, pebble_db::Executor::Inline).open().unwrap();
    db.put_with("a", "1", &WriteOptions::sync()).unwrap();
    db.close().unwrap();
}

/// Each bug has a row of its own in the table.
#[test]
fn every_bug_is_in_the_table_once() {
    for (index, (bug, row, ..)) in HISTORY.iter().enumerate() {
        assert!(HISTORY[index + 1..].iter().all(|other| other.0 != *bug && other.1 != *row), "{bug:?}");
    }
    assert!(HISTORY.len() >= 12);
}

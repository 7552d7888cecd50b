//! kill -9 of a real process, again and again.
//!
//! ```text
//!     this test ── starts ──► the same binary as a writer: three threads ──► database
//!         │                        └── after each acknowledgement: a number to the thread's own file
//!         ├── kills it at a random moment: of its writing, or within its open, which recovers from the kill before
//!         └── opens the database, compares it with the numbers, starts the next
//! ```
//!
//! Thread `t` does its operations 1, 2, 3, .. and each leaves a counter, so what was recovered says how far it got.
//! The moment of the kill is the one thing here that time decides.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pebble_db::{Db, LogIo, WriteBatch, WriteOptions};

use crate::campaign;
use crate::support::{Config, LOG_MODES, Rng, bytes, child, env_number, mix};

const DIR: &str = "PEBBLE_TEST_KILL_DIR";
const MODE: &str = "PEBBLE_TEST_KILL_MODE";
/// Entries that a thread keeps; older ones it deletes.
const WINDOW: u64 = 48;
const SPACES: [&str; 2] = ["left", "right"];

/// How the threads write, by number.
const THREADS: [&str; 3] = ["buffered", "sync", "batch"];

fn config(log_io: LogIo) -> Config {
    Config { block_len: 1024, table_len: 32 << 10, segments: (4096, 64 << 10), ..Config::tiny(log_io) }
}

fn open(root: &Path, log_io: LogIo) -> pebble_db::Result<Db> {
    config(log_io).real(&root.join("db")).sync_interval(Some(Duration::from_millis(5))).open()
}

fn acknowledged_file(root: &Path, thread: usize) -> PathBuf {
    root.join(format!("acknowledged-{thread}"))
}

/// How many operations the thread was told are done: eight bytes were written for each.
fn acknowledged(root: &Path, thread: usize) -> u64 {
    std::fs::metadata(acknowledged_file(root, thread)).map_or(0, |file| file.len() / 8)
}

/// Where the writer tells that it opens, and that it has opened.
fn stage_file(root: &Path) -> PathBuf {
    root.join("stage")
}

const OPENING: &str = "opening";
const OPEN: &str = "open";

fn entry_key(thread: usize, n: u64) -> Vec<u8> {
    [&[b'0' + thread as u8, b'/'][..], &n.to_be_bytes()].concat()
}

fn counter_key(thread: usize) -> Vec<u8> {
    vec![b'0' + thread as u8]
}

fn value(thread: usize, n: u64) -> Vec<u8> {
    let len = usize::try_from(mix(n) % 600).unwrap();
    bytes(n * 4 + thread as u64, len)
}

/// Operation `n` of a thread, a single commit: the counter, an entry, and the end of an entry that is old enough.
/// The third thread does the same in two keyspaces at once.
fn operate(db: &Db, thread: usize, n: u64) -> pebble_db::Result<()> {
    let spaces = match thread {
        2 => SPACES.iter().map(|name| db.keyspace(name)).collect::<Result<Vec<_>, _>>()?,
        _ => vec![db.default_keyspace()],
    };
    let mut batch = WriteBatch::new();
    for space in &spaces {
        batch.put(space, counter_key(thread), n.to_be_bytes()).put(
            space,
            entry_key(thread, n),
            value(thread, n),
        );
        if n > WINDOW {
            batch.delete(space, entry_key(thread, n - WINDOW));
        }
    }
    let options = if thread == 1 { WriteOptions::sync() } else { WriteOptions::buffered() };
    db.write_with(batch, &options)
}

/// Checks that a keyspace holds what operations 1..n of a thread left, and gives n.
fn progress(db: &Db, thread: usize, name: &str) -> u64 {
    let space = if name == "default" { db.default_keyspace() } else { db.keyspace(name).unwrap() };
    let counter = space.get(counter_key(thread)).unwrap();
    let done = counter.map_or(0, |value| u64::from_be_bytes((*value).try_into().unwrap()));
    let mut expected = done.saturating_sub(WINDOW - 1).max(1)..=done;
    for entry in space.prefix([b'0' + thread as u8, b'/']).unwrap() {
        let (key, found) = entry.unwrap();
        let n = expected.next().unwrap_or_else(|| panic!("{}: an entry beyond {done}", THREADS[thread]));
        assert_eq!(*key, entry_key(thread, n)[..], "{} in {name}, {done} done", THREADS[thread]);
        assert!(found == value(thread, n)[..], "{} in {name}: value {n} of {done}", THREADS[thread]);
    }
    assert_eq!(expected.next(), None, "{} in {name}: entries of {done} are missing", THREADS[thread]);
    done
}

/// How far each thread got. Both keyspaces of the third must agree.
fn recovered(db: &Db) -> [u64; 3] {
    let both = SPACES.map(|name| progress(db, 2, name));
    assert_eq!(both[0], both[1], "a batch was torn");
    [progress(db, 0, "default"), progress(db, 1, "default"), both[0]]
}

/// The process that is killed; nothing by itself.
#[test]
fn child_that_writes() {
    let Some(root) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let log_io = LOG_MODES[env_number(MODE, 0)];
    std::fs::write(stage_file(&root), OPENING).unwrap();
    let db = open(&root, log_io).unwrap();
    std::fs::write(stage_file(&root), OPEN).unwrap();
    let from = recovered(&db);
    std::thread::scope(|scope| {
        for (thread, done) in from.into_iter().enumerate() {
            let (db, root) = (&db, &root);
            scope.spawn(move || {
                let path = acknowledged_file(root, thread);
                let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
                // What was done but not told before the last kill is told now.
                for n in acknowledged(root, thread) + 1..=done {
                    file.write_all(&n.to_le_bytes()).unwrap();
                }
                for n in done + 1.. {
                    operate(db, thread, n).unwrap();
                    file.write_all(&n.to_le_bytes()).unwrap();
                }
            });
        }
    });
}

/// Kills in each of the two tests, which run beside each other: half of what the contract asks for, and some more.
const KILLS: usize = 160;

fn kill_again_and_again(seed: u64) {
    let kills = env_number("PEBBLE_KILLS", KILLS);
    let mut rng = Rng(env_number("PEBBLE_SEED", 1) as u64 * 2 + seed);
    let mut root = tempfile::tempdir().unwrap();
    let (mut operations, mut in_recovery) = (0, 0);
    for round in 0..kills {
        // A new database every ten kills; the mode changes under it every time.
        if round % 10 == 0 {
            operations += (0..3).map(|thread| acknowledged(root.path(), thread)).sum::<u64>();
            root = tempfile::tempdir().unwrap();
        }
        let mode = (round + usize::try_from(seed).unwrap()) % 2;
        let stderr = root.path().join("stderr");
        std::fs::remove_file(stage_file(root.path())).ok();
        let dir = root.path().to_str().unwrap();
        let mut writer =
            child("kill::child_that_writes", &[(DIR, dir), (MODE, &mode.to_string())], Some(&stderr));
        // Every third kill is meant for the open, and so for the recovery from the kill before it.
        let for_the_open = round % 3 == 2;
        let reached = || std::fs::read_to_string(stage_file(root.path())).unwrap_or_default();
        while !(reached() == OPEN || for_the_open && reached() == OPENING) {
            assert!(writer.try_wait().unwrap().is_none(), "{}", std::fs::read_to_string(&stderr).unwrap());
            std::thread::sleep(Duration::from_micros(50));
        }
        let most = if for_the_open { 1_500 } else { 30_000 };
        std::thread::sleep(Duration::from_micros(rng.next() % most));
        let ended = writer.try_wait().unwrap();
        assert!(ended.is_none(), "the writer ended: {}", std::fs::read_to_string(&stderr).unwrap());
        writer.kill().unwrap();
        writer.wait().unwrap();
        in_recovery += usize::from(reached() != OPEN && round % 10 != 0);
        // One in three is left to the next child, whose recovery checks the same and may be killed as well.
        if rng.one_in(3) {
            continue;
        }
        let after: Vec<u64> = (0..3).map(|thread| acknowledged(root.path(), thread)).collect();
        let db = open(root.path(), LOG_MODES[mode]).unwrap_or_else(|error| panic!("kill {round}: {error}"));
        for (thread, (done, told)) in recovered(&db).into_iter().zip(after).enumerate() {
            let name = THREADS[thread];
            assert!((told..=told + 1).contains(&done), "kill {round}, {name}: {done} recovered, {told} told");
        }
        drop(db);
    }
    operations += (0..3).map(|thread| acknowledged(root.path(), thread)).sum::<u64>();
    println!("kill: {kills} kills, {in_recovery} in a recovery, {operations} acknowledged operations");
    assert!(operations > 0);
    assert!(in_recovery >= kills / 20, "{in_recovery} of {kills} kills met a recovery");
    campaign::count(&["I1", "I2", "I3", "I7", "killed", "kill"], "kills", kills as u64);
}

#[test]
fn nothing_acknowledged_is_lost_to_a_kill() {
    kill_again_and_again(0);
}

#[test]
fn nothing_acknowledged_is_lost_to_a_kill_with_the_modes_exchanged() {
    kill_again_and_again(1);
}

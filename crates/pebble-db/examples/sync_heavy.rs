//! Threads of sync commits beside flushes, merges, keyspaces and reopens, with a mark before and behind each commit.
//!
//! ```text
//!     sync_heavy [<directory> [map | write]]        without a directory: in one that is gone afterwards
//! ```
//!
//! `cargo xtask audit` runs it under strace and checks the order of its system calls by the marks: a line
//! `begin <thread> <n>` or `ack <thread> <n>` is one `write` to the file `marks` in the directory.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use pebble_db::{Db, LogIo, WriteBatch, WriteOptions};

const THREADS: u64 = 4;
const COMMITS: u64 = 40;
const ROUNDS: u64 = 3;

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    let log_io =
        |mode: Option<String>| if mode.as_deref() == Some("write") { LogIo::Write } else { LogIo::Map };
    match arguments.next() {
        Some(directory) => work(Path::new(&directory), log_io(arguments.next())),
        None => work(tempfile::tempdir()?.path(), LogIo::Map),
    }
}

fn work(root: &Path, log_io: LogIo) -> Outcome {
    let marks = OpenOptions::new().create(true).append(true).open(root.join("marks"))?;
    for round in 0..ROUNDS {
        // Segments and tables so small that many begin and many go; each open begins a new manifest.
        let db = Db::builder(root.join("db"))
            .log_io(log_io)
            .segment_len(4096, 32 << 10)
            .table_len(16 << 10)
            .memory_budget(1 << 20)
            .open()?;
        std::thread::scope(|scope| -> Outcome {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (db, marks) = (&db, &marks);
                    scope.spawn(move || commit(db, marks, round, thread))
                })
                .collect();
            for n in 0..8 {
                db.keyspace(&format!("{round}-{n}"))?.put("k", "v")?;
                db.flush()?;
                if n % 3 == 2 {
                    db.compact_range(..)?;
                }
            }
            db.drop_keyspace(&format!("{round}-0"))?;
            threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?)
        })?;
        db.compact_range(..)?;
        db.close()?;
    }
    Ok(())
}

fn commit(db: &Db, mut marks: &File, round: u64, thread: u64) -> Outcome {
    let space = db.keyspace("shared")?;
    for n in 0..COMMITS {
        let number = round * COMMITS + n;
        let mut batch = WriteBatch::new();
        batch.put(&space, [thread.to_be_bytes(), number.to_be_bytes()].concat(), vec![b'v'; 700]);
        batch.put(&db.default_keyspace(), thread.to_be_bytes(), number.to_be_bytes());
        marks.write_all(format!("begin {thread} {number}\n").as_bytes())?;
        db.write_with(batch, &WriteOptions::sync())?;
        marks.write_all(format!("ack {thread} {number}\n").as_bytes())?;
    }
    Ok(())
}

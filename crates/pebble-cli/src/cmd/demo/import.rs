//! The import, and the process that does the first part of it and dies.
//!
//! Threading: `writers` threads take batches from one hand and put each in one commit: contents in one keyspace, the
//! index over them in another. A batch is acknowledged when its commit has returned.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::ops::Range;
use std::path::Path;
use std::process::{self, Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use pebble_db::{Db, Keyspace, WriteBatch, WriteOptions};

use super::Demo;
use super::corpus::{Corpus, Fact, Item};
use super::pipe;
use crate::failure::{Failure, Result};
use crate::place::Missing;
use crate::progress::Progress;

/// The two keyspaces.
pub struct Keyspaces {
    /// Path to content.
    pub files: Keyspace,
    /// Hash of the content and path to facts.
    pub index: Keyspace,
}

impl Keyspaces {
    /// Opens or makes both.
    pub fn open(db: &Db) -> Result<Self> {
        Ok(Self { files: db.keyspace("files")?, index: db.keyspace("by-content")? })
    }

    fn write(&self, db: &Db, options: &WriteOptions, batch: WriteBatch) -> Result<()> {
        Ok(db.write_with(batch, options)?)
    }

    fn add(&self, batch: &mut WriteBatch, key: &[u8], value: &[u8], fact: &Fact) {
        batch.put(&self.files, key, value).put(&self.index, &fact.key, &fact.value);
    }
}

/// The items of each batch.
pub fn batches(corpus: &Corpus, batch: usize) -> Vec<Range<usize>> {
    let len = corpus.items.len();
    (0..len).step_by(batch.max(1)).map(|at| at..(at + batch).min(len)).collect()
}

/// The process that is killed: imports what stdin says until it says no more, then waits for its end.
pub fn child(demo: &Demo, dir: &Path) -> Result<()> {
    let db = demo.tuning.open(dir, Missing::Create)?;
    let keyspaces = Keyspaces::open(&db)?;
    let options = demo.sync.options();
    let input = Mutex::new(BufReader::with_capacity(1 << 20, io::stdin()));
    let work = || -> Result<()> {
        loop {
            let received = pipe::receive(&mut *input.lock().unwrap_or_else(PoisonError::into_inner));
            let Ok(received) = received else { return Ok(()) };
            let mut batch = WriteBatch::new();
            for (key, value) in &received.records {
                keyspaces.add(&mut batch, key, value, &Fact::of(key, value));
            }
            keyspaces.write(&db, &options, batch)?;
            let acknowledged = format!("{}\n", received.number);
            let told = io::stdout().lock().write_all(acknowledged.as_bytes());
            told.map_err(|error| Failure::of_stdout(&error))?;
        }
    };
    // One that fails ends the process: the others would wait for input, and the demo for their acknowledgements.
    on_threads(demo.writers(), || {
        if let Err(failure) = work() {
            failure.report();
            process::exit(1);
        }
        Ok(())
    })
}

/// Runs the same on several threads; the first failure.
pub fn on_threads(threads: usize, work: impl Fn() -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        let join = |worker: thread::ScopedJoinHandle<'_, Result<()>>| {
            worker.join().unwrap_or_else(|_| Err(Failure::Failed("a thread of the demo panicked".into())))
        };
        workers.into_iter().map(join).collect::<Vec<_>>().into_iter().collect()
    })
}

/// What the killed process had done.
pub struct Killed {
    /// The batches whose acknowledgement arrived, also after the kill: they were in the pipe.
    pub acknowledged: BTreeSet<usize>,
    /// From its start to the kill.
    pub time: Duration,
}

/// Starts the process, feeds it, and kills it with SIGKILL when `kill_at` batches are acknowledged.
///
/// It is given half of the rest beyond that, so that it never comes to the end and is at work when it dies.
pub fn import_and_kill(
    demo: &Demo,
    dir: &Path,
    corpus: &Corpus,
    batches: &[Range<usize>],
    kill_at: usize,
) -> Result<Killed> {
    let begun = Instant::now();
    let fed = kill_at + (batches.len() - kill_at) / 2;
    let mut child = Reaped(spawn(demo, dir)?);
    let (Some(stdin), Some(stdout)) = (child.0.stdin.take(), child.0.stdout.take()) else {
        return Err(Failure::Failed("the importing process has no pipes".into()));
    };
    let progress = Progress::new("import", Some(batches.len() as u64), crate::progress::Unit::Items);
    let (acknowledged, time) = thread::scope(|scope| {
        // Kept until the process is dead: at the end of its input it would end by itself.
        let feeder = scope.spawn(move || feed(stdin, corpus, batches.iter().take(fed)));
        let (mut acknowledged, mut time) = (BTreeSet::new(), None);
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        while let Ok(1..) = stdout.read_line(&mut line) {
            acknowledged.extend(line.strip_suffix('\n').and_then(|number| number.parse::<usize>().ok()));
            line.clear();
            progress.set(acknowledged.len() as u64);
            if time.is_none() && acknowledged.len() >= kill_at {
                time = child.0.kill().is_ok().then(|| begun.elapsed());
            }
        }
        drop(feeder.join());
        let ended = || Failure::Failed("the importing process ended before it was killed".into());
        Ok::<_, Failure>((acknowledged, time.ok_or_else(ended)?))
    })?;
    child.0.wait().map_err(|error| Failure::Failed(format!("wait: {error}")))?;
    Ok(Killed { acknowledged, time })
}

/// A child that does not outlive its handle, whatever goes wrong.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }
}

fn spawn(demo: &Demo, dir: &Path) -> Result<Child> {
    let program = std::env::current_exe().map_err(|error| Failure::Failed(error.to_string()))?;
    let mut command = Command::new(program);
    command.arg("demo").arg("--child").arg("--dir").arg(dir).args(demo.child_arguments());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().map_err(|error| Failure::Failed(format!("starting the importing process: {error}")))
}

/// Sends batches; a closed pipe is how it learns that the process is dead.
fn feed<'a>(
    stdin: ChildStdin,
    corpus: &Corpus,
    batches: impl Iterator<Item = &'a Range<usize>>,
) -> Option<ChildStdin> {
    let mut out = BufWriter::with_capacity(256 << 10, stdin);
    for (number, items) in batches.enumerate() {
        let items: &[Item] = corpus.items.get(items.clone())?;
        pipe::send(&mut out, u32::try_from(number).ok()?, items).ok()?;
    }
    out.into_inner().ok()
}

/// Imports the batches that `missing` names, in this process.
pub fn import_rest(
    demo: &Demo,
    db: &Db,
    corpus: &Corpus,
    batches: &[Range<usize>],
    missing: &[usize],
) -> Result<()> {
    let keyspaces = Keyspaces::open(db)?;
    let options = demo.sync.options();
    let progress = Progress::new("import", Some(missing.len() as u64), crate::progress::Unit::Items);
    let next = AtomicUsize::new(0);
    on_threads(demo.writers(), || {
        while let Some(number) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
            let items = batches.get(*number).and_then(|items| corpus.items.get(items.clone()));
            let mut batch = WriteBatch::new();
            for item in items.unwrap_or_default() {
                keyspaces.add(&mut batch, &item.key, &item.value, &item.fact);
            }
            keyspaces.write(db, &options, batch)?;
            progress.advance(1);
        }
        Ok(())
    })
}

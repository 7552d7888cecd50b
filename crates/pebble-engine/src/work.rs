//! Background work: who does it, how it is woken, and how it ends.
//!
//! ```text
//!   pebble-flush     sealed memtables ─► runs           woken by a seal; tries again after a failure
//!   pebble-merge-0…  planned merges                     woken by a flush, by each other
//!                    the first one also uses a rest     no write for a while: towards one run, until some come
//!   pebble-pages     pages of the log ahead of writers    given to it by the commit that comes near to them
//!   pebble-io-0…     tables to and from the device      given to them by flushes and merges, which compute meanwhile
//!   pebble-sync      persist() every sync_interval      so that a power cut takes at most that much
//! ```
//!
//! Threading: a wake-up is a message in a channel of capacity one: waking twice is waking once, waking never
//! blocks. A panic ends the thread's work, not the process: writing stops, and whoever waits is woken with an
//! error.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use pebble_format::Seqno;
use pebble_wal::PagesAhead;

use crate::compact::Step;
use crate::core::Core;
use crate::covered::Covered;
use crate::error::{Error, Result};
use crate::sync::thread::{Builder, JoinHandle};
use crate::sync::{AtomicBool, Mutex, Ordering, Receiver, RecvTimeoutError, Sender, bounded, lock};
use crate::transfers::{self, Transfers};

/// So long without a write is a rest.
const REST: Duration = Duration::from_millis(50);

/// A merge that uses a rest and is ended by a write was for nothing: the next one waits for a rest twice as long, up to
/// this. A write now and then would else have the same tables merged over and over, never to the end.
const REST_MAX: Duration = Duration::from_secs(600);

/// How often a tree at rest is looked at for writes and snapshots, which ring no bell.
const LOOK: Duration = Duration::from_millis(500);

/// How long a failed job waits before it is tried again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The wake-ups of the background threads.
pub(crate) struct Work {
    flush: Bell,
    compaction: Bell,
    sync: Bell,
    pages: Bell,
    transfers: Arc<Transfers>,
    /// The pages of the log that are to be made; the last word counts.
    ahead: Mutex<Option<PagesAhead>>,
    rest: Mutex<Rest>,
    stopping: AtomicBool,
}

/// What the one who uses rests knows of them.
#[derive(Default)]
struct Rest {
    /// How long one is to be before it is used for merges, if that is more than [`REST`].
    patience: Duration,
    /// The newest write, and since when there was no other.
    written: Seqno,
    since: Duration,
}

struct Bell {
    ring: Sender<()>,
    heard: Receiver<()>,
}

impl Bell {
    fn new() -> Self {
        let (ring, heard) = bounded(1);
        Self { ring, heard }
    }

    fn ring(&self) {
        // A full channel means that the wake-up is on its way already.
        self.ring.try_send(()).ok();
    }
}

impl Work {
    pub(crate) fn new(transfers: Arc<Transfers>) -> Self {
        Self {
            transfers,
            flush: Bell::new(),
            compaction: Bell::new(),
            sync: Bell::new(),
            pages: Bell::new(),
            ahead: Mutex::new(None),
            rest: Mutex::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// What wakes those who merge, to be given to others.
    pub(crate) fn merge_bell(&self) -> Sender<()> {
        self.compaction.ring.clone()
    }

    pub(crate) fn wake_flush(&self) {
        self.flush.ring();
    }

    pub(crate) fn wake_compaction(&self) {
        self.compaction.ring();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Has pages of the log made, if somebody has the time.
    pub(crate) fn make_pages(&self, ahead: PagesAhead) {
        *lock(&self.ahead) = Some(ahead);
        self.pages.ring();
    }

    /// How much of a rest is missing before it may be used for merges, when `written` is the newest write.
    fn missing_of_rest(&self, written: Seqno, now: Duration) -> Duration {
        let mut rest = lock(&self.rest);
        if rest.written != written {
            (rest.written, rest.since) = (written, now);
        }
        (rest.since + rest.patience).saturating_sub(now)
    }

    /// A rest was used for a merge, or tried to be.
    fn used_a_rest(&self, step: Step, took: Duration) {
        let patience = &mut lock(&self.rest).patience;
        match step {
            Step::Done => *patience = Duration::ZERO,
            Step::GivenUp => *patience = (*patience * 2).max(took).max(REST).min(REST_MAX),
            Step::Nothing => {}
        }
    }

    /// Tells every thread to end after the job at hand; merges are given up midway.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.flush.ring();
        self.compaction.ring();
        self.sync.ring();
        self.pages.ring();
        self.transfers.stop();
    }
}

/// Starts the threads.
pub(crate) fn start(core: &Arc<Core>) -> Result<Vec<JoinHandle<()>>> {
    let mut threads = Vec::new();
    let started = start_all(core, &mut threads);
    if started.is_err() {
        core.work.stop();
        threads.drain(..).for_each(|thread| drop(thread.join()));
    }
    started?;
    core.work.wake_compaction();
    Ok(threads)
}

fn start_all(core: &Arc<Core>, threads: &mut Vec<JoinHandle<()>>) -> Result<()> {
    threads.push(spawn(core, "pebble-flush", |core| {
        until_stopped(core, &core.work.flush, Core::flush_in_background);
    })?);
    threads.push(spawn(core, "pebble-merge-0", |core| {
        until_stopped(core, &core.work.compaction, Core::merge_or_rest);
        core.work.wake_compaction();
    })?);
    for number in 1..core.options.merge_threads {
        threads.push(spawn(core, &format!("pebble-merge-{number}"), |core| {
            until_stopped(core, &core.work.compaction, |core| {
                core.merge_in_background(false).map(Step::is_done)
            });
            // There is one bell for all of them, and it may have been heard by this one alone.
            core.work.wake_compaction();
        })?);
    }
    threads.push(spawn(core, "pebble-pages", |core| {
        while core.work.pages.heard.recv().is_ok() && !core.work.is_stopping() {
            let ahead = lock(&core.work.ahead).take();
            ahead.into_iter().for_each(PagesAhead::populate);
        }
    })?);
    for number in 0..transfers::THREADS {
        threads.push(spawn(core, &format!("pebble-io-{number}"), |core| core.tables.transfers.serve())?);
    }
    if let Some(interval) = core.options.sync_interval {
        threads.push(spawn(core, "pebble-sync", move |core| sync_every(core, interval))?);
    }
    Ok(())
}

pub(crate) fn spawn(
    core: &Arc<Core>,
    name: &str,
    body: impl Fn(&Core) + Send + 'static,
) -> Result<JoinHandle<()>> {
    let core = Arc::clone(core);
    let what = String::from(name);
    let root = move || {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(&core))) {
            let message = panic.downcast_ref::<&str>().copied().map(String::from);
            let message = message.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            core.status.stop(&Error::Background { what: format!("{what}: {message}").into() });
            drop(core.commit.lock());
            core.room.notify_all();
        }
    };
    Ok(Builder::new().name(name.into()).spawn(root)?)
}

/// Runs `job` until it has nothing to do, then waits for the bell. After a failure it waits longer each time.
fn until_stopped(core: &Core, bell: &Bell, job: impl Fn(&Core) -> Result<bool>) {
    let mut pause = RETRY.0;
    while !core.work.is_stopping() {
        match job(core) {
            Ok(true) => pause = RETRY.0,
            Ok(false) => {
                if bell.heard.recv().is_err() {
                    return;
                }
            }
            Err(_) if core.status.stopped().is_some() => {
                // Nothing is written any more; only the end is waited for.
                if bell.heard.recv().is_err() {
                    return;
                }
            }
            Err(_) => {
                rest(core, bell, pause);
                pause = (pause * 2).min(RETRY.1);
            }
        }
    }
}

/// Waits out a pause, which only the end cuts short, or a writer that asks for a flush: a merge rings the bell of its
/// kind as it begins, and one that fails would be begun again at once by its own ring, or by that of another which
/// fails.
fn rest(core: &Core, bell: &Bell, pause: Duration) {
    let until = core.clock.now() + pause;
    loop {
        let left = until.saturating_sub(core.clock.now());
        let woken = bell.heard.recv_timeout(left);
        let is_over = woken == Err(RecvTimeoutError::Timeout) || left.is_zero();
        if is_over || core.work.is_stopping() || std::ptr::eq(bell, &core.work.flush) {
            return;
        }
    }
}

fn sync_every(core: &Core, interval: Duration) {
    loop {
        match core.work.sync.heard.recv_timeout(interval) {
            Err(RecvTimeoutError::Timeout) if !core.work.is_stopping() => {
                if let Err(error) = core.persist() {
                    tracing::error!(%error, "background sync of the log failed");
                    return;
                }
            }
            _ => return,
        }
    }
}

impl Core {
    fn flush_in_background(&self) -> Result<bool> {
        self.flush_oldest().inspect_err(|error| self.flush_failed(error))
    }

    fn merge_in_background(&self, idle: bool) -> Result<Step> {
        if self.status.stopped().is_some() {
            return Ok(Step::Nothing);
        }
        match self.compact_planned(idle) {
            // What is damaged stays so: its table is set aside, and what else is due comes when the bell rings next.
            Err(error) if error.is_corruption() => {
                tracing::error!(%error, "merge given up; its inputs stay");
                Ok(Step::Nothing)
            }
            Err(error) if self.work.is_stopping() => Err(error),
            merged => merged.inspect_err(|error| tracing::warn!(%error, "merge failed; it is tried again")),
        }
    }

    /// Carries out what is due, else waits for a rest and uses it. When even a rest has no more use, waits for a
    /// change of the tree or for writes.
    pub(crate) fn merge_or_rest(&self) -> Result<bool> {
        let merged = self.merge_in_background(false);
        // One table between two merges: neither waits for all of the others.
        let warmed = self.warm_what_is_read().unwrap_or_else(|error| {
            tracing::warn!(%error, "a table that is read is not brought into memory");
            false
        });
        if merged?.is_done() || warmed {
            return Ok(true);
        }
        let written = self.visible.get();
        let woken = self.work.compaction.heard.recv_timeout(REST);
        if woken != Err(RecvTimeoutError::Timeout) || self.work.is_stopping() || self.visible.get() != written
        {
            return Ok(true);
        }
        if self.flush_at_rest()? {
            return Ok(true);
        }
        // Before the look at what they keep: one that goes meanwhile is seen to have gone.
        let snapshots = self.snapshots.list();
        self.drop_covered_if_any(Covered::Wholly);
        let begun = self.clock.now();
        let missing = self.work.missing_of_rest(written, begun);
        if !missing.is_zero() {
            // Whatever this hears or misses, all of the above is looked at again.
            self.work.compaction.heard.recv_timeout(missing.min(LOOK)).ok();
            return Ok(true);
        }
        let step = self.merge_in_background(true)?;
        self.work.used_a_rest(step, self.clock.now().saturating_sub(begun));
        if step == Step::Nothing {
            let stop = || self.work.is_stopping() || self.visible.get() != written;
            if let Err(error) = self.warm(&stop) {
                tracing::warn!(%error, "tables are not brought into memory");
            }
            while self.work.compaction.heard.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout)
                && self.visible.get() == written
                && self.snapshots.list() == snapshots
            {
                // A longer rest: the log's spare segments would be most of a small database, and memory is idle.
                self.tables.transfers.trim();
                if let Ok(mut committer) = self.commit.lock() {
                    committer.log.trim();
                }
            }
        }
        Ok(true)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn rests_that_were_too_short_are_left_alone_longer_each_time() {
        let work = Work::new(Arc::default());
        let patience = || lock(&work.rest).patience;
        work.used_a_rest(Step::GivenUp, Duration::from_millis(900));
        assert_eq!(patience(), Duration::from_millis(900));
        work.used_a_rest(Step::Nothing, Duration::ZERO);
        work.used_a_rest(Step::GivenUp, Duration::from_millis(10));
        assert_eq!(patience(), Duration::from_millis(1_800));
        (0..20).for_each(|_| work.used_a_rest(Step::GivenUp, Duration::ZERO));
        assert_eq!(patience(), REST_MAX);
        work.used_a_rest(Step::Done, Duration::from_secs(5));
        assert_eq!(patience(), Duration::ZERO);
        work.used_a_rest(Step::GivenUp, Duration::ZERO);
        assert_eq!(patience(), REST);
    }

    #[test]
    fn a_rest_is_as_long_as_nobody_writes_whatever_rings_meanwhile() {
        let (work, millis) = (Work::new(Arc::default()), Duration::from_millis);
        assert_eq!(work.missing_of_rest(Seqno(7), millis(100)), Duration::ZERO);
        work.used_a_rest(Step::GivenUp, millis(1_000));
        assert_eq!(work.missing_of_rest(Seqno(8), millis(2_000)), millis(1_000));
        assert_eq!(work.missing_of_rest(Seqno(8), millis(2_700)), millis(300));
        assert_eq!(work.missing_of_rest(Seqno(9), millis(2_900)), millis(1_000));
        assert_eq!(work.missing_of_rest(Seqno(9), millis(4_000)), Duration::ZERO);
    }
}

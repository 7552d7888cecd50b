//! Group commit: many threads wait for durability, one of them syncs for all.
//!
//! ```text
//!   writer   ──append──► written ─────┐ read by the leader once those it expects have written
//!   waiter A ──wait────► leads ─ gathers ─ names, files oldest to newest ──► durable, rings
//!   waiter B ──wait────► sleeps ...................................................► done, or leads the next group
//! ```
//!
//! Threading: every method may be called from any thread, [`Group::wrote`] and [`Group::begin_file`] from the one
//! writer only. Who turns `leading` from false to true leads, and no other thread does until he is through. No lock
//! is held during a sync, and nobody takes one to find that he is done: sixteen threads that wake at once would queue
//! for it. `durable` is published after the sync that it tells of, and never falls.
//!
//! A sync that fails, or a leader that panics, is final: the error is kept, everybody waiting gets it, and nothing
//! is synced again. What a file holds after a failed sync is not knowable, and a retry that succeeds would prove
//! nothing.

use std::sync::atomic::AtomicU32;

use pebble_format::log::LogPosition;
use pebble_format::{Error, Result};

use crate::sync::{AtomicBool, AtomicU64, Bell, Mutex, MutexGuard, Ordering, PoisonError, give_way};

/// How often in a row a leader gives way and sees nobody come before it gives up the rest of those it expects: some
/// tens of microseconds, less than a sync takes.
const PATIENCE: u32 = 64;

/// What a leader syncs. A trait, so that the protocol can be model-checked without files.
pub(crate) trait Disk {
    /// A file of the log.
    type File: Clone;

    /// Makes the names of new files durable.
    fn sync_names(&self) -> Result<()>;

    /// Makes the bytes of a file durable.
    fn sync_file(&self, file: &Self::File) -> Result<()>;
}

/// The meeting point of the writer and those who wait.
pub(crate) struct Group<D: Disk> {
    disk: D,
    /// End of what was appended; everything before it lies in the files.
    written: AtomicU64,
    /// Everything before it is durable.
    durable: AtomicU64,
    /// Whether `State::failed` is set; lets the writer look without the lock.
    broken: AtomicBool,
    /// Somebody gathers or syncs right now.
    leading: AtomicBool,
    /// Threads that began to wait since the last leader looked at what was written. This and `expected` guard nothing,
    /// and are std's atomics in the models too.
    came: AtomicU32,
    /// Threads that the next leader expects: those that the last group let go, and those that came during its sync.
    expected: AtomicU32,
    /// Rung when a group ends and when the log fails.
    bell: Bell,
    state: Mutex<State<D::File>>,
}

struct State<F> {
    failed: Option<Error>,
    names_owed: bool,
    /// Files that may hold bytes that are not durable, oldest first; the last one is the writer's.
    files: Vec<Owed<F>>,
    groups: u64,
}

struct Owed<F> {
    number: u32,
    /// Where the log ended when the file was begun, which is where the one before it ends.
    previous_end: LogPosition,
    file: F,
}

/// What one leader has taken on.
struct Work<F> {
    target: LogPosition,
    names: bool,
    files: Vec<F>,
}

impl<D: Disk> Group<D> {
    /// A log that is durable up to `durable`, and holds nothing behind it in a file that was not begun here.
    pub(crate) fn new(disk: D, durable: LogPosition) -> Self {
        Self {
            disk,
            written: AtomicU64::new(durable.0),
            durable: AtomicU64::new(durable.0),
            broken: AtomicBool::new(false),
            leading: AtomicBool::new(false),
            came: AtomicU32::new(0),
            expected: AtomicU32::new(0),
            bell: Bell::new(),
            state: Mutex::new(State { failed: None, names_owed: false, files: Vec::new(), groups: 0 }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<D::File>> {
        // No panic can stand between two dependent changes of the state, so it is whole after one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of a new file, before anything in it is told of by [`Group::wrote`]. Its name is owed a sync, unless
    /// some of its bytes are durable already.
    pub(crate) fn begin_file(&self, number: u32, previous_end: LogPosition, file: D::File) {
        let mut state = self.lock();
        state.names_owed |= self.durable() <= LogPosition::new(number, 0);
        state.files.push(Owed { number, previous_end, file });
    }

    /// Everything before `end` lies in the files now.
    #[inline]
    pub(crate) fn wrote(&self, end: LogPosition) {
        self.written.store(end.0, Ordering::Release);
    }

    pub(crate) fn written(&self) -> LogPosition {
        LogPosition(self.written.load(Ordering::Acquire))
    }

    #[inline]
    pub(crate) fn durable(&self) -> LogPosition {
        LogPosition(self.durable.load(Ordering::Acquire))
    }

    /// Files numbered below `before` are obsolete: what they hold is durable elsewhere, and they need no sync.
    pub(crate) fn retire(&self, before: u32) {
        self.lock().files.retain(|owed| owed.number >= before);
    }

    /// Fails everything from now on.
    pub(crate) fn fail(&self, error: Error) {
        let mut state = self.lock();
        state.failed.get_or_insert(error);
        self.broken.store(true, Ordering::Release);
        drop(state);
        self.bell.ring();
    }

    /// The error that ended the log, if one did. Cost while there is none: one load.
    #[inline]
    pub(crate) fn failed(&self) -> Option<Error> {
        if self.broken.load(Ordering::Acquire) { self.lock().failed.clone() } else { None }
    }

    /// Groups that were synced.
    pub(crate) fn groups(&self) -> u64 {
        self.lock().groups
    }

    /// Returns once everything before `position` is durable, leading a sync if nobody else does.
    pub(crate) fn wait(&self, position: LogPosition) -> Result<()> {
        if self.durable() >= position {
            return Ok(());
        }
        if position > self.written() {
            return Err(Error::invalid(format!("waiting for {position}, behind the log's end")));
        }
        self.came.fetch_add(1, Ordering::Relaxed);
        loop {
            // Heard before the look at what the ringing tells of: a group that ends behind the look ends the sleep.
            let heard = self.bell.heard();
            // Looked for first: the group before the one that failed may just have made `position` durable.
            let failed = self.failed();
            if self.durable() >= position {
                return Ok(());
            }
            if let Some(error) = failed {
                return Err(error);
            }
            // Who finds somebody leading has not heard him end, for his ringing follows `leading`.
            match self.leading.compare_exchange(false, true, Ordering::Acquire, Ordering::Acquire) {
                // A group that ended between the look and the turn had `position` with it.
                Ok(_) if self.durable() >= position => self.end_turn(),
                Ok(_) => self.lead(),
                Err(_) => self.bell.wait(heard),
            }
        }
    }

    /// Syncs what was written, for all who wait; the caller has `leading`. What came of it is in `durable` and
    /// `failed`.
    fn lead(&self) {
        let mut turn = Turn { group: self, company: 0, outcome: None };
        self.gather();
        turn.company = self.came.swap(0, Ordering::Relaxed);
        turn.outcome = Some(self.take().and_then(|work| self.sync(&work).map(|()| work.target)));
    }

    /// Leaves the lead to whoever wants it, and wakes everybody: some sleep because it was taken.
    fn end_turn(&self) {
        self.leading.store(false, Ordering::Release);
        self.bell.ring();
    }

    /// Lets those write who are about to. The last group let all its threads go at once, and whoever is back first
    /// leads: its sync would carry its own record and the few that came before it, and the others would wait for that
    /// sync and for one more. A thread that is alone is back itself, and expects nobody.
    fn gather(&self) {
        let expected = self.expected.load(Ordering::Relaxed);
        let mut came = self.came.load(Ordering::Relaxed);
        let mut idle = 0;
        while came < expected && idle < PATIENCE {
            give_way();
            let now = self.came.load(Ordering::Relaxed);
            idle = if now == came { idle + 1 } else { 0 };
            came = now;
        }
    }

    /// Everything that was written and is not durable: at least what the caller waits for.
    fn take(&self) -> Result<Work<D::File>> {
        let mut state = self.lock();
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        let target = self.written();
        let durable = self.durable();
        let mut files = Vec::new();
        let mut owed = state.files.iter().peekable();
        while let Some(Owed { number, file, .. }) = owed.next() {
            let end = owed.peek().map_or(target, |next| next.previous_end.min(target));
            if *number <= target.segment() && end > durable {
                files.push(file.clone());
            }
        }
        Ok(Work { target, names: std::mem::take(&mut state.names_owed), files })
    }

    fn sync(&self, work: &Work<D::File>) -> Result<()> {
        if work.names {
            self.disk.sync_names()?;
        }
        work.files.iter().try_for_each(|file| self.disk.sync_file(file))
    }
}

/// A leader's turn. Its end, by whatever way, wakes everybody.
struct Turn<'g, D: Disk> {
    group: &'g Group<D>,
    /// How many threads wait for this group.
    company: u32,
    /// Up to where the log is durable now; `None` when the leader did not come back from the sync.
    outcome: Option<Result<LogPosition>>,
}

impl<D: Disk> Drop for Turn<'_, D> {
    fn drop(&mut self) {
        let group = self.group;
        let mut state = group.lock();
        let outcome = self.outcome.take();
        match outcome.unwrap_or_else(|| Err(std::io::Error::other("the sync of the log panicked").into())) {
            // A failure that came from elsewhere meanwhile does not undo a sync that succeeded.
            Ok(target) => {
                state.groups += 1;
                state.files.retain(|owed| owed.number >= target.segment());
                group.durable.store(target.0, Ordering::Release);
            }
            Err(error) => {
                state.failed.get_or_insert(error);
                group.broken.store(true, Ordering::Release);
            }
        }
        drop(state);
        group.expected.store(self.company + group.came.load(Ordering::Relaxed), Ordering::Relaxed);
        group.end_turn();
    }
}

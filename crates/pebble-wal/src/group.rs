//! Group commit: many threads wait for durability, one of them syncs for all.
//!
//! ```text
//!   writer   ──append──► written ─────┐ read by the leader before it syncs
//!   waiter A ──wait────► leads ── names, files oldest to newest ──► durable, wakes all
//!   waiter B ──wait────► sleeps ........................................► done, or leads the next group
//! ```
//!
//! Threading: every method may be called from any thread, [`Group::wrote`] and [`Group::begin_file`] from the one
//! writer only. No lock is held during a sync. `durable` is published after the sync that it tells of, and never
//! falls.
//!
//! A sync that fails, or a leader that panics, is final: the error is kept, everybody waiting gets it, and nothing
//! is synced again. What a file holds after a failed sync is not knowable, and a retry that succeeds would prove
//! nothing.

use pebble_format::log::LogPosition;
use pebble_format::{Error, Result};

use crate::sync::{AtomicBool, AtomicU64, Condvar, Mutex, MutexGuard, Ordering, PoisonError};

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
    state: Mutex<State<D::File>>,
    turn: Condvar,
}

struct State<F> {
    /// Somebody syncs right now.
    leading: bool,
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
            state: Mutex::new(State {
                leading: false,
                failed: None,
                names_owed: false,
                files: Vec::new(),
                groups: 0,
            }),
            turn: Condvar::new(),
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
        self.turn.notify_all();
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
        let mut state = self.lock();
        loop {
            if self.durable() >= position {
                return Ok(());
            }
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if !state.leading {
                break;
            }
            state = self.turn.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.leading = true;
        let work = self.take(&mut state);
        drop(state);
        let mut lead = Lead { group: self, target: work.target, outcome: None };
        let outcome = self.sync(&work);
        lead.outcome = Some(outcome.clone());
        drop(lead);
        outcome
    }

    /// Everything that was written and is not durable: at least what the caller waits for.
    fn take(&self, state: &mut State<D::File>) -> Work<D::File> {
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
        Work { target, names: std::mem::take(&mut state.names_owed), files }
    }

    fn sync(&self, work: &Work<D::File>) -> Result<()> {
        if work.names {
            self.disk.sync_names()?;
        }
        work.files.iter().try_for_each(|file| self.disk.sync_file(file))
    }
}

/// A leader's turn. Its end, by whatever way, wakes everybody.
struct Lead<'g, D: Disk> {
    group: &'g Group<D>,
    target: LogPosition,
    /// `None` when the leader did not come back from the sync.
    outcome: Option<Result<()>>,
}

impl<D: Disk> Drop for Lead<'_, D> {
    fn drop(&mut self) {
        let mut state = self.group.lock();
        state.leading = false;
        let outcome = self.outcome.take();
        match outcome.unwrap_or_else(|| Err(std::io::Error::other("the sync of the log panicked").into())) {
            // A failure that came from elsewhere meanwhile does not undo a sync that succeeded.
            Ok(()) => {
                state.groups += 1;
                state.files.retain(|owed| owed.number >= self.target.segment());
                self.group.durable.store(self.target.0, Ordering::Release);
            }
            Err(error) => {
                state.failed.get_or_insert(error);
                self.group.broken.store(true, Ordering::Release);
            }
        }
        drop(state);
        self.group.turn.notify_all();
    }
}

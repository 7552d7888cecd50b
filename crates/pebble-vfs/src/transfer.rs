//! Transfers that go on beside their caller, who computes meanwhile.
//!
//! ```text
//!   begin ─► begun ──a helper takes it──► running ─► done ──wait──► what came of it
//!              └──── wait: nobody has taken it, so the caller does it himself ────┘
//! ```
//!
//! So helpers may be few, late, or none at all: a transfer costs time then, and never hangs. A disk that is given one
//! request at a time by a thread that waits for each gives half of its speed.
//!
//! Threading: any thread may help; the transfer belongs to the one who began it.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::direct::DirectBuffer;
use crate::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What a helper does.
pub type Job = Box<dyn FnOnce() + Send>;

/// Who carries out transfers beside those who began them.
pub trait Helpers: Send + Sync + fmt::Debug {
    /// Has the job done soon by another thread. It may be dropped instead, or be done late.
    fn help(&self, job: Job);

    /// Memory of at least `len` bytes for a transfer, of one that is over if there is some: a fresh page costs many
    /// times what is done in it. Errors: the system's, when it has none.
    fn lend(&self, len: usize) -> io::Result<DirectBuffer> {
        DirectBuffer::new(len)
    }

    /// Takes memory back.
    fn give_back(&self, _memory: DirectBuffer) {}
}

/// Nobody: a transfer is carried out when it is waited for.
#[derive(Debug, Default)]
pub struct NoHelpers;

impl Helpers for NoHelpers {
    fn help(&self, _job: Job) {}
}

/// A transfer that was begun. One that is dropped is over, or never takes place.
#[derive(Debug)]
pub struct Transfer<T> {
    slot: Arc<Slot<T>>,
}

#[derive(Debug)]
struct Slot<T> {
    stage: Mutex<Stage<T>>,
    done: Condvar,
}

enum Stage<T> {
    Begun(Box<dyn FnOnce() -> io::Result<T> + Send>),
    Running,
    Done(io::Result<T>),
    Taken,
}

impl<T> fmt::Debug for Stage<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Begun(_) => "Begun",
            Stage::Running => "Running",
            Stage::Done(_) => "Done",
            Stage::Taken => "Taken",
        })
    }
}

impl<T: Send + 'static> Transfer<T> {
    /// Hands the work to `helpers`.
    pub fn begin(helpers: &dyn Helpers, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Self {
        let stage = Mutex::new(Stage::Begun(Box::new(work)));
        let slot = Arc::new(Slot { stage, done: Condvar::new() });
        let theirs = Arc::clone(&slot);
        helpers.help(Box::new(move || theirs.carry_out()));
        Self { slot }
    }
}

impl<T> Transfer<T> {
    /// What came of it, once it is over. Errors: its own, and `Other` if it panicked.
    pub fn wait(self) -> io::Result<T> {
        self.slot.carry_out();
        let mut stage = self.slot.lock();
        loop {
            match std::mem::replace(&mut *stage, Stage::Taken) {
                Stage::Done(done) => return done,
                Stage::Running => *stage = Stage::Running,
                Stage::Begun(_) | Stage::Taken => return Err(panicked()),
            }
            stage = self.slot.done.wait(stage).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Drop for Transfer<T> {
    fn drop(&mut self) {
        let mut stage = self.slot.lock();
        while matches!(*stage, Stage::Running) {
            stage = self.slot.done.wait(stage).unwrap_or_else(PoisonError::into_inner);
        }
        *stage = Stage::Taken;
    }
}

impl<T> Slot<T> {
    fn lock(&self) -> MutexGuard<'_, Stage<T>> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does the work, unless somebody has taken it.
    fn carry_out(&self) {
        let work = {
            let mut stage = self.lock();
            match std::mem::replace(&mut *stage, Stage::Running) {
                Stage::Begun(work) => work,
                other => {
                    *stage = other;
                    return;
                }
            }
        };
        let end = End(self);
        let done = work();
        *self.lock() = Stage::Done(done);
        drop(end);
    }
}

/// Wakes who waits, also when the work panicked.
struct End<'a, T>(&'a Slot<T>);

impl<T> Drop for End<'_, T> {
    fn drop(&mut self) {
        let mut stage = self.0.lock();
        if matches!(*stage, Stage::Running) {
            *stage = Stage::Done(Err(panicked()));
        }
        drop(stage);
        self.0.done.notify_all();
    }
}

fn panicked() -> io::Error {
    io::Error::other("a transfer panicked")
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// Keeps what it is given.
    #[derive(Debug)]
    struct Later(mpsc::Sender<Job>);

    impl Helpers for Later {
        fn help(&self, job: Job) {
            self.0.send(job).ok();
        }
    }

    fn later() -> (Later, mpsc::Receiver<Job>) {
        let (send, receive) = mpsc::channel();
        (Later(send), receive)
    }

    #[test]
    fn a_transfer_is_carried_out_once_by_whoever_comes_first() {
        assert_eq!(Transfer::begin(&NoHelpers, || Ok(7)).wait().unwrap(), 7);
        let (helpers, jobs) = later();
        let (ran, runs) = mpsc::channel();
        let work = |n: u32| {
            let ran = ran.clone();
            move || ran.send(n).map(|()| n).map_err(io::Error::other)
        };
        let late = Transfer::begin(&helpers, work(1));
        assert_eq!(late.wait().unwrap(), 1);
        let helped = Transfer::begin(&helpers, work(2));
        jobs.try_iter().for_each(|job| job());
        assert_eq!(runs.try_iter().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(helped.wait().unwrap(), 2);
        assert_eq!(runs.try_iter().count(), 0);
    }

    #[test]
    fn a_dropped_transfer_is_over_or_never_takes_place() {
        let (helpers, jobs) = later();
        let (ran, runs) = mpsc::channel();
        drop(Transfer::begin(&helpers, move || ran.send(()).map_err(io::Error::other)));
        jobs.try_iter().for_each(|job| job());
        assert_eq!(runs.try_iter().count(), 0);

        let (begun, has_begun) = mpsc::channel();
        let (go, may_go) = mpsc::channel();
        let over = Arc::new(Mutex::new(false));
        let sets = Arc::clone(&over);
        let running = Transfer::begin(&helpers, move || {
            begun.send(()).map_err(io::Error::other)?;
            may_go.recv().map_err(io::Error::other)?;
            *sets.lock().unwrap() = true;
            Ok(())
        });
        thread::scope(|scope| {
            let job = jobs.try_recv().unwrap();
            scope.spawn(job);
            has_begun.recv().unwrap();
            let dropped = scope.spawn(move || drop(running));
            go.send(()).unwrap();
            dropped.join().unwrap();
            assert!(*over.lock().unwrap());
        });
    }

    #[test]
    fn errors_and_panics_come_to_who_waits() {
        let failed = Transfer::<()>::begin(&NoHelpers, || Err(io::ErrorKind::StorageFull.into()));
        assert_eq!(failed.wait().unwrap_err().kind(), io::ErrorKind::StorageFull);
        let (helpers, jobs) = later();
        let panics = Transfer::<()>::begin(&helpers, || panic!("on purpose"));
        let job = jobs.try_recv().unwrap();
        assert!(catch_unwind(AssertUnwindSafe(job)).is_err());
        assert_eq!(panics.wait().unwrap_err().kind(), io::ErrorKind::Other);
    }
}

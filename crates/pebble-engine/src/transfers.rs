//! The threads that carry out transfers to and from tables beside flushes and merges, which compute meanwhile.
//!
//! Threading: a queue under one lock, of a few transfers for each flush and each run that is merged. Nobody waits for
//! the threads: a transfer that they have not begun is carried out by the one who wants it
//! ([`pebble_vfs::Transfer`]), so there may be none yet, or none any more.

use std::collections::VecDeque;
use std::fmt;
use std::io;

use pebble_vfs::{DirectBuffer, Helpers, Job};

use crate::sync::{Condvar, Mutex, lock, spawn_scoped, thread};

/// The most that are asked of the device at a time, beside what flushes and merges ask for themselves. More than two
/// brought nothing on a device that took two.
pub(crate) const THREADS: usize = 2;

/// Bytes of memory that are kept for transfers to come: of a flush and of a merge at a time.
const SPARE_MAX: usize = 16 << 20;

/// Memory of so many times what is asked for is left to those who need as much, for they would have to get more.
const TOO_LARGE: usize = 4;

/// What waits for the threads.
#[derive(Default)]
pub(crate) struct Transfers {
    queue: Mutex<Queue>,
    bell: Condvar,
    /// Memory of transfers that are over.
    spare: Mutex<Vec<DirectBuffer>>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Threads that wait or will look again. Without any, jobs are not kept.
    threads: usize,
    stopping: bool,
}

impl Transfers {
    /// Carries out transfers until [`Transfers::stop`].
    pub(crate) fn serve(&self) {
        let mut queue = lock(&self.queue);
        queue.threads += 1;
        while !queue.stopping {
            match queue.jobs.pop_front() {
                Some(job) => {
                    drop(queue);
                    job();
                    queue = lock(&self.queue);
                }
                None => queue = self.bell.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner),
            }
        }
        queue.threads -= 1;
    }

    /// Does some work with threads that carry out its transfers, where there are none yet.
    pub(crate) fn beside<T>(&self, work: impl FnOnce() -> T) -> T {
        /// Ends the threads, also when the work panics: the scope waits for them.
        struct Over<'a>(&'a Transfers);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.stop();
            }
        }
        let done = thread::scope(|scope| {
            let _over = Over(self);
            for _ in 0..THREADS {
                // Without a thread the work carries its transfers out itself.
                spawn_scoped(scope, || self.serve()).map(drop).ok();
            }
            work()
        });
        lock(&self.queue).stopping = false;
        done
    }

    /// Gives the memory of transfers that are over back to the system.
    pub(crate) fn trim(&self) {
        lock(&self.spare).clear();
    }

    /// Ends the threads.
    pub(crate) fn stop(&self) {
        let mut queue = lock(&self.queue);
        queue.stopping = true;
        queue.jobs.clear();
        self.bell.notify_all();
    }
}

impl Helpers for Transfers {
    fn lend(&self, len: usize) -> io::Result<DirectBuffer> {
        let mut spare = lock(&self.spare);
        let fits = len..len.saturating_mul(TOO_LARGE);
        let fitting = (0..spare.len()).filter(|at| fits.contains(&spare[*at].bytes().len()));
        match fitting.min_by_key(|at| spare[*at].bytes().len()) {
            Some(at) => Ok(spare.swap_remove(at)),
            None => DirectBuffer::new(len),
        }
    }

    fn give_back(&self, memory: DirectBuffer) {
        let mut spare = lock(&self.spare);
        let kept: usize = spare.iter().map(|memory| memory.bytes().len()).sum();
        if kept + memory.bytes().len() <= SPARE_MAX {
            spare.push(memory);
        }
    }

    fn help(&self, job: Job) {
        let mut queue = lock(&self.queue);
        if queue.threads > 0 && !queue.stopping {
            queue.jobs.push_back(job);
            self.bell.notify_one();
        }
    }
}

impl fmt::Debug for Transfers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = lock(&self.queue);
        f.debug_struct("Transfers")
            .field("waiting", &queue.jobs.len())
            .field("threads", &queue.threads)
            .finish()
    }
}

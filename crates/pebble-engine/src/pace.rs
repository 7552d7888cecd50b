//! Pacing: writers are slowed in proportion to how far flushes and merges are behind, so that there is no cliff.
//!
//! ```text
//!   sealed memtables waiting ─┐                              a byte written costs its writer so much time;
//!                             ├─► picoseconds a byte ─► owed ─► slept off eight milliseconds at a time,
//!   bytes beyond the shape, ──┘                              on one timeline for all writers
//!   less what running merges did
//! ```
//!
//! The cost grows from nothing, and is about that of the flush (or of the merges) itself where the limit is reached:
//! so writers come to go at the pace at which the background can follow. The last resort, waiting for a flush with
//! every memtable full, remains below it, and is hardly ever met.
//!
//! One write in thousands sleeps for all of them. Short sleeps in many writes' stead are no kinder: a kernel makes more
//! than twice its length of one of fifty microseconds, each costs two switches, and a percentile of latency is made of
//! them. While one writer sleeps, others sleep off what they owe with it, and not behind it.
//!
//! After bLSM's "spring and gear" (Sears and Ramakrishnan, SIGMOD 2012), in time instead of progress.
//!
//! A merge of gigabytes changes the tree all at once, when it ends. What it has done counts before that, table by
//! table; else writers would be slowed more and more until then, and not at all right after.
//!
//! Threading: the cost is set after each seal, flush, merge and table of a merge, read by each commit; what is owed
//! lies under the commit lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::core::Core;
use crate::options::{Executor, SEALED_MAX};
use crate::stats::StallReason;

/// What is owed before it is slept off: seldom enough that one write in a thousand does not meet it, and less than the
/// longest write takes anyhow, of a device that is busy.
const SLEEP: Duration = Duration::from_millis(8);

/// What is owed before it is slept off beside a writer that sleeps already.
const SLEEP_BESIDE: Duration = Duration::from_micros(50);

/// Time that has passed since everything was paid counts for what is owed next, up to this: the writer's own work
/// between two sleeps, and a sleep that was too long, never a pause of the writer.
const CREDIT_MAX: Duration = Duration::from_millis(2);

/// What a flush and a merge cost before one was measured, in picoseconds a byte.
const COST_AT_FIRST: u64 = 2_500;

/// How large the debt of merges is, in percent of the tree, when a byte costs what its merges will cost. A tree has
/// none before merges begin; at this debt, lazy leveling has let the bytes above the last level grow to about what it
/// allows. 20 GB of overwrites over 2 GB then take 1.84 times their live bytes at the worst moment. Much less makes
/// writers wait for what a merge will do by itself, much more makes merges large and the pace uneven.
const FULL_COST_AT: u64 = 30;

/// Full memtables that a tree counts for at least: one flush more or less is no debt worth slowing for.
const TREE_MEMTABLES_MIN: u64 = 16;

/// The cost of writing now, and what it is made of.
pub(crate) struct Pace {
    /// Picoseconds a byte, for each reason.
    flush: AtomicU64,
    merge: AtomicU64,
    /// What a byte cost to flush, and to merge, of late.
    flush_cost: AtomicU64,
    merge_cost: AtomicU64,
    /// Bytes by which the tree is beyond its shape, reads and writes of the merges that are due.
    debt: AtomicU64,
    /// Of these, bytes that running merges have read and written.
    done: AtomicU64,
    /// Bytes of the tree that the debt is measured by.
    tree: AtomicU64,
    /// Of the policy.
    last_percent: u64,
}

/// What one running merge has done of the debt; when it ends the tree tells instead. Shared by the merge's parts.
pub(crate) struct MergeProgress<'a> {
    pace: &'a Pace,
    done: AtomicU64,
}

impl MergeProgress<'_> {
    /// A table of so many bytes was written, of about as many that were read.
    pub(crate) fn wrote(&self, bytes: u64) {
        self.done.fetch_add(2 * bytes, Ordering::Relaxed);
        self.pace.done.fetch_add(2 * bytes, Ordering::Relaxed);
        self.pace.charge_debt();
    }
}

impl Drop for MergeProgress<'_> {
    fn drop(&mut self) {
        self.pace.done.fetch_sub(self.done.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// What writers owe; under the commit lock.
#[derive(Default)]
pub(crate) struct Owed {
    picos: u64,
    /// When everything charged so far is slept off.
    free_at: Duration,
}

impl Owed {
    /// Adds so many picoseconds. Until when to sleep, if it is time to.
    #[inline]
    fn charge(&mut self, picos: u64, now: impl FnOnce() -> Duration) -> Option<Duration> {
        self.picos = self.picos.saturating_add(picos);
        let owed = Duration::from_nanos(self.picos / 1_000);
        if owed < SLEEP_BESIDE {
            return None;
        }
        let now = now();
        if owed < SLEEP && self.free_at <= now {
            return None;
        }
        self.picos = 0;
        self.free_at = self.free_at.max(now.saturating_sub(CREDIT_MAX)) + owed;
        Some(self.free_at)
    }
}

impl Pace {
    pub(crate) fn new(last_percent: u32) -> Self {
        Self {
            flush: AtomicU64::new(0),
            merge: AtomicU64::new(0),
            flush_cost: AtomicU64::new(COST_AT_FIRST),
            merge_cost: AtomicU64::new(COST_AT_FIRST),
            debt: AtomicU64::new(0),
            done: AtomicU64::new(0),
            tree: AtomicU64::new(0),
            last_percent: u64::from(last_percent).max(1),
        }
    }

    /// Bytes by which the tree is beyond its shape, without what running merges have done of it.
    pub(crate) fn debt(&self) -> u64 {
        self.debt.load(Ordering::Relaxed).saturating_sub(self.done.load(Ordering::Relaxed))
    }

    /// Sets what writing costs by the debt as it is now.
    fn charge_debt(&self) {
        let percent = part(self.debt(), 100, self.tree.load(Ordering::Relaxed));
        // Each byte that goes down takes its share of the last level along.
        let of_lately = self.merge_cost.load(Ordering::Relaxed);
        let merge_cost = part(of_lately, self.last_percent.saturating_add(100), self.last_percent);
        self.merge.store(part(merge_cost, percent, FULL_COST_AT), Ordering::Relaxed);
    }

    /// What costs writers most now, if anything does.
    fn reason(&self) -> Option<StallReason> {
        let (flush, merge) = (self.flush.load(Ordering::Relaxed), self.merge.load(Ordering::Relaxed));
        match flush.max(merge) {
            0 => None,
            most if most == flush => Some(StallReason::Flush),
            _ => Some(StallReason::Merge),
        }
    }

    #[inline]
    fn cost(&self) -> u64 {
        self.flush.load(Ordering::Relaxed).max(self.merge.load(Ordering::Relaxed))
    }

    /// Notes what a flush of so many bytes took.
    pub(crate) fn flushed(&self, bytes: u64, took: Duration) {
        average(&self.flush_cost, bytes, took);
    }

    /// Notes what a merge of so many bytes took.
    pub(crate) fn merged(&self, bytes: u64, took: Duration) {
        average(&self.merge_cost, bytes, took);
    }
}

/// Moves an average of picoseconds a byte a quarter of the way to a new figure.
fn average(cost: &AtomicU64, bytes: u64, took: Duration) {
    let picos = took.as_nanos().saturating_mul(1_000) / u128::from(bytes.max(1));
    let new = u64::try_from(picos).unwrap_or(u64::MAX).min(1_000_000);
    let old = cost.load(Ordering::Relaxed);
    cost.store((old * 3 + new) / 4, Ordering::Relaxed);
}

/// `of` parts of `parts`.
fn part(whole: u64, of: u64, parts: u64) -> u64 {
    whole.saturating_mul(of) / parts.max(1)
}

impl Core {
    /// Sets what writing costs by the memtables that wait. Cost: a look, so that it may be done under the commit lock.
    pub(crate) fn update_flush_pace(&self) {
        if self.executor == Executor::Threads {
            let cost = self.pace.flush_cost.load(Ordering::Relaxed);
            // With one memtable waiting all is well: it is being flushed.
            let behind = self.state.load().sealed.len().saturating_sub(1) as u64;
            self.pace.flush.store(part(cost, behind, SEALED_MAX as u64 - 1), Ordering::Relaxed);
        }
    }

    /// Sets what writing costs by the present state. Cost: as a plan, some milliseconds for ten thousand tables.
    pub(crate) fn update_pace(&self) {
        if self.executor == Executor::Inline {
            return;
        }
        self.update_flush_pace();
        let version = Arc::clone(&self.state.load().tree.version);
        let pressure = pebble_compaction::pressure(&version, &self.options.policy());
        self.pace.debt.store(pressure.debt_bytes, Ordering::Relaxed);
        let tree = version.len_bytes().saturating_add(self.memtable_len.log as u64 * TREE_MEMTABLES_MIN);
        self.pace.tree.store(tree, Ordering::Relaxed);
        self.pace.charge_debt();
    }

    /// Counts what a merge that begins now does of the debt.
    pub(crate) fn merge_progress(&self) -> MergeProgress<'_> {
        MergeProgress { pace: &self.pace, done: AtomicU64::new(0) }
    }

    /// Charges a write of so many bytes, under the commit lock. What is to be slept off once the lock is free.
    #[inline]
    pub(crate) fn charge(&self, owed: &mut Owed, len: usize) -> Option<Duration> {
        let cost = self.pace.cost();
        if cost == 0 {
            return None;
        }
        owed.charge(cost.saturating_mul(len as u64), || self.clock.now())
    }

    /// Sleeps until what was charged is paid.
    #[cold]
    pub(crate) fn sleep_off(&self, until: Duration) {
        let reason = self.pace.reason().unwrap_or(StallReason::Merge);
        let left = until.saturating_sub(self.clock.now());
        if !left.is_zero() && self.status.check_writable().is_ok() {
            let _slowed = self.counters.stall(&*self.clock, reason);
            self.clock.sleep(left);
        }
    }

    /// Why a write would be held up now, if it would.
    pub(crate) fn would_stall(&self, owed: &Owed) -> Option<StallReason> {
        (owed.free_at > self.clock.now()).then(|| self.pace.reason().unwrap_or(StallReason::Merge))
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::path::Path;

    use pebble_format::{KeyspaceId, Kind};
    use pebble_vfs::{Clock, ManualClock, SimFs};
    use pebble_wal::LogIo;

    use super::*;
    use crate::commit::{Patience, Write};
    use crate::error::Error;
    use crate::open::open;
    use crate::options::{Components, Durability, Options};

    #[test]
    fn one_writer_sleeps_for_all_and_the_others_with_it() {
        let micros = Duration::from_micros;
        let (mut owed, now) = (Owed::default(), micros(1_000_000));
        // Ten microseconds each.
        let mut charge = |now| owed.charge(10_000_000, || now);
        assert!((1..800).all(|_| charge(now).is_none()));
        let until = charge(now).unwrap();
        assert_eq!(until, now + micros(8_000) - CREDIT_MAX);
        // Beside the sleeper each pays what it owes, and sleeps as long.
        assert!((1..5).all(|_| charge(now).is_none()));
        assert_eq!(charge(now), Some(until + micros(50)));
        // They woke late: that much less is slept next.
        let late = until + micros(150);
        assert!((1..800).all(|_| charge(late).is_none()));
        assert_eq!(charge(late), Some(late + micros(8_000 - 100)));
        // A pause counts for no more than such a delay.
        let later = late + micros(1_000_000);
        assert!((1..800).all(|_| charge(later).is_none()));
        assert_eq!(charge(later), Some(later + micros(8_000) - CREDIT_MAX));
    }

    #[test]
    fn who_must_not_be_held_up_never_sleeps_but_is_refused() {
        let options = Options { log_io: LogIo::Write, ..Options::default() };
        let clock = Arc::new(ManualClock::new());
        let components = Components {
            fs: Arc::new(SimFs::new(1)),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            executor: Executor::Inline,
        };
        let core = open(Path::new("/db"), options, components).unwrap();
        core.pace.flush.store(SLEEP.as_nanos() as u64 * 1_000, Ordering::Relaxed);
        let put = |patience| {
            let write = Write::One { keyspace: KeyspaceId::DEFAULT, key: b"k", kind: Kind::Put, value: b"" };
            core.commit_with(write, Durability::Buffered, patience)
        };
        let before = clock.now();
        put(Patience::Refuses).unwrap();
        assert_eq!(clock.now(), before);
        let refused = put(Patience::Refuses).unwrap_err();
        assert!(matches!(refused, Error::Stalled { reason: StallReason::Flush }), "{refused:?}");
        put(Patience::Waits).unwrap();
        assert!(clock.now() >= before + SLEEP);
    }

    #[test]
    fn what_running_merges_have_done_counts_until_they_end() {
        let pace = Pace::new(50);
        pace.debt.store(1_000, Ordering::Relaxed);
        pace.tree.store(10_000, Ordering::Relaxed);
        pace.charge_debt();
        let full = pace.cost();
        assert!(full > 0 && pace.debt() == 1_000);
        let merge = || MergeProgress { pace: &pace, done: AtomicU64::new(0) };
        let (one, other) = (merge(), merge());
        one.wrote(100);
        other.wrote(150);
        assert_eq!((pace.debt(), pace.cost()), (500, full / 2));
        // More than was due: a merge may take tables that no rule asked for.
        other.wrote(10_000);
        assert_eq!((pace.debt(), pace.cost()), (0, 0));
        drop(other);
        assert_eq!(pace.debt(), 800);
        drop(one);
        assert_eq!(pace.debt(), 1_000);
    }
}

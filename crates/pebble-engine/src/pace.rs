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
//! them. While one writer sleeps, others sleep off what they owe with it, and not behind it. All of them go by one
//! timeline, so that many writers come to no more than one; but one that wrote gigabytes, and sleeps for seconds, holds
//! the others a few milliseconds at a time. Whoever sleeps looks now and then whether there is still something to wait
//! for.
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

/// So many times what he owes a writer is held at most for what others do: [`SLEEP`] for who owes [`SLEEP_BESIDE`], and
/// fair among as many writers.
const HELD_MAX: u32 = 160;

/// So long a writer sleeps before it looks again: more than the usual sleep, which is then one.
const LOOK: Duration = Duration::from_millis(20);

/// Time that has passed since everything was paid counts for what is owed next, up to this: the writer's own work
/// between two sleeps, and a sleep that was too long, never a pause of the writer.
const CREDIT_MAX: Duration = Duration::from_millis(2);

/// What a flush and a merge cost before one was measured, in picoseconds a byte.
const COST_AT_FIRST: u64 = 2_500;

/// A flush or a merge of fewer bytes says that much less of what a byte costs: it is mostly syncs.
const TELLING_BYTES: u64 = 16 << 20;

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
    /// Of these, bytes that running merges will have read and written when they end, and that they have by now.
    promised: AtomicU64,
    done: AtomicU64,
    /// Bytes of the tree that the debt is measured by.
    tree: AtomicU64,
    /// Of the policy.
    last_percent: u64,
}

/// What one running merge has done of the debt; when it ends the tree tells instead. Shared by the merge's parts.
pub(crate) struct MergeProgress<'a> {
    pace: &'a Pace,
    /// Bytes that it takes.
    input: u64,
    /// What of the debt is gone when it ends, at most.
    share: u64,
    written: AtomicU64,
    done: AtomicU64,
}

impl MergeProgress<'_> {
    /// A table of so many bytes was written, of about as many that were read.
    pub(crate) fn wrote(&self, bytes: u64) {
        let written = self.written.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let done = part(self.share, written.min(self.input), self.input);
        let before = self.done.fetch_max(done, Ordering::Relaxed);
        self.pace.done.fetch_add(done.saturating_sub(before), Ordering::Relaxed);
        self.pace.charge_debt();
    }
}

impl Drop for MergeProgress<'_> {
    fn drop(&mut self) {
        self.pace.done.fetch_sub(self.done.load(Ordering::Relaxed), Ordering::Relaxed);
        self.pace.promised.fetch_sub(self.share, Ordering::Relaxed);
        // One that failed leaves all of it to be done.
        self.pace.charge_debt();
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
        Some(self.free_at.min(now + owed.saturating_mul(HELD_MAX)))
    }

    /// Forgets it all: nothing is behind any more.
    #[inline]
    fn forget(&mut self) {
        if self.picos != 0 || !self.free_at.is_zero() {
            *self = Self::default();
        }
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
            promised: AtomicU64::new(0),
            done: AtomicU64::new(0),
            tree: AtomicU64::new(0),
            last_percent: u64::from(last_percent).max(1),
        }
    }

    /// Bytes by which the tree is beyond its shape, without what running merges have done of it.
    pub(crate) fn debt(&self) -> u64 {
        self.debt.load(Ordering::Relaxed).saturating_sub(self.done.load(Ordering::Relaxed))
    }

    /// Counts what a merge of so many bytes, which begins now, does of the debt. It may do more than was due, and what
    /// comes meanwhile is not its doing: so it is counted by the part of its input that is done, and as that part of
    /// the debt that there is now and that no other has promised.
    pub(crate) fn progress(&self, input: u64) -> MergeProgress<'_> {
        let due = self.debt.load(Ordering::Relaxed).saturating_sub(self.promised.load(Ordering::Relaxed));
        let share = due.min(input.saturating_mul(2));
        self.promised.fetch_add(share, Ordering::Relaxed);
        MergeProgress { pace: self, input, share, written: AtomicU64::new(0), done: AtomicU64::new(0) }
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

/// Moves an average of picoseconds a byte a quarter of the way to a new figure, and less far for one of few bytes.
fn average(cost: &AtomicU64, bytes: u64, took: Duration) {
    let picos = took.as_nanos().saturating_mul(1_000) / u128::from(bytes.max(1));
    let new = u64::try_from(picos).unwrap_or(u64::MAX).min(1_000_000);
    let old = cost.load(Ordering::Relaxed);
    let (weight, whole) = (bytes.min(TELLING_BYTES), 4 * TELLING_BYTES);
    cost.store(part(old, whole - weight, whole) + part(new, weight, whole), Ordering::Relaxed);
}

/// `of` parts of `parts`.
fn part(whole: u64, of: u64, parts: u64) -> u64 {
    let part = u128::from(whole) * u128::from(of) / u128::from(parts.max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

impl Core {
    /// Sets what writing costs by the memtables that wait. Cost: a look, so that it may be done under the commit lock.
    pub(crate) fn update_flush_pace(&self) {
        if self.executor != Executor::Threads {
            return;
        }
        let mut waiting = self.state.load().sealed.len();
        loop {
            let cost = self.pace.flush_cost.load(Ordering::Relaxed);
            // With one memtable waiting all is well: it is being flushed.
            let behind = waiting.saturating_sub(1) as u64;
            // A writer that seals and a flush may both be here. Who is last has seen what the other did to the state,
            // and looks again.
            self.pace.flush.swap(part(cost, behind, SEALED_MAX as u64 - 1), Ordering::AcqRel);
            let now = self.state.load().sealed.len();
            if now == waiting {
                return;
            }
            waiting = now;
        }
    }

    /// Sets what writing costs by the present state. Cost: as a plan, some milliseconds for ten thousand tables.
    pub(crate) fn update_pace(&self) {
        if self.executor == Executor::Inline {
            return;
        }
        self.update_flush_pace();
        let version = Arc::clone(&self.state.load().tree.version);
        let out_of_reach = self.merges.busy_for_ever();
        let pressure = pebble_compaction::pressure(&version, &out_of_reach, &self.options.policy());
        self.pace.debt.store(pressure.debt_bytes, Ordering::Relaxed);
        let tree = version.len_bytes().saturating_add(self.memtable_len.log as u64 * TREE_MEMTABLES_MIN);
        self.pace.tree.store(tree, Ordering::Relaxed);
        self.pace.charge_debt();
    }

    /// Charges a write of so many bytes, under the commit lock. What is to be slept off once the lock is free.
    #[inline]
    pub(crate) fn charge(&self, owed: &mut Owed, len: usize) -> Option<Duration> {
        let cost = self.pace.cost();
        if cost == 0 {
            owed.forget();
            return None;
        }
        owed.charge(cost.saturating_mul(len as u64), || self.clock.now())
    }

    /// Sleeps until what was charged is paid, or there is nothing to pay for any more.
    #[cold]
    pub(crate) fn sleep_off(&self, until: Duration) {
        let mut slowed = None;
        while let Some(reason) = self.pace.reason() {
            let left = until.saturating_sub(self.clock.now());
            if left.is_zero() || self.status.check_writable().is_err() {
                return;
            }
            slowed.get_or_insert_with(|| self.counters.stall(&*self.clock, reason));
            self.clock.sleep(left.min(LOOK));
        }
    }

    /// Why a write would be held up now, if it would.
    pub(crate) fn would_stall(&self, owed: &Owed) -> Option<StallReason> {
        self.pace.reason().filter(|_| owed.free_at > self.clock.now())
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
        // One that does a fifth of it, and one that takes more than was due: tables that no rule asked for.
        let (one, other) = (pace.progress(100), pace.progress(10_000));
        one.wrote(50);
        other.wrote(5_000);
        assert_eq!((pace.debt(), pace.cost()), (500, full / 2));
        other.wrote(5_000);
        one.wrote(60);
        assert_eq!((pace.debt(), pace.cost()), (0, 0));
        // What came meanwhile is nobody's yet.
        pace.debt.store(1_300, Ordering::Relaxed);
        other.wrote(9_000);
        assert_eq!(pace.debt(), 300);
        drop(other);
        assert_eq!(pace.debt(), 1_100);
        drop(one);
        assert_eq!((pace.debt(), pace.promised.load(Ordering::Relaxed)), (1_300, 0));
    }

    #[test]
    fn many_writers_come_to_no_more_than_one() {
        let millis = Duration::from_millis;
        let (mut owed, now) = (Owed::default(), millis(1_000));
        // Eight at once, each of whom owes seven milliseconds.
        let until: Vec<_> = (0..8).filter_map(|_| owed.charge(7_000_000_000, || now)).collect();
        assert_eq!(until.last(), Some(&(now + millis(8 * 7) - CREDIT_MAX)));
    }

    #[test]
    fn one_that_wrote_much_holds_the_others_no_longer_than_is_usual() {
        let millis = Duration::from_millis;
        let (mut owed, now) = (Owed::default(), millis(1_000));
        let picos = |time: Duration| u64::try_from(time.as_nanos() * 1_000).unwrap();
        assert_eq!(owed.charge(picos(millis(3_000)), || now), Some(now + millis(3_000) - CREDIT_MAX));
        assert_eq!(owed.charge(picos(SLEEP_BESIDE), || now), Some(now + SLEEP));
        owed.forget();
        assert_eq!(owed.charge(picos(SLEEP_BESIDE), || now), None);
    }

    #[test]
    fn few_bytes_say_little_of_what_a_byte_costs() {
        let cost = AtomicU64::new(COST_AT_FIRST);
        for _ in 0..10 {
            average(&cost, 4 << 10, Duration::from_millis(4));
        }
        assert!(cost.load(Ordering::Relaxed) < 2 * COST_AT_FIRST);
        for _ in 0..10 {
            average(&cost, 64 << 20, Duration::from_millis(671));
        }
        assert!((9_500..10_000).contains(&cost.load(Ordering::Relaxed)));
    }
}

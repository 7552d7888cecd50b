//! Which merges run: who reads which tables, so that no two take the same one.
//!
//! ```text
//!   next ─► plan(version, busy) ─► Running { its tables are busy } ─► … install … ─► dropped: free again
//! ```
//!
//! A plan is made and its tables are marked under one lock; they are freed after the outcome was installed, or given
//! up. So a table that is in the tree and not busy is nobody's, and a version read under the lock is fit to plan
//! with.
//!
//! Threading: any number of workers. The lock is held while a plan is made, never while a merge runs.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, PoisonError};

use pebble_compaction::{Busy, Plan};
use pebble_format::FileName;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::state::Tree;
use crate::sync::thread::{ThreadId, current};
use crate::sync::{Condvar, Mutex, MutexGuard, lock};

/// The merges that run now.
#[derive(Default)]
pub(crate) struct Merges {
    state: Mutex<State>,
    /// Rung when one has ended.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    busy: Busy,
    running: usize,
    /// Tables in which a merge met damage, and what it met: no merge takes them again.
    set_aside: BTreeMap<u64, Error>,
    /// The threads that are telling a user how far a merge of his is.
    telling: Vec<ThreadId>,
    /// No further one begins.
    closed: bool,
}

/// One merge: its plan, and the tree that the plan was made for.
pub(crate) struct Running<'a> {
    merges: &'a Merges,
    pub(crate) plan: Plan,
    pub(crate) tree: Arc<Tree>,
}

impl Core {
    /// Begins the merge that `choose` plans for the present tree.
    pub(crate) fn next_merge(
        &self,
        choose: impl FnOnce(&Tree, &Busy) -> Option<Plan>,
    ) -> Result<Option<Running<'_>>> {
        let mut state = lock(&self.merges.state);
        if state.closed {
            return Err(Error::Closed);
        }
        self.status.check_writable()?;
        let tree = Arc::clone(&self.state.load().tree);
        let Some(plan) = choose(&tree, &state.taken()) else { return Ok(None) };
        state.busy.insert(&plan);
        state.running += 1;
        Ok(Some(Running { merges: &self.merges, plan, tree }))
    }
}

impl Merges {
    /// Runs `change` while no merge begins or ends; it is given the tables that merges have, without those that are set
    /// aside: what leaves the tree unread may be damaged. It may take the locks of an install.
    pub(crate) fn with_busy<T>(&self, change: impl FnOnce(&Busy) -> T) -> T {
        change(&lock(&self.state).busy)
    }

    /// The tables that are set aside, as if a merge had them that never ends.
    pub(crate) fn busy_for_ever(&self) -> Busy {
        lock(&self.state).set_aside_as_busy()
    }

    /// Keeps merges off the table that an error of one names, so that what is damaged is not read again and again.
    /// Says whether it names one.
    pub(crate) fn set_table_aside(&self, error: &Error) -> bool {
        let file = match error {
            Error::Corruption(found) => &found.file,
            Error::MissingFile { file } => file,
            _ => return false,
        };
        let Some(FileName::Table(number)) = FileName::parse(file) else { return false };
        lock(&self.state).set_aside.insert(number, error.clone());
        true
    }

    /// Keeps merges from moving what a table of values holds.
    pub(crate) fn set_values_aside(&self, number: u64, error: Error) {
        lock(&self.state).set_aside.insert(number, error);
    }

    /// The numbers of the tables that are set aside, of runs and of values.
    pub(crate) fn set_aside(&self) -> Vec<u64> {
        lock(&self.state).set_aside.keys().copied().collect()
    }

    /// What was met in the first table that is set aside.
    pub(crate) fn first_set_aside(&self) -> Option<Error> {
        lock(&self.state).set_aside.values().next().cloned()
    }

    /// How many run now.
    pub(crate) fn running(&self) -> usize {
        lock(&self.state).running
    }

    /// Calls what a user wants to be told by. What it calls must not wait for merges, since the one that tells goes on
    /// when it returns: see [`Merges::check_may_wait`].
    pub(crate) fn tell<T>(&self, watch: impl FnOnce() -> T) -> T {
        let thread = current().id();
        lock(&self.state).telling.push(thread);
        let _told = Told { merges: self, thread };
        watch()
    }

    /// Errors: `InvalidArgument` in a thread that [tells](Merges::tell), which would wait for itself.
    pub(crate) fn check_may_wait(&self) -> Result<()> {
        if lock(&self.state).telling.contains(&current().id()) {
            return Err(Error::invalid("a compaction cannot be waited for by what it tells how far it is"));
        }
        Ok(())
    }

    /// Waits until one of those that run now has ended; false if none runs.
    pub(crate) fn wait_for_one(&self) -> bool {
        let state = lock(&self.state);
        if state.running == 0 {
            return false;
        }
        drop(self.wait(state));
        true
    }

    /// Lets no further one begin, and waits for those that run. They have been told to stop.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        while state.running > 0 {
            state = self.wait(state);
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.ended.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The tables that no further merge may take.
    fn taken(&self) -> Cow<'_, Busy> {
        if self.set_aside.is_empty() {
            return Cow::Borrowed(&self.busy);
        }
        let mut taken = self.set_aside_as_busy();
        taken.join(&self.busy);
        Cow::Owned(taken)
    }

    fn set_aside_as_busy(&self) -> Busy {
        self.set_aside.keys().copied().collect()
    }
}

impl Running<'_> {
    /// Bytes of the tables that it takes.
    pub(crate) fn len_bytes(&self) -> u64 {
        let taken: HashSet<u64> = self.plan.tables().collect();
        let tables = self.tree.version.tables().filter(|meta| taken.contains(&meta.number));
        tables.map(|meta| meta.len).sum()
    }
}

/// See [`Merges::tell`].
struct Told<'a> {
    merges: &'a Merges,
    thread: ThreadId,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.merges.state);
        if let Some(at) = state.telling.iter().position(|thread| *thread == self.thread) {
            state.telling.swap_remove(at);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.merges.state);
        state.busy.remove(&self.plan);
        state.running -= 1;
        self.merges.ended.notify_all();
    }
}

//! The model: a map for each keyspace, copied for each snapshot.
//!
//! Threading: one run's own.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::ops::{Bounds, NAMES, Step, Write};

pub type Bytes = Arc<[u8]>;
pub type Map = BTreeMap<Bytes, Bytes>;

/// What all keyspaces hold at one moment, by the number of the keyspace.
#[derive(Clone, Default)]
pub struct State {
    spaces: Vec<Arc<Map>>,
}

impl State {
    /// What a keyspace holds; nothing if it was made later.
    pub fn space(&self, number: usize) -> Arc<Map> {
        self.spaces.get(number).cloned().unwrap_or_default()
    }
}

/// What the database should hold.
#[derive(Default)]
pub struct World {
    pub now: State,
    /// By name: the number of the keyspace that has it now.
    named: [Option<usize>; NAMES.len()],
    /// The numbers of those that were dropped since the last open.
    pub dropped: Vec<usize>,
    pub snapshots: Vec<State>,
    pub iters: Vec<Expected>,
    pub held: Vec<Bytes>,
    /// Records written, range deletes included.
    pub written: u64,
    /// By number: whether a keyspace was ever written to.
    touched: Vec<bool>,
    /// Whether one was ever dropped: another may have its number after a reopen, and count its remains.
    any_dropped: bool,
}

impl World {
    /// The number of the keyspace with this name, which is made where it is not there. Numbers are given out in order.
    pub fn number(&mut self, name: usize) -> usize {
        *self.named[name].get_or_insert_with(|| {
            self.now.spaces.push(Arc::default());
            self.touched.push(false);
            self.now.spaces.len() - 1
        })
    }

    /// The keyspaces that exist, by name: their numbers.
    pub fn existing(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.named.iter().enumerate().filter_map(|(name, number)| Some((name, (*number)?)))
    }

    /// Whether there was one.
    pub fn drop_space(&mut self, name: usize) -> bool {
        let Some(number) = self.named[name].take() else { return false };
        self.now.spaces[number] = Arc::default();
        self.any_dropped = true;
        self.dropped.push(number);
        true
    }

    /// What goes with the process: snapshots, iterators, handles of dropped keyspaces. Keyspaces are numbered anew.
    pub fn reopen(&mut self) {
        self.snapshots.clear();
        self.iters.clear();
        self.dropped.clear();
        let (mut spaces, mut touched) = (Vec::new(), Vec::new());
        for number in self.named.iter_mut().flatten() {
            spaces.push(self.now.space(*number));
            touched.push(self.touched[*number]);
            *number = spaces.len() - 1;
        }
        (self.now.spaces, self.touched) = (spaces, touched);
    }

    /// Counts a record, and gives what it changes.
    fn write(&mut self, name: usize) -> &mut Map {
        let number = self.number(name);
        self.written += 1;
        self.touched[number] = true;
        Arc::make_mut(&mut self.now.spaces[number])
    }

    /// Whether nothing was ever written to the keyspace with this number, nor to another that had its number.
    pub fn is_fresh(&self, number: usize) -> bool {
        !self.touched[number] && !self.any_dropped
    }

    pub fn apply(&mut self, write: &Write) {
        match write {
            Write::Put { space, key, value } => {
                self.write(*space).insert(key[..].into(), value[..].into());
            }
            Write::Delete { space, key } => {
                self.write(*space).remove(&key[..]);
            }
            Write::DeleteRange { space, bounds } => self.retain(*space, |key| !within(bounds, key)),
            Write::DeletePrefix { space, prefix } => self.retain(*space, |key| !key.starts_with(prefix)),
        }
    }

    pub fn clear(&mut self, space: usize) {
        self.retain(space, |_| false);
    }

    fn retain(&mut self, space: usize, stays: impl Fn(&[u8]) -> bool) {
        self.write(space).retain(|key, _| stays(key));
    }

    /// The snapshot that was asked for, by its place among those that are held, and the state that it has.
    pub fn at(&self, snapshot: Option<usize>) -> (Option<usize>, &State) {
        let place = snapshot.filter(|_| !self.snapshots.is_empty()).map(|at| at % self.snapshots.len());
        (place, place.map_or(&self.now, |place| &self.snapshots[place]))
    }
}

/// Whether a key lies within bounds, in so many words.
pub fn within((low, high): &Bounds, key: &[u8]) -> bool {
    let above = match low {
        Bound::Unbounded => true,
        Bound::Included(low) => key >= low.as_slice(),
        Bound::Excluded(low) => key > low.as_slice(),
    };
    let below = match high {
        Bound::Unbounded => true,
        Bound::Included(high) => key <= high.as_slice(),
        Bound::Excluded(high) => key < high.as_slice(),
    };
    above && below
}

pub fn select(map: &Map, wanted: impl Fn(&[u8]) -> bool) -> Vec<(Bytes, Bytes)> {
    map.iter().filter(|(key, _)| wanted(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// What an iterator should give: the entries `front..back` of a list are to come.
pub struct Expected {
    entries: Vec<(Bytes, Bytes)>,
    front: usize,
    back: usize,
}

impl Expected {
    pub fn new(entries: Vec<(Bytes, Bytes)>) -> Self {
        Self { front: 0, back: entries.len(), entries }
    }

    /// What the step gives; a seek gives nothing.
    pub fn step(&mut self, step: &Step) -> Option<(Bytes, Bytes)> {
        match step {
            Step::Seek(key) => self.front = self.entries.partition_point(|(found, _)| **found < **key),
            Step::SeekForPrev(key) => self.back = self.entries.partition_point(|(found, _)| **found <= **key),
            Step::Next if self.front < self.back => {
                self.front += 1;
                return Some(self.entries[self.front - 1].clone());
            }
            Step::NextBack if self.front < self.back => {
                self.back -= 1;
                return Some(self.entries[self.back].clone());
            }
            Step::Next | Step::NextBack => {}
        }
        None
    }
}

//! The tables of values of one tree: how a reference is followed, and which of them are worth getting rid of.
//!
//! ```text
//!   runs     k1 ─► #7:0   k2 = …   k3 ─► #9:4096     each table says how much of #7 and #9 its records refer to
//!   values   #7  ▓▓░░░░░░   of 64 MiB 16 are alive: merges write them anew, and then it goes
//!            #9  ▓▓▓▓▓▓▓░   stays as it is
//! ```
//!
//! A table of values goes with the edit that takes the last reference to it out of the tree, and never before; so a
//! reader, whose picture has both, always finds what a reference leads to. Until half of it is dead nothing of it is
//! copied: with values that die at random, each living byte is then written once more for each byte that comes back.
//!
//! Threading: immutable, a part of a [`Tree`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use pebble_format::manifest::LAST_LEVEL;
use pebble_format::{FileName, PinnedRecord, RecordRef, Reference};
use pebble_manifest::Version;
use pebble_sstable::Table;

use crate::state::{RunTables, Tree};

/// A table is wasteful when it has more than so many parts in a hundred of bytes that nobody refers to.
const DEAD_PERCENT: u128 = 50;

/// Tables that refer to wasteful ones are merged for that alone when so many parts in a hundred of the bytes of all
/// values could come back: fewer are left to the merges that come anyway, for it is every table of references that may
/// have to be written for one of values.
const WORTH_PERCENT: u128 = 10;

/// So many tables of values that are small, and of one size, are gathered as if they were wasteful.
const CRUMBS_MIN: usize = 16;
/// They are of one size when they are of one power of this.
const CRUMB_CLASS: u64 = 16;

/// See the [module](self).
#[derive(Default)]
pub(crate) struct Values {
    /// Ascending.
    numbers: Box<[u64]>,
    tables: Box<[Arc<Table>]>,
    /// Of each, the bytes of values that the tree refers to.
    live: Box<[u64]>,
    /// Of each, whether a table above the last level refers to it.
    above: Box<[bool]>,
}

/// What is to be known of one table of values.
struct Value {
    number: u64,
    /// Of all values, and of those that are alive.
    bytes: u64,
    live: u64,
    /// Whether only the last level refers to it.
    is_deep: bool,
}

impl Value {
    fn dead(&self) -> u64 {
        self.bytes - self.live
    }

    fn is_wasteful(&self) -> bool {
        u128::from(self.dead()) * 100 > u128::from(self.bytes) * DEAD_PERCENT
    }
}

impl Values {
    /// Of `tables`, ascending by number, and of what the tables of `runs` refer to, which are those of `version`.
    pub(crate) fn new(tables: Vec<Arc<Table>>, version: &Version, runs: &[RunTables]) -> Self {
        let mut known: HashMap<u64, (u64, bool)> = HashMap::new();
        for (run, of_run) in version.runs().zip(runs) {
            for referred in of_run.iter().flat_map(|table| &table.info().referred) {
                let (live, above) = known.entry(referred.table).or_default();
                *live = live.saturating_add(referred.bytes);
                *above |= run.level() < LAST_LEVEL;
            }
        }
        let of = |table: &Arc<Table>| known.get(&table.number()).copied().unwrap_or_default();
        Self {
            numbers: tables.iter().map(|table| table.number()).collect(),
            live: tables.iter().map(|table| of(table).0).collect(),
            above: tables.iter().map(|table| of(table).1).collect(),
            tables: tables.into(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// The tables, ascending by number.
    pub(crate) fn tables(&self) -> &[Arc<Table>] {
        &self.tables
    }

    #[inline]
    pub(crate) fn get(&self, number: u64) -> Option<&Arc<Table>> {
        self.tables.get(self.numbers.binary_search(&number).ok()?)
    }

    /// The record that another one refers to: of the same key and number, with the value. Cost: a search among the
    /// tables, then as [`Table::referred`].
    ///
    /// Errors: `Corruption`, `MissingFile`, `Io`.
    #[inline(never)]
    pub(crate) fn follow(&self, record: RecordRef<'_>) -> pebble_format::Result<PinnedRecord> {
        let (table, reference) = self.referred(record)?;
        table.referred(reference, record.internal_key())
    }

    /// As [`Values::follow`], for one who moves the value or checks it; see [`Table::referred_once`].
    pub(crate) fn follow_once(&self, record: RecordRef<'_>) -> pebble_format::Result<PinnedRecord> {
        let (table, reference) = self.referred(record)?;
        table.referred_once(reference, record.internal_key())
    }

    fn referred<'a>(&self, record: RecordRef<'a>) -> pebble_format::Result<(&Arc<Table>, &'a Reference)> {
        let reference = Reference::read(record.value())?;
        let number = reference.table.get();
        match self.get(number) {
            Some(table) => Ok((table, reference)),
            None => Err(missing(number)),
        }
    }

    /// Follows every reference of a table, which was found right by itself, and gives the first error. Cost: a walk
    /// over its records, and the checksum of each value; neither counts as reading.
    pub(crate) fn verify(&self, table: &Arc<Table>) -> pebble_format::Result<()> {
        if table.info().referred.is_empty() {
            return Ok(());
        }
        table.each_once(&mut |record| {
            if record.is_reference() {
                self.follow_once(record)?;
            }
            Ok(())
        })
    }

    /// Bytes of values in all tables, and how many of them nobody refers to.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let sum = |(all, dead): (u64, u64), of: Value| {
            (all.saturating_add(of.bytes), dead.saturating_add(of.dead()))
        };
        self.each().fold((0, 0), sum)
    }

    fn each(&self) -> impl Iterator<Item = Value> {
        let all = self.tables.iter().zip(&self.live).zip(&self.above);
        all.map(|((table, live), above)| {
            let bytes = table.info().value_bytes;
            Value { number: table.number(), bytes, live: bytes.min(*live), is_deep: !above }
        })
    }

    /// The numbers of those that nobody refers to.
    pub(crate) fn unreferred(&self) -> Vec<u64> {
        let numbers = self.numbers.iter().zip(&self.live);
        numbers.filter(|(_, live)| **live == 0).map(|(number, _)| *number).collect()
    }

    /// The small ones, if there are many of one size, and tables that refer to them are so few that they come to be
    /// of a larger one: so each value is gathered a few times, and no more. Ascending.
    fn crumbs(&self, largest: u64, referring: impl Fn(&[u64]) -> usize) -> Vec<u64> {
        let mut classes: BTreeMap<u32, (Vec<u64>, u64)> = BTreeMap::new();
        for value in self.each().filter(|value| value.is_deep && value.bytes <= largest) {
            let (numbers, bytes) = classes.entry(value.bytes.max(1).ilog(CRUMB_CLASS)).or_default();
            numbers.push(value.number);
            *bytes = bytes.saturating_add(value.live);
        }
        let gathers = |class: u32, numbers: &[u64], bytes: u64| {
            let larger = CRUMB_CLASS.saturating_pow(class + 1);
            numbers.len() >= CRUMBS_MIN && bytes >= larger.saturating_mul(referring(numbers) as u64)
        };
        let due = classes.into_iter().find(|(class, (numbers, bytes))| gathers(*class, numbers, *bytes));
        due.map(|(_, (numbers, _))| numbers).unwrap_or_default()
    }
}

impl Tree {
    /// The tables of values that merges rid themselves of, ascending: those that are mostly dead, and crumbs of at most
    /// so many bytes. Without those in `but`.
    pub(crate) fn wasteful_values(&self, crumb_bytes: u64, but: &[u64]) -> Vec<u64> {
        if self.values.is_empty() {
            return Vec::new();
        }
        let dead = self.values.each().filter(Value::is_wasteful).map(|value| value.number);
        let referring = |numbers: &[u64]| self.run_tables().filter(|table| refers_to(table, numbers)).count();
        let mut numbers: Vec<u64> = dead.chain(self.values.crumbs(crumb_bytes, referring)).collect();
        numbers.retain(|number| !but.contains(number));
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// The tables of the runs that are to be merged to get rid of those, ascending. Without `however_little`, only to
    /// get rid of crumbs, or where it is worth it for what comes back, which is nothing of a table of values that one
    /// refers to which this does not give: one above the last level, or in `but`.
    pub(crate) fn wasteful_tables(&self, crumb_bytes: u64, but: &[u64], however_little: bool) -> Vec<u64> {
        let mut wasteful = self.wasteful_values(crumb_bytes, but);
        if wasteful.is_empty() {
            return wasteful;
        }
        if !however_little {
            let stays = |number: &u64| {
                let mut set_aside = self.run_tables().filter(|table| but.contains(&table.number()));
                set_aside.any(|table| refers_to(table, std::slice::from_ref(number)))
            };
            let mut frees: Vec<Value> = self.values.each().filter(|value| value.is_deep).collect();
            frees.retain(|value| wasteful.binary_search(&value.number).is_ok() && !stays(&value.number));
            let dead: u128 =
                frees.iter().filter(|value| value.is_wasteful()).map(|value| u128::from(value.dead())).sum();
            if dead * 100 < u128::from(self.values.bytes().0) * WORTH_PERCENT {
                frees.retain(|value| !value.is_wasteful());
            }
            wasteful = frees.into_iter().map(|value| value.number).collect();
        }
        let tables =
            self.run_tables().filter(|table| !but.contains(&table.number()) && refers_to(table, &wasteful));
        let mut numbers: Vec<u64> = tables.map(|table| table.number()).collect();
        numbers.sort_unstable();
        numbers
    }
}

fn missing(number: u64) -> pebble_format::Error {
    pebble_format::Error::MissingFile { file: FileName::Table(number).to_string().into() }
}

/// Whether records of a table refer to one of those with these numbers, which ascend.
pub(crate) fn refers_to(table: &Table, numbers: &[u64]) -> bool {
    table.info().referred.iter().any(|referred| numbers.binary_search(&referred.table).is_ok())
}

/// The first table of values that a table of the tree refers to and the version does not have.
pub(crate) fn first_missing(version: &Version, table: &Table) -> Option<u64> {
    let mut referred = table.info().referred.iter().map(|referred| referred.table);
    referred.find(|number| version.value(*number).is_none())
}

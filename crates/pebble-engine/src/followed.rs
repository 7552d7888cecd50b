//! What is left of a table, with the values that it refers to: a cursor for salvage and repair.
//!
//! ```text
//!   k1 ─► #7, whole              as it is: #7 is taken over
//!   k2 ─► #8, damaged elsewhere  the record with its value, to be written anew
//!   k3 ─► #8, damaged here       a tombstone, and the key is noted; or nothing, where an older version is to show
//! ```
//!
//! Threading: one thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use pebble_cursor::{Cursor, Direction};
use pebble_format::{Error, FileName, InternalKey, Kind, PinnedRecord, RecordRef, Reference, Result};
use pebble_sstable::{RemainsCursor, Table};

use crate::doubt::UserKey;
use crate::sorted::record_of;
use crate::survey::Found;

/// The tables of values that are left, and which values turn out to be lost.
pub(crate) struct Following {
    /// Whether it can be taken over as it is, and the table.
    tables: BTreeMap<u64, (bool, Arc<Table>)>,
    older: bool,
    lost: RefCell<BTreeMap<UserKey, Error>>,
}

/// What becomes of a reference.
enum Fate {
    Stays,
    Becomes(PinnedRecord),
    Goes,
}

impl Following {
    /// With `older`, of a key whose value is lost an older version shows.
    pub(crate) fn new(values: &BTreeMap<u64, Found>, older: bool) -> Rc<Self> {
        let table = |found: &Found| (found.is_whole, Arc::clone(found.remains.table()));
        let tables = values.iter().map(|(number, found)| (*number, table(found))).collect();
        Rc::new(Self { tables, older, lost: RefCell::default() })
    }

    /// The keys whose values are lost, and why.
    pub(crate) fn lost(&self) -> BTreeMap<UserKey, Error> {
        self.lost.take()
    }

    fn fate(&self, record: RecordRef<'_>) -> Result<Fate> {
        let reference = Reference::read(record.value())?;
        let number = reference.table.get();
        let error = match self.tables.get(&number) {
            Some((true, _)) => return Ok(Fate::Stays),
            Some((false, table)) => match table.referred_once(reference, record.internal_key()) {
                Ok(found) => return Ok(Fate::Becomes(found)),
                Err(error) if error.is_corruption() => error,
                // What cannot be read now may be read later.
                Err(error) => return Err(error),
            },
            None => Error::MissingFile { file: FileName::Table(number).to_string().into() },
        };
        self.lost.borrow_mut().insert((record.keyspace(), record.key().into()), error);
        if self.older {
            return Ok(Fate::Goes);
        }
        let tombstone = record_of(record.keyspace(), record.key(), record.seqno(), Kind::Delete, b"");
        tombstone.map(Fate::Becomes).map_err(|error| Error::invalid(error.to_string()))
    }
}

/// See the [module](self).
pub(crate) struct Followed {
    cursor: RemainsCursor,
    following: Rc<Following>,
    /// What stands in the place of the record under the cursor.
    instead: Option<PinnedRecord>,
}

impl Followed {
    pub(crate) fn new(cursor: RemainsCursor, following: Rc<Following>) -> Self {
        Self { cursor, following, instead: None }
    }

    /// Decides what to show for the record under the cursor; goes on in `direction` where that is nothing.
    fn settle(&mut self, direction: Direction) -> Result<()> {
        self.instead = None;
        while let Some(record) = self.cursor.record().filter(|record| record.is_reference()) {
            match self.following.fate(record)? {
                Fate::Stays => break,
                Fate::Becomes(found) => {
                    self.instead = Some(found);
                    break;
                }
                Fate::Goes => match direction {
                    Direction::Forward => self.cursor.next()?,
                    Direction::Backward => self.cursor.prev()?,
                },
            }
        }
        Ok(())
    }
}

impl Cursor for Followed {
    fn first(&mut self) -> Result<()> {
        self.cursor.first()?;
        self.settle(Direction::Forward)
    }

    fn last(&mut self) -> Result<()> {
        self.cursor.last()?;
        self.settle(Direction::Backward)
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.cursor.seek(target)?;
        self.settle(Direction::Forward)
    }

    fn seek_before(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.cursor.seek_before(target)?;
        self.settle(Direction::Backward)
    }

    fn next(&mut self) -> Result<()> {
        self.cursor.next()?;
        self.settle(Direction::Forward)
    }

    fn prev(&mut self) -> Result<()> {
        self.cursor.prev()?;
        self.settle(Direction::Backward)
    }

    fn record(&self) -> Option<RecordRef<'_>> {
        self.instead.as_ref().map_or_else(|| self.cursor.record(), |record| Some(record.record()))
    }

    fn pinned(&self) -> Option<PinnedRecord> {
        self.instead.clone().or_else(|| self.cursor.pinned())
    }
}

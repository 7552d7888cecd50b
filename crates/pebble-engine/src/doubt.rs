//! What a salvaged database cannot vouch for: keys whose newest version may have been in bytes that are lost.
//!
//! ```text
//!   lost block      keys between its neighbours that the table's point index led to it; all of them, if it has none
//!   lost table      every key within the bounds that the manifest has of it
//!   lost value      its key, which the record that refers to it has
//!   lost frame      the keys that its bytes name; if one byte is wrong, what was written is among them
//! ```
//!
//! A key in doubt that has an older version elsewhere gets a tombstone in the place of what is lost, so that nobody is
//! shown a value that may be stale: see [`Doubts::tombstones`]. A read of it is an error where the database is open for
//! salvage.
//!
//! Threading: plain data.

use std::collections::BTreeMap;
use std::sync::Arc;

use pebble_cursor::{Cursor, RangeDelete, ends_behind};
use pebble_format::{Corruption, InternalKey, KeyspaceId, Kind, OwnedKey, PinnedRecord, Seqno};
use pebble_manifest::TableMeta;
use pebble_sstable::Remains;

use crate::error::{Error, Result};
use crate::sorted::{Sorted, record_of};

/// A keyspace and a user key.
pub(crate) type UserKey = (KeyspaceId, Box<[u8]>);

/// The file and the offset of a lost frame.
pub(crate) type FrameAt = (Box<str>, u64);

/// See the [module](self).
#[derive(Clone, Default)]
pub(crate) struct Doubts {
    /// Tables of which blocks are lost.
    pub(crate) parts: Vec<Arc<Remains>>,
    /// Tables that are lost.
    pub(crate) tables: Vec<TableMeta>,
    /// Keys of lost frames.
    pub(crate) keys: BTreeMap<UserKey, FrameAt>,
    /// Range deletes of lost frames.
    pub(crate) ranges: Vec<(RangeDelete, FrameAt)>,
    /// Keys whose values lay in tables of values where they cannot be read any more.
    pub(crate) values: BTreeMap<UserKey, pebble_format::Error>,
}

impl Doubts {
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
            && self.tables.is_empty()
            && self.keys.is_empty()
            && self.ranges.is_empty()
            && self.values.is_empty()
    }

    /// `Ok` if the absence of a key is certain.
    pub(crate) fn check(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<()> {
        let in_log = |file: &str, offset: u64| -> Result<()> {
            Err(Corruption::new("log frame", offset, 0, 0).in_file(file).into())
        };
        if let Some((file, offset)) = self.keys.get(&(keyspace, Box::from(key))) {
            return in_log(file, *offset);
        }
        if let Some(error) = self.values.get(&(keyspace, Box::from(key))) {
            return Err(error.clone().into());
        }
        for (range, (file, offset)) in &self.ranges {
            if range.covers(keyspace, key) {
                return in_log(file, *offset);
            }
        }
        for part in &self.parts {
            if let Some(lost) = part.lost().first().filter(|_| part.may_have_lost(keyspace, key)) {
                return Err(lost.error.clone().into());
            }
        }
        match self.tables.iter().find(|meta| may_hold(meta, keyspace, key)) {
            Some(meta) => {
                let file = pebble_format::FileName::Table(meta.number).to_string();
                Err(Error::MissingFile { file: file.into() })
            }
            None => Ok(()),
        }
    }
}

fn may_hold(meta: &TableMeta, keyspace: KeyspaceId, key: &[u8]) -> bool {
    meta.starts() <= (keyspace, key) && !meta.ends_before(keyspace, key)
}

/// A place where keys were lost, and the newest number that any of them had.
pub(crate) enum Hole<'a> {
    Part(&'a Remains),
    Table(&'a TableMeta),
}

impl Hole<'_> {
    fn seqno(&self) -> Seqno {
        match self {
            Self::Part(remains) => remains.table().info().seqno_max,
            Self::Table(meta) => meta.seqno_max,
        }
    }

    fn may_have_lost(&self, keyspace: KeyspaceId, key: &[u8]) -> bool {
        match self {
            Self::Part(remains) => remains.may_have_lost(keyspace, key),
            Self::Table(meta) => may_hold(meta, keyspace, key),
        }
    }

    /// From where to where keys may be lost, both included; no end means all that follows.
    fn spans(&self) -> Vec<(OwnedKey, Option<OwnedKey>)> {
        match self {
            Self::Part(remains) => {
                remains.gaps().map(|(from, to)| (OwnedKey::new(from), Some(OwnedKey::new(to)))).collect()
            }
            Self::Table(meta) => vec![(meta.first.clone(), meta.reach.is_none().then(|| meta.last.clone()))],
        }
    }
}

/// Tombstones for the keys that a hole may have held a newer version of than `rest`, which is all that is left of the
/// database. They stand at the hole's newest number: above every version that they hide.
///
/// That number is of the whole hole, so it may be above that of a version that is newer than what was lost of its key.
/// `newer`, which is what is left of the runs before the hole's, tells where the order of runs is known: a key that is
/// there gets no tombstone.
pub(crate) fn tombstones<C: Cursor>(hole: &Hole<'_>, rest: &mut C, mut newer: Option<C>) -> Result<Sorted> {
    let seqno = hole.seqno();
    let mut found: Vec<PinnedRecord> = Vec::new();
    for (from, to) in hole.spans() {
        let from = from.as_ref();
        rest.seek(InternalKey::lookup(from.keyspace, from.user_key, Seqno::MAX))?;
        let mut last: Option<OwnedKey> = None;
        while let Some(record) = rest.record() {
            let key = record.internal_key();
            let beyond = match (&to, hole) {
                (Some(to), _) => key.cmp_user(&to.as_ref()).is_gt(),
                (None, Hole::Table(meta)) => {
                    let reach = meta.reach.as_deref().unwrap_or_default();
                    key.keyspace > meta.last.as_ref().keyspace
                        || key.keyspace == meta.last.as_ref().keyspace && !ends_behind(reach, key.user_key)
                }
                (None, Hole::Part(_)) => false,
            };
            if beyond {
                break;
            }
            // The newest version that is left decides.
            let is_newest = !last.as_ref().is_some_and(|last| last.as_ref().same_key(&key));
            if is_newest {
                last = Some(OwnedKey::new(key));
                let shows = !record.is_tombstone() && record.seqno() < seqno;
                if shows
                    && hole.may_have_lost(key.keyspace, key.user_key)
                    && !newer.as_mut().map_or(Ok(false), |newer| holds(newer, key))?
                {
                    found.push(record_of(key.keyspace, key.user_key, seqno, Kind::Delete, b"")?);
                }
            }
            rest.next()?;
        }
    }
    Ok(Sorted::new(found))
}

/// Whether there is any version of a key.
fn holds(cursor: &mut impl Cursor, key: InternalKey<'_>) -> Result<bool> {
    cursor.seek(InternalKey::lookup(key.keyspace, key.user_key, Seqno::MAX))?;
    Ok(cursor.record().is_some_and(|record| record.internal_key().same_key(&key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYSPACE: KeyspaceId = KeyspaceId(1);

    fn records(of: &[(&str, u64, Kind)]) -> Result<Sorted> {
        let record = |&(key, seqno, kind): &(&str, u64, Kind)| {
            record_of(KEYSPACE, key.as_bytes(), Seqno(seqno), kind, b"")
        };
        of.iter().map(record).collect::<Result<_>>().map(Sorted::new)
    }

    /// A table deep in the tree may hold newer numbers than one above it, for other keys.
    #[test]
    fn what_lies_above_a_hole_is_newer_than_what_it_held() {
        let bound = |key: &[u8], seqno| {
            let trailer = pebble_format::Trailer::new(Seqno(seqno), Kind::Put);
            OwnedKey::new(InternalKey { keyspace: KEYSPACE, user_key: key, trailer })
        };
        let lost = TableMeta {
            number: 7,
            len: 1,
            footer_crc: 0,
            count: 3,
            tombstones: 0,
            first: bound(b"b", 200),
            last: bound(b"m", 6),
            reach: None,
            seqno_min: Seqno(5),
            seqno_max: Seqno(200),
            apart: 0,
        };
        let rest =
            [("c", 150, Kind::Put), ("d", 150, Kind::Delete), ("d", 3, Kind::Put), ("k", 3, Kind::Put)];
        let (rest, above) = (records(&rest).unwrap(), records(&rest[..2]).unwrap());
        let dead = |newer| {
            let found = tombstones(&Hole::Table(&lost), &mut rest.cursor(), newer).unwrap();
            let key = |record: &PinnedRecord| String::from_utf8_lossy(record.record().key()).into_owned();
            found.records().iter().map(key).collect::<Vec<_>>()
        };
        assert_eq!(dead(Some(above.cursor())), ["k"]);
        assert_eq!(dead(None), ["c", "k"], "where nobody knows what lies above, numbers decide");
    }
}

//! What must be true of the database, held against the input byte for byte.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use pebble_db::{Db, Key, Keyspace, Result as DbResult, Value};

use super::corpus::{Corpus, Item};
use super::import::{Keyspaces, on_threads};
use crate::failure::{Failure, Result};
use crate::progress::{Progress, Unit};

/// What was found after the kill.
pub struct Survey {
    /// Records of acknowledged batches, found byte for byte.
    pub found: u64,
    /// Batches that were not acknowledged and are there, whole: the process died before it could say so.
    pub unacknowledged: usize,
    /// Batches that are not there at all.
    pub missing: Vec<usize>,
}

/// Looks for every batch in both keyspaces: one that was acknowledged must be there, any other there or not, and none
/// in part.
pub fn survey(
    db: &Db,
    corpus: &Corpus,
    batches: &[Range<usize>],
    acknowledged: &BTreeSet<usize>,
) -> Result<Survey> {
    let keyspaces = Keyspaces::open(db)?;
    let mut survey = Survey { found: 0, unacknowledged: 0, missing: Vec::new() };
    for (number, range) in batches.iter().enumerate() {
        let items = corpus.items.get(range.clone()).unwrap_or_default();
        let mut halves = 0;
        for item in items {
            halves += usize::from(holds(&keyspaces.files, &item.key, &item.value)?);
            halves += usize::from(holds(&keyspaces.index, &item.fact.key, &item.fact.value)?);
        }
        let (whole, acknowledged) = (halves == 2 * items.len(), acknowledged.contains(&number));
        match (whole, acknowledged) {
            (true, true) => survey.found += items.len() as u64,
            (true, false) => survey.unacknowledged += 1,
            (false, false) if halves == 0 => survey.missing.push(number),
            (false, _) => {
                let all = 2 * items.len();
                let was = if acknowledged { "acknowledged" } else { "not acknowledged" };
                return Err(Failure::Corrupt(format!(
                    "batch {number} was {was}, and {halves} of its {all} records are there"
                )));
            }
        }
    }
    Ok(survey)
}

/// Whether the key is there with this value. Another value is damage.
fn holds(keyspace: &Keyspace, key: &[u8], value: &[u8]) -> Result<bool> {
    match keyspace.get(key)? {
        None => Ok(false),
        Some(found) if found == value => Ok(true),
        Some(_) => Err(differs(keyspace, key)),
    }
}

fn differs(keyspace: &Keyspace, key: &[u8]) -> Failure {
    let (name, key) = (keyspace.name(), key.escape_ascii());
    Failure::Corrupt(format!("in keyspace {name} the value of \"{key}\" is not what was put"))
}

/// Everything: a get of each record, then both keyspaces forward and backward, with nothing missing and nothing added.
/// Gives the number of contents that more than one file has, as the index says.
pub fn verify_all(db: &Db, corpus: &Corpus, threads: usize) -> Result<u64> {
    let keyspaces = Keyspaces::open(db)?;
    verify_gets(&keyspaces, &corpus.items, threads)?;
    let files: Vec<_> = corpus.items.iter().map(|item| (&item.key[..], &item.value[..])).collect();
    let mut index: Vec<_> =
        corpus.items.iter().map(|item| (&item.fact.key[..], &item.fact.value[..])).collect();
    index.sort_unstable();
    for (keyspace, expected) in [(&keyspaces.files, &files), (&keyspaces.index, &index)] {
        compare(keyspace, keyspace.iter()?, expected.iter().copied())?;
        compare(keyspace, keyspace.iter()?.rev(), expected.iter().rev().copied())?;
    }
    repeated_contents(&keyspaces.index)
}

fn verify_gets(keyspaces: &Keyspaces, items: &[Item], threads: usize) -> Result<()> {
    const STRIDE: usize = 64;
    let progress = Progress::new("verify", Some(items.len() as u64), Unit::Items);
    let next = AtomicUsize::new(0);
    let missing = |keyspace: &Keyspace, key: &[u8]| {
        Failure::Corrupt(format!("keyspace {} has no \"{}\"", keyspace.name(), key.escape_ascii()))
    };
    let chunks: Vec<&[Item]> = items.chunks(STRIDE).collect();
    on_threads(threads, || {
        while let Some(chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
            for item in *chunk {
                if !holds(&keyspaces.files, &item.key, &item.value)? {
                    return Err(missing(&keyspaces.files, &item.key));
                }
                if !holds(&keyspaces.index, &item.fact.key, &item.fact.value)? {
                    return Err(missing(&keyspaces.index, &item.fact.key));
                }
            }
            progress.advance(chunk.len() as u64);
        }
        Ok(())
    })
}

/// That a scan gives exactly `expected`.
fn compare<'a>(
    keyspace: &Keyspace,
    scan: impl Iterator<Item = DbResult<(Key, Value)>>,
    expected: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<()> {
    let mut expected = expected.fuse();
    for entry in scan {
        let (key, value) = entry?;
        match expected.next() {
            Some((wanted, content)) if key == wanted && value == content => {}
            Some((wanted, _)) if key == wanted => return Err(differs(keyspace, &key)),
            _ => {
                let (name, key) = (keyspace.name(), key.escape_ascii());
                return Err(Failure::Corrupt(format!(
                    "a scan of keyspace {name} gives \"{key}\" out of place"
                )));
            }
        }
    }
    match expected.next() {
        None => Ok(()),
        Some((key, _)) => {
            let (name, key) = (keyspace.name(), key.escape_ascii());
            Err(Failure::Corrupt(format!("a scan of keyspace {name} ends before \"{key}\"")))
        }
    }
}

/// Contents that stand in the index for more than one file: neighbours with one hash, and equal facts.
fn repeated_contents(index: &Keyspace) -> Result<u64> {
    let mut repeated = 0;
    let mut previous: Option<(Key, Value)> = None;
    let mut counted = false;
    for entry in index.iter()? {
        let (key, value) = entry?;
        let same = previous
            .as_ref()
            .is_some_and(|(last, facts)| key.get(..16) == last.get(..16) && value == **facts);
        repeated += u64::from(same && !counted);
        counted = same;
        previous = Some((key, value));
    }
    Ok(repeated)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::corpus::Fact;
    use super::super::import::batches;
    use super::*;

    /// Eight items in batches of two, all in a database.
    fn imported() -> (TempDir, Db, Corpus) {
        let item = |n: usize| {
            let (key, value) = (format!("file{n}").into_bytes(), format!("text {}", n / 2).into_bytes());
            Item { fact: Fact::of(&key, &value), key, value }
        };
        let items: Vec<Item> = (0..8).map(item).collect();
        let dir = TempDir::new().unwrap();
        let db = Db::open(dir.path()).unwrap();
        let keyspaces = Keyspaces::open(&db).unwrap();
        for item in &items {
            keyspaces.files.put(&item.key, &item.value).unwrap();
            keyspaces.index.put(&item.fact.key, &item.fact.value).unwrap();
        }
        let bytes = items.iter().map(Item::len).sum();
        (dir, db, Corpus { name: String::new(), files: 8, items, bytes })
    }

    fn surveyed(db: &Db, corpus: &Corpus) -> Result<Survey> {
        survey(db, corpus, &batches(corpus, 2), &BTreeSet::from([0, 2]))
    }

    #[test]
    fn what_was_not_acknowledged_may_be_there_or_not() {
        let (_dir, db, corpus) = imported();
        let keyspaces = Keyspaces::open(&db).unwrap();
        assert_eq!(verify_all(&db, &corpus, 2).unwrap(), 4, "every content is in two files");
        for item in &corpus.items[6..] {
            keyspaces.files.delete(&item.key).unwrap();
            keyspaces.index.delete(&item.fact.key).unwrap();
        }
        let survey = surveyed(&db, &corpus).unwrap();
        assert_eq!((survey.found, survey.unacknowledged, survey.missing), (4, 1, vec![3]));
        assert!(verify_all(&db, &corpus, 2).unwrap_err().is_corruption());
    }

    #[test]
    fn a_batch_in_part_or_an_acknowledged_one_missing_is_found() {
        for (gone, message) in
            [(&[6][..], "batch 3 was not acknowledged, and 3"), (&[0, 1], "batch 0 was ack")]
        {
            let (_dir, db, corpus) = imported();
            let keyspaces = Keyspaces::open(&db).unwrap();
            for n in gone {
                keyspaces.index.delete(&corpus.items[*n].fact.key).unwrap();
            }
            let failure = surveyed(&db, &corpus).err().unwrap();
            assert!(failure.is_corruption() && failure.to_string().contains(message), "{failure}");
        }
    }

    #[test]
    fn another_value_and_a_key_too_many_are_found() {
        let (_dir, db, corpus) = imported();
        let keyspaces = Keyspaces::open(&db).unwrap();
        keyspaces.index.put("zzz", "added").unwrap();
        let failure = verify_all(&db, &corpus, 1).unwrap_err();
        assert!(failure.is_corruption() && failure.to_string().contains("out of place"), "{failure}");
        keyspaces.index.delete("zzz").unwrap();
        keyspaces.files.put("file3", "text 9").unwrap();
        for failure in [verify_all(&db, &corpus, 1).err(), surveyed(&db, &corpus).err()] {
            let failure = failure.unwrap();
            assert!(failure.is_corruption() && failure.to_string().contains("not what was put"), "{failure}");
        }
    }
}

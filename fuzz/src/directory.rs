//! A whole directory: the files of a database, changed in a few places, opened and used.
//!
//! ```text
//!   input = flags u8, then changes: kind u8, file u8, and what it needs
//!
//!   flags   bit 0: the database was killed, else closed    bit 1: checksums are put right, in other files too
//!           bit 2: point-in-time recovery                  bit 3: positioned reads
//! ```
//!
//! The directories are checked in, because a database draws its identity at random.
//!
//! Oracle: an open that is refused tells of damage and leaves every file as it was. Damage without forged checksums
//! never gives a wrong value: what is read is one of the commits' states, the last one if a single file of a closed
//! database was damaged, or an error. With forged ones no answer is promised, but no panic, no walk without end, no
//! memory that the files do not pay for.
//!
//! Threading: as every body.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pebble_db::{Db, Error, ReadMode, Recovery, Result, WriteOptions};
use pebble_format::FileName;
use pebble_format::manifest::{
    EDIT_HEADER_LEN, EditHeader, FIELD_HEADER_LEN, FieldHeader, MANIFEST_ALIGN, MANIFEST_HEADER_LEN,
    ManifestHeader, TableField, Tag,
};
use pebble_format::table::{TABLE_FOOTER_LEN, TableFooter};
use pebble_vfs::SimFs;
use zerocopy::FromBytes;

use crate::disk::{Files, disk, dump};
use crate::engine::{State, builder, keyspaces, scan};
use crate::guard::bounded;
use crate::input::Input;
use crate::{Seed, Target, forge};

/// See the [module](self).
pub const TARGET: Target = Target { name: "directory", run, repair: None, seeds, rounds: 2_500 };

/// The directories as they are checked in.
const IMAGES: [&[u8]; 2] = [include_bytes!("../fixtures/closed"), include_bytes!("../fixtures/killed")];

/// Most changes of an input.
const CHANGES_MAX: usize = 12;

/// A database that is open holds this much with no file at all: its memtable, tree and cache.
const BASE: usize = 4 << 20;

/// Names and bytes in one file: length and bytes of the name, then of the content.
fn pack(files: &Files) -> Vec<u8> {
    let mut packed = Vec::new();
    for (name, bytes) in files {
        for part in [name.as_bytes(), bytes] {
            packed.extend_from_slice(&u32::try_from(part.len()).unwrap().to_le_bytes());
            packed.extend_from_slice(part);
        }
    }
    packed
}

fn unpack(packed: &[u8]) -> Files {
    let (mut input, mut files) = (Input(packed), Files::new());
    while !input.is_empty() {
        let [name, bytes] = [(), ()].map(|()| {
            let len = usize::try_from(input.u32()).unwrap();
            input.take(len).to_vec()
        });
        files.insert(String::from_utf8(name).unwrap(), bytes);
    }
    files
}

/// What the script's commits make, from none to all of them; with a database, it makes them there.
fn script(db: Option<&Db>) -> Vec<State> {
    let spaces = db.map(|db| keyspaces(db).unwrap());
    let mut states = vec![State::default()];
    for n in 0..24_u8 {
        let mut state = states[states.len() - 1].clone();
        let at = usize::from(n % 5 == 4);
        let (key, end) = (format!("key-{:02}", n % 9).into_bytes(), &b"key-06"[..]);
        let options = if n % 3 == 0 { WriteOptions::sync() } else { WriteOptions::buffered() };
        match n % 8 {
            6 => {
                state[at].remove(&key);
                spaces.iter().for_each(|spaces| spaces[at].delete_with(&key, &options).unwrap());
            }
            7 => {
                state[at].retain(|own, _| *own < key || own.as_slice() >= end);
                let range = key.as_slice()..end;
                spaces
                    .iter()
                    .for_each(|spaces| spaces[at].delete_range_with(range.clone(), &options).unwrap());
            }
            _ => {
                let value = vec![n; 5 + 9 * usize::from(n % 7)];
                spaces.iter().for_each(|spaces| spaces[at].put_with(&key, &value, &options).unwrap());
                state[at].insert(key, value);
            }
        }
        if let Some(db) = db.filter(|_| matches!(n, 6 | 11 | 16)) {
            db.flush().unwrap();
        }
        states.push(state);
    }
    states
}

/// The directories, made anew: names and contents for `fuzz/fixtures`.
pub fn fixtures() -> Vec<Seed> {
    let made = |layout: &[u8], close: bool| {
        let fs = SimFs::new(1);
        let db = builder(&mut Input(layout), Arc::new(fs.clone())).open().unwrap();
        script(Some(&db));
        if close {
            db.close().unwrap();
        }
        pack(&dump(&fs.kill()))
    };
    vec![("closed", made(&[2, 0, 0, 0, 0, 0, 0], true)), ("killed", made(&[2, 1, 0, 1, 1, 1, 0], false))]
}

/// Panics unless the directories that are checked in can still be read.
pub fn assert_fixtures() {
    for flags in 0..2 {
        run(&[flags]);
    }
}

fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let flags = input.u8();
    let original = unpack(IMAGES[usize::from(flags & 1)]);
    let mut files = original.clone();
    for _ in 0..CHANGES_MAX {
        if input.is_empty() {
            break;
        }
        change(&mut files, &mut input);
    }
    let forged = flags & 2 != 0;
    if forged {
        put_right(&mut files);
    }
    let lost = |name: &&String| files.get(*name) != original.get(*name) && *name != "LOCK";
    let damaged: BTreeSet<&String> = original.keys().filter(lost).collect();
    let strict = flags & 4 == 0;
    let exact = !forged && flags & 1 == 0 && (damaged.is_empty() || strict && damaged.len() == 1);
    // Who loses the name of the manifest and all that tells of it has no database any more.
    let gone = !files.keys().any(|name| {
        name == "CURRENT" || matches!(FileName::parse(name), Some(FileName::Log(_) | FileName::Table(_)))
    });
    let total: usize = files.values().map(Vec::len).sum();
    let sim = disk(&files);
    bounded(16 * total + BASE, || {
        let recovery = if strict { Recovery::Strict } else { Recovery::PointInTime };
        let mode = if flags & 8 == 0 { ReadMode::Map } else { ReadMode::Pread };
        let open = |sim: &SimFs| {
            builder(&mut Input(&[1]), Arc::new(sim.clone())).recovery(recovery).read_mode(mode).open()
        };
        let db = match open(&sim) {
            Ok(db) => db,
            Err(error) => {
                assert_damage(&error, false);
                let after = dump(&sim);
                let touched =
                    after.iter().find(|(name, bytes)| files.get(*name) != Some(bytes) && *name != "LOCK");
                assert!(touched.is_none(), "a refused open wrote {}", touched.unwrap().0);
                assert!(files.keys().all(|name| after.contains_key(name)), "a refused open removed a file");
                return;
            }
        };
        let read = keyspaces(&db).and_then(|spaces| scan(&spaces));
        if let Some(found) = told_of(read).filter(|_| !forged && !gone) {
            let states = script(None);
            let at = states.iter().rposition(|state| *state == found);
            assert!(at.is_some(), "no commits make {found:?}");
            assert!(
                !exact || at == Some(states.len() - 1),
                "{damaged:?} damaged, and commits are lost unseen"
            );
        }
        told_of(db.verify());
        go_on(&db, forged);
        drop(db);
        if let Some(db) = told_of(open(&sim.kill())) {
            _ = told_of(keyspaces(&db).and_then(|spaces| scan(&spaces)));
        }
    });
}

/// What a user goes on to do.
fn go_on(db: &Db, forged: bool) {
    let work = || -> Result<()> {
        let [default, users] = keyspaces(db)?;
        default.put("key-03", "new")?;
        users.delete_range("a".."z")?;
        db.flush()?;
        default.get("key-05")?;
        default.size_estimate(..)?;
        db.compact_range(..)?;
        users.iter()?.rev().take(100).try_for_each(|entry| entry.map(|_| ()))?;
        db.persist()?;
        db.close()
    };
    if let Err(error) = work() {
        assert_damage(&error, forged);
    }
}

/// The answer, or nothing for an error that tells of damage.
fn told_of<T>(result: Result<T>) -> Option<T> {
    result.map_err(|error| assert_damage(&error, false)).ok()
}

/// An error of damage. Where checksums are `forged`, tables and manifest may contradict each other, and then the edit
/// of a flush or a merge is refused.
fn assert_damage(error: &Error, forged: bool) {
    let cause = match error {
        Error::ReadOnly { cause } => cause,
        other => other,
    };
    let told = cause.is_corruption()
        || matches!(cause, Error::UnsupportedVersion { .. } | Error::UnsupportedCodec { .. })
        || forged && matches!(cause, Error::InvalidArgument(_));
    assert!(told, "damage gave {error}");
}

/// One change to the files.
fn change(files: &mut Files, input: &mut Input<'_>) {
    let kind = input.u8();
    let number = usize::from(input.u8());
    let Some(name) = files.keys().nth(number % files.len().max(1)).cloned() else { return };
    let bytes = files.get_mut(&name).unwrap();
    let at = usize::from(input.u16()).checked_rem(bytes.len()).unwrap_or(0);
    match kind % 12 {
        0..=2 => {
            let new = input.take(1 + usize::from(kind >> 4));
            let end = bytes.len().min(at + new.len());
            bytes[at..end].copy_from_slice(&new[..end - at]);
        }
        3 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (kind >> 5);
            }
        }
        4 => bytes.truncate(at),
        5 => _ = files.remove(&name),
        6 => {
            let end = bytes.len().min(at + 4 * usize::from(input.u8()));
            bytes[at..end].fill(0);
        }
        7 => {
            let content = bytes.clone();
            let other = files.keys().nth(at % files.len()).cloned().unwrap();
            files.insert(other, content);
        }
        8 => bytes.extend_from_slice(input.take(1 + usize::from(kind >> 4))),
        9 => {
            let content = files.remove(&name).unwrap();
            let number = u64::from(input.u8() % 16);
            let new = match FileName::parse(&name) {
                Some(FileName::Log(_)) => FileName::Log(number),
                Some(FileName::Manifest(_)) => FileName::Manifest(number),
                _ => FileName::Table(number),
            };
            files.insert(new.to_string(), content);
        }
        10 => {
            let content = bytes.clone();
            files.insert(FileName::Table(u64::from(input.u8())).to_string(), content);
        }
        _ => {
            let taken: Vec<u8> = bytes.iter().copied().skip(at).take(4 * usize::from(input.u8())).collect();
            let to = usize::from(input.u16()).checked_rem(bytes.len()).unwrap_or(0);
            let end = bytes.len().min(to + taken.len());
            bytes[to..end].copy_from_slice(&taken[..end - to]);
        }
    }
}

/// Makes every file valid in itself, and the manifest true of the tables beside it.
fn put_right(files: &mut Files) {
    let mut tables: BTreeMap<u64, (u64, u32)> = BTreeMap::new();
    for (name, bytes) in files.iter_mut() {
        if let Some(FileName::Table(number)) = FileName::parse(name) {
            forge::table(bytes);
            let footer = bytes
                .len()
                .checked_sub(TABLE_FOOTER_LEN)
                .map(|at| TableFooter::read_from_bytes(&bytes[at..]));
            if let Some(Ok(footer)) = footer {
                tables.insert(number, (bytes.len() as u64, footer.crc.get()));
            }
        }
    }
    let mut uuid = [0; 16];
    for (name, bytes) in files.iter_mut() {
        if let Some(FileName::Manifest(_)) = FileName::parse(name) {
            name_tables(bytes, &tables);
            forge::manifest(bytes);
            if let Ok((header, _)) = ManifestHeader::read_from_prefix(bytes) {
                uuid = header.uuid;
            }
        }
    }
    for (name, bytes) in files.iter_mut() {
        if let Some(FileName::Log(number)) = FileName::parse(name) {
            forge::segment(bytes, &uuid, u32::try_from(number).unwrap_or(0));
        }
    }
}

/// Writes lengths and checksums of the tables' files into the manifest's frames.
fn name_tables(manifest: &mut [u8], tables: &BTreeMap<u64, (u64, u32)>) {
    let mut at = MANIFEST_HEADER_LEN;
    while let Some(Ok((frame, _))) = manifest.get(at..).map(EditHeader::read_from_prefix) {
        let end =
            at.saturating_add(EDIT_HEADER_LEN).saturating_add(usize::try_from(frame.len.get()).unwrap());
        at += EDIT_HEADER_LEN;
        while at < end.min(manifest.len()) {
            let Ok((field, body)) = FieldHeader::mut_from_prefix(&mut manifest[at..]) else { return };
            let len = usize::try_from(field.len.get()).unwrap();
            if field.tag.get() == Tag::Table as u16
                && let Ok((table, _)) = TableField::mut_from_prefix(body)
                && let Some((len, crc)) = tables.get(&table.number.get())
            {
                (table.len, table.footer_crc) = ((*len).into(), (*crc).into());
            }
            at += FIELD_HEADER_LEN + len.next_multiple_of(MANIFEST_ALIGN);
        }
        at = end;
    }
}

fn seeds() -> Vec<Seed> {
    let mut rng = crate::Rng(4);
    let mut changes = |flags: u8, len: usize| [vec![flags], rng.bytes(len)].concat();
    vec![
        ("closed", vec![0]),
        ("killed", vec![1]),
        ("flip", vec![0, 3, 2, 100, 0]),
        ("cut", vec![0, 4, 4, 200, 1]),
        ("removed", vec![9, 5, 3, 0, 0]),
        ("forged_1", changes(2, 12)),
        ("forged_2", changes(11, 20)),
        ("forged_3", changes(3, 40)),
        ("point_in_time", changes(5, 9)),
    ]
}

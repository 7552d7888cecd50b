//! The fields of an edit: any bytes as the first frame of a manifest, or as the one behind it.
//!
//! ```text
//!   input = flags u8, fields            odd flags: the fields are the whole state, else an edit of a small one
//! ```
//!
//! Oracle: an error is a corruption; a state that is taken keeps its own rules, and written again it is read back
//! equal.
//!
//! Threading: as every body.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use pebble_format::checksum::crc32c;
use pebble_format::log::LogPosition;
use pebble_format::manifest::{
    EDIT_HEADER_LEN, EditHeader, MANIFEST_ALIGN, MANIFEST_HEADER_LEN, MANIFEST_MAGIC, MANIFEST_VERSION,
    ManifestHeader,
};
use pebble_format::{InternalKey, KeyspaceId, Kind, OwnedKey, Result, Seqno, Trailer};
use pebble_manifest::{Edit, ManifestLog, ManifestState, NewRun, Recovered, TableMeta, recover};
use pebble_vfs::{Fs, SimFs};
use zerocopy::IntoBytes;

use crate::disk::{DIR, Files, assert_told, disk, dump};
use crate::forge::UUID;
use crate::guard::{allowance, bounded};
use crate::{Seed, Target};

/// See the [module](self).
pub const TARGET: Target = Target { name: "manifest_edit", run, repair: None, seeds, rounds: 10_000 };

pub(crate) const NAME: &str = "MANIFEST-000001";

/// A table that a small tree may have.
pub(crate) fn table(number: u64, first: &[u8], last: &[u8], seqnos: (u64, u64)) -> TableMeta {
    let key = |user_key, seqno| {
        let trailer = Trailer::new(Seqno(seqno), Kind::Put);
        OwnedKey::new(InternalKey { keyspace: KeyspaceId::DEFAULT, user_key, trailer })
    };
    TableMeta {
        number,
        len: 1000,
        footer_crc: 7,
        count: 5,
        tombstones: 1,
        first: key(first, seqnos.0),
        last: key(last, seqnos.1),
        reach: None,
        seqno_min: Seqno(seqnos.0),
        seqno_max: Seqno(seqnos.1),
        apart: 0,
    }
}

/// A first edit and a few that follow it.
pub(crate) fn history() -> Vec<Edit> {
    let run = |level, run, tables| NewRun { level, run, tables };
    let two = vec![table(4, b"a", b"f", (1, 9)), table(5, b"g", b"k", (2, 8))];
    let reaching = TableMeta { reach: Some(b"q".as_slice().into()), ..table(7, b"a", b"f", (1, 9)) };
    vec![
        Edit {
            next_file: Some(10),
            log_first: Some(2),
            log_floor: Some(LogPosition::new(2, 0)),
            flushed_seqno: Some(Seqno(20)),
            keyspaces: vec![(KeyspaceId(1), "users".into())],
            added_runs: vec![run(0, 3, two), run(6, 1, vec![table(6, b"", b"zz", (0, 1))])],
            ..Edit::default()
        },
        Edit {
            removed: vec![4, 5],
            added_runs: vec![run(1, 7, vec![table(4, b"a", b"f", (1, 9))])],
            ..Edit::default()
        },
        Edit { removed: vec![4], ..Edit::default() },
        Edit {
            added_values: vec![TableMeta { tombstones: 0, ..table(8, b"a", b"z", (21, 22)) }],
            added_runs: vec![run(0, 5, vec![TableMeta { apart: 9000, ..table(9, b"a", b"z", (21, 22)) }])],
            flushed_seqno: Some(Seqno(22)),
            ..Edit::default()
        },
        Edit {
            dropped_keyspaces: vec![KeyspaceId(1)],
            keyspaces: vec![(KeyspaceId(2), "orders".into())],
            ..Edit::default()
        },
        Edit { removed: vec![6], added_runs: vec![run(6, 9, vec![reaching])], ..Edit::default() },
    ]
}

pub(crate) fn shared(sim: &SimFs) -> Arc<dyn Fs> {
    Arc::new(sim.clone())
}

pub(crate) fn files(manifest: &[u8]) -> Files {
    Files::from([("CURRENT".to_owned(), b"MANIFEST-000001\n".to_vec()), (NAME.to_owned(), manifest.to_vec())])
}

/// Reads a manifest within its allowance, and checks what is taken.
pub(crate) fn read(sim: &SimFs, len: usize) -> Result<Recovered> {
    let found = bounded(allowance(len), || recover(&shared(sim), Path::new(DIR)))?;
    let found = found.unwrap();
    found.state.version.check().unwrap();
    assert_written_again(&found.state);
    Ok(found)
}

/// A state is what a new manifest of it says.
fn assert_written_again(state: &ManifestState) {
    let sim = disk(&Files::new());
    ManifestLog::create(shared(&sim), Path::new(DIR), 1, state).unwrap();
    let again = recover(&shared(&sim), Path::new(DIR)).unwrap().unwrap();
    assert_eq!(again.state, *state);
    assert_eq!(again.dropped_bytes, 0);
}

fn header() -> ManifestHeader {
    let mut header = ManifestHeader {
        magic: MANIFEST_MAGIC,
        version: MANIFEST_VERSION.into(),
        reserved: 0.into(),
        uuid: UUID,
        number: 1.into(),
        reserved2: 0.into(),
        crc: 0.into(),
    };
    header.crc = header.checksum().into();
    header
}

fn add_frame(to: &mut Vec<u8>, fields: &[u8]) {
    let seed = header().seed();
    let frame = EditHeader::new(seed, to.len() as u64, crc32c(seed, fields), fields.len() as u32);
    to.extend_from_slice(frame.as_bytes());
    to.extend_from_slice(fields);
}

/// The manifest that a small history makes.
pub(crate) fn manifest(edits: &[Edit]) -> Vec<u8> {
    let sim = disk(&Files::new());
    let mut state = ManifestState::new(UUID).apply(&edits[0]).unwrap();
    let mut log = ManifestLog::create(shared(&sim), Path::new(DIR), 1, &state).unwrap();
    for edit in &edits[1..] {
        state = state.apply(edit).unwrap();
        log.append(edit).unwrap();
    }
    dump(&sim)[NAME].clone()
}

/// What an edit is put behind.
static BASE: LazyLock<Vec<u8>> = LazyLock::new(|| manifest(&history()[..1]));

fn run(bytes: &[u8]) {
    let (flags, fields) = bytes.split_first().unwrap_or((&0, &[]));
    let fields = &fields[..fields.len() - fields.len() % MANIFEST_ALIGN];
    if fields.is_empty() {
        return;
    }
    let mut whole = if flags & 1 == 1 { header().as_bytes().to_vec() } else { BASE.clone() };
    add_frame(&mut whole, fields);
    let sim = disk(&files(&whole));
    match read(&sim, whole.len()) {
        Ok(found) => assert_eq!((found.dropped_bytes, found.log.len()), (0, whole.len() as u64)),
        Err(error) => {
            assert_told(&error);
            assert!(error.to_string().starts_with(NAME), "{error}");
        }
    }
}

fn seeds() -> Vec<Seed> {
    let edits = history();
    let fields = |manifest: &[u8], at: usize| manifest[at + EDIT_HEADER_LEN..].to_vec();
    let input = |flags: u8, fields: Vec<u8>| [vec![flags], fields].concat();
    let behind = |edit: usize| {
        let base = manifest(&edits[..1]).len();
        fields(&manifest(&[edits[0].clone(), edits[edit].clone()]), base)
    };
    vec![
        ("whole", input(1, fields(&manifest(&edits[..1]), MANIFEST_HEADER_LEN))),
        ("move", input(0, behind(1))),
        ("remove", input(0, behind(2))),
        ("keyspaces", input(0, behind(3))),
        ("reach", input(0, behind(4))),
    ]
}

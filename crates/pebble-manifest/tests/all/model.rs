//! Histories of valid edits, drawn from a seed, and the ways of reading a directory back.

use std::path::Path;
use std::sync::Arc;

use pebble_format::log::LogPosition;
use pebble_format::{InternalKey, KeyspaceId, Kind, OwnedKey, Seqno, Trailer};
use pebble_manifest::{Edit, ManifestLog, ManifestState, NewRun, Recovered, TableMeta};
use pebble_vfs::{Fs, SimFs};

/// The directory of all tests.
pub const DIR: &str = "/db";

/// The first manifest of a directory.
pub const NAME: &str = "MANIFEST-000001";

pub const UUID: [u8; 16] = *b"sixteen bytes id";

/// Splitmix64 (Steele et al. 2014).
pub struct Rng(pub u64);

impl Rng {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

pub fn key(user_key: &[u8], seqno: u64) -> OwnedKey {
    let trailer = Trailer::new(Seqno(seqno), Kind::Put);
    OwnedKey::new(InternalKey { keyspace: KeyspaceId::DEFAULT, user_key, trailer })
}

/// A table of the keys from `first` to `last` with these sequence numbers.
pub fn table(number: u64, first: &str, last: &str, seqnos: std::ops::RangeInclusive<u64>) -> TableMeta {
    TableMeta {
        number,
        len: 1_000 + number,
        footer_crc: 77,
        count: 10,
        tombstones: 3,
        first: key(first.as_bytes(), *seqnos.end()),
        last: key(last.as_bytes(), *seqnos.start()),
        reach: None,
        seqno_min: Seqno(*seqnos.start()),
        seqno_max: Seqno(*seqnos.end()),
        apart: 0,
    }
}

/// Where range deletes of tables that become one end, if behind its last key.
fn reach_of<'a>(tables: impl Iterator<Item = &'a Arc<TableMeta>>, last: &OwnedKey) -> Option<Box<[u8]>> {
    let reaches: Vec<_> = tables.filter_map(|table| table.reach.clone()).collect();
    let longest = reaches.iter().find(|reach| reach.is_empty()).or(reaches.iter().max());
    longest.filter(|reach| reach.is_empty() || ***reach > *last.as_ref().user_key).cloned()
}

/// The next edit of a history: a flush, a merge of neighbours, a table that moves to level 1 and may join a run there,
/// a keyspace, or a clean close.
pub fn next_edit(state: &ManifestState, rng: &mut Rng) -> Edit {
    let runs: Vec<_> = state.version.level(0).collect();
    match rng.below(10) {
        0..=3 => {
            let (run, seqno) = (state.next_file, state.flushed_seqno.0 + 1);
            let count = 1 + rng.below(3);
            let tables = (0..count).map(|part| {
                let bound =
                    |end| format!("{}{}", ["a", "h", "p"][part as usize], char::from(b'0' + end as u8));
                let table =
                    table(run + 1 + part, &bound(rng.below(5)), &bound(5 + rng.below(5)), seqno..=seqno + 9);
                let reach = [None, Some(bound(10)), (part == 2).then(String::new)];
                TableMeta {
                    reach: reach[rng.below(3) as usize].clone().map(|reach| reach.into_bytes().into()),
                    ..table
                }
            });
            Edit {
                added_runs: vec![NewRun { level: 0, run, tables: tables.collect() }],
                log_first: Some(state.log_first + 1),
                flushed_seqno: Some(Seqno(seqno + 9)),
                next_file: Some(run + 1 + count),
                ..Edit::default()
            }
        }
        4 | 5 if runs.len() > 1 => {
            let at = rng.below(runs.len() as u64 - 1) as usize;
            let (newer, older) = (runs[at], runs[at + 1]);
            let tables = || newer.tables().iter().chain(older.tables());
            let merged = table(
                state.next_file,
                std::str::from_utf8(tables().map(|t| t.first.as_ref().user_key).min().unwrap()).unwrap(),
                std::str::from_utf8(tables().map(|t| t.last.as_ref().user_key).max().unwrap()).unwrap(),
                older.tables()[0].seqno_min.0..=newer.tables()[0].seqno_max.0,
            );
            let merged = TableMeta { reach: reach_of(tables(), &merged.last), ..merged };
            Edit {
                added_runs: vec![NewRun { level: 0, run: newer.id(), tables: vec![merged] }],
                removed: tables().map(|t| t.number).collect(),
                next_file: Some(state.next_file + 1),
                ..Edit::default()
            }
        }
        6 | 7 if !runs.is_empty() => {
            let tables = runs[runs.len() - 1].tables();
            let moved = TableMeta::clone(&tables[rng.below(tables.len() as u64) as usize]);
            let run = state.version.place(1, std::slice::from_ref(&moved));
            Edit {
                removed: vec![moved.number],
                added_runs: vec![NewRun {
                    level: 1,
                    run: run.unwrap_or(state.next_file),
                    tables: vec![moved],
                }],
                next_file: Some(state.next_file + 1),
                ..Edit::default()
            }
        }
        8 => {
            let id = KeyspaceId(1 + state.keyspaces.len() as u16);
            Edit { keyspaces: vec![(id, format!("keyspace {}", id.0).into())], ..Edit::default() }
        }
        _ => Edit { log_floor: Some(LogPosition::new(state.log_first, 64)), ..Edit::default() },
    }
}

/// A state and what follows it, each with the edit that leads there.
pub fn history(seed: u64, len: usize) -> (Vec<ManifestState>, Vec<Edit>) {
    let mut rng = Rng(seed);
    let (mut states, mut edits) = (vec![ManifestState::new(UUID)], vec![]);
    for index in 0..len {
        let edit = next_edit(&states[index], &mut rng);
        states.push(states[index].apply(&edit).unwrap());
        edits.push(edit);
    }
    (states, edits)
}

/// A manifest, the states that it leads through, and where each of its frames ends.
pub fn fixture(seed: u64, len: usize, uuid: [u8; 16]) -> (Vec<u8>, Vec<ManifestState>, Vec<usize>) {
    let (mut states, edits) = history(seed, len);
    states.iter_mut().for_each(|state| state.uuid = uuid);
    let sim = disk();
    let mut log = ManifestLog::create(shared(&sim), Path::new(DIR), 1, &states[0]).unwrap();
    let mut ends = vec![log.len() as usize];
    for edit in &edits {
        log.append(edit).unwrap();
        ends.push(log.len() as usize);
    }
    (content(&sim, NAME), states, ends)
}

/// An empty disk with the directory, synced.
pub fn disk() -> SimFs {
    let sim = SimFs::new(7);
    sim.create_dir(Path::new(DIR)).unwrap();
    sim.sync_dir(Path::new("/")).unwrap();
    sim
}

pub fn shared(sim: &SimFs) -> Arc<dyn Fs> {
    Arc::new(sim.clone())
}

pub fn recover(sim: &SimFs) -> pebble_format::Result<Option<Recovered>> {
    pebble_manifest::recover(&shared(sim), Path::new(DIR))
}

/// The content of a file.
pub fn content(sim: &SimFs, name: &str) -> Vec<u8> {
    let file = sim.open(&Path::new(DIR).join(name), pebble_vfs::Open::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// A disk that holds just these files.
pub fn disk_with(files: &[(&str, &[u8])]) -> SimFs {
    let sim = disk();
    for (name, bytes) in files {
        let file = sim.open(&Path::new(DIR).join(name), pebble_vfs::Open::CreateNew).unwrap();
        file.write_at(bytes, 0).unwrap();
    }
    sim
}

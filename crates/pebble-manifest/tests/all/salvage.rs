//! What is left of a damaged manifest: one wrong byte costs nothing, a cut costs what lies behind it.

use std::path::Path;

use pebble_format::manifest::MANIFEST_HEADER_LEN;
use pebble_format::{KeyspaceId, Seqno};
use pebble_manifest::{Edit, ManifestDamage, ManifestLog, ManifestState, NewRun, Salvaged, salvage};

use crate::model::{DIR, NAME, UUID, content, disk, disk_with, fixture, shared, table};

const CURRENT: &[u8] = b"MANIFEST-000001\n";

fn salvaged(files: &[(&str, &[u8])]) -> (Option<Salvaged>, Vec<ManifestDamage>) {
    let mut damage = Vec::new();
    let found = salvage(&shared(&disk_with(files)), Path::new(DIR), &mut damage).unwrap();
    (found, damage)
}

#[test]
fn one_wrong_byte_costs_nothing() {
    let (bytes, states, _) = fixture(5, 6, UUID);
    let newest = states.last().unwrap();
    for at in 0..bytes.len() {
        for delta in [1_u8, 0x80, 0xFF] {
            let mut wrong = bytes.clone();
            wrong[at] ^= delta;
            let (found, damage) = salvaged(&[(NAME, &wrong), ("CURRENT", CURRENT)]);
            let found = found.unwrap_or_else(|| panic!("nothing found, byte {at} ^ {delta}"));
            assert_eq!(&found.state, newest, "byte {at} ^ {delta}");
            assert!(found.is_newest && found.end == found.len, "byte {at} ^ {delta}");
            assert!(damage.len() == 1 && damage[0].mended, "byte {at} ^ {delta}: {damage:?}");
        }
    }
}

#[test]
fn a_cut_costs_what_lies_behind_it() {
    let (bytes, states, ends) = fixture(5, 6, UUID);
    for len in 0..bytes.len() {
        let (found, damage) = salvaged(&[(NAME, &bytes[..len]), ("CURRENT", CURRENT)]);
        match ends.iter().zip(&states).rev().find(|(end, _)| **end <= len) {
            Some((end, state)) => {
                let found = found.unwrap();
                assert_eq!((&found.state, found.end, found.len), (state, *end as u64, len as u64));
                assert_eq!(damage.len(), usize::from(*end != len));
            }
            // A whole header with nothing behind it is a manifest that says nothing, and no damage.
            None => assert_eq!((found.is_none(), damage.is_empty()), (true, len == MANIFEST_HEADER_LEN)),
        }
    }
}

#[test]
fn two_wrong_bytes_cost_the_edits_from_there_on() {
    let (mut bytes, states, ends) = fixture(5, 6, UUID);
    let (end, state) = (ends[3], &states[3]);
    bytes[end + 4] ^= 0x55;
    bytes[end + 9] ^= 0x2A;
    let (found, damage) = salvaged(&[(NAME, &bytes), ("CURRENT", CURRENT)]);
    let found = found.unwrap();
    assert_eq!((&found.state, found.end, found.is_newest), (state, end as u64, false));
    assert!(damage.iter().any(|part| !part.mended && part.from == end as u64), "{damage:?}");
}

/// A rule that spans the tree is broken by one edit and all that follow, in frames that are whole: one damage, however
/// many they are.
#[test]
fn edits_that_break_a_rule_of_the_tree_are_one_damage() {
    // Tables that cross in one run.
    let crossing = |number| Edit {
        added_runs: vec![NewRun { level: 0, run: 1, tables: vec![table(number, "a", "z", 1..=9)] }],
        next_file: Some(number + 1),
        flushed_seqno: Some(Seqno(9)),
        ..Edit::default()
    };
    for right in 0..10_usize {
        for wrong in 1..10_u64 {
            let sim = disk();
            let mut state = ManifestState::new(UUID);
            let mut log = ManifestLog::create(shared(&sim), Path::new(DIR), 1, &state).unwrap();
            for id in 1..=right as u16 {
                let edit =
                    Edit { keyspaces: vec![(KeyspaceId(id), format!("{id}").into())], ..Edit::default() };
                state = state.apply(&edit).unwrap();
                log.append(&edit).unwrap();
            }
            state = state.apply(&crossing(2)).unwrap();
            log.append(&crossing(2)).unwrap();
            let end = log.len();
            (0..wrong).for_each(|n| log.append(&crossing(3 + n)).unwrap());
            let (found, damage) = salvaged(&[(NAME, &content(&sim, NAME)), ("CURRENT", CURRENT)]);
            let found = found.unwrap();
            assert_eq!((&found.state, found.end, found.is_newest), (&state, end, false), "{right} {wrong}");
            let parts: Vec<_> = damage.iter().map(|part| (part.from, part.to, part.mended)).collect();
            assert_eq!(parts, [(end, log.len(), false)], "{right} {wrong}");
        }
    }
}

#[test]
fn current_may_be_damaged_or_name_what_is_gone() {
    let (bytes, states, _) = fixture(5, 2, UUID);
    let newest = states.last().unwrap();
    let (found, damage) = salvaged(&[(NAME, &bytes)]);
    assert_eq!((&found.unwrap().state, damage.len()), (newest, 0));
    let (found, damage) = salvaged(&[("CURRENT", CURRENT)]);
    assert!(found.is_none() && damage.len() == 1 && !damage[0].mended);
    let (found, damage) = salvaged(&[(NAME, &bytes), ("CURRENT", b"MANIFEST-00000?\n")]);
    assert_eq!(&found.unwrap().state, newest);
    assert!(damage.len() == 1 && damage[0].mended && &*damage[0].file == "CURRENT");
}

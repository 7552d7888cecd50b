//! Damage: every bit, every truncation, every frame moved; and hostile bytes whose checksums are right.

use std::path::Path;

use pebble_format::checksum::crc32c;
use pebble_format::manifest::{
    EDIT_HEADER_LEN, EditHeader, MANIFEST_HEADER_LEN, MANIFEST_VERSION, ManifestHeader,
};
use pebble_format::{Error, Result, Seqno};
use pebble_manifest::{Edit, ManifestLog, ManifestState, NewRun, Recovered, TableMeta};
use zerocopy::{FromBytes, IntoBytes};

use crate::model::{DIR, NAME, Rng, UUID, content, disk, disk_with, fixture, recover, shared, table};

fn reopened(bytes: &[u8]) -> Result<Recovered> {
    recover(&disk_with(&[("CURRENT", b"MANIFEST-000001\n"), (NAME, bytes)])).map(Option::unwrap)
}

#[test]
fn a_flipped_bit_is_damage_or_drops_the_last_edit() {
    let (bytes, states, ends) = fixture(3, 5, UUID);
    let last_frame = ends[ends.len() - 2];
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        match reopened(&damaged) {
            Err(error) => assert!(error.is_corruption() && bit / 8 < last_frame, "bit {bit}: {error}"),
            Ok(found) => {
                assert!(bit / 8 >= last_frame, "bit {bit} was not noticed");
                assert_eq!(found.state, states[states.len() - 2]);
                assert_eq!(found.dropped_bytes as usize, bytes.len() - last_frame);
            }
        }
    }
}

#[test]
fn a_truncation_is_damage_or_a_reported_prefix() {
    let (bytes, states, ends) = fixture(4, 5, UUID);
    for len in 0..bytes.len() {
        match reopened(&bytes[..len]) {
            Err(error) => assert!(error.is_corruption() && len < ends[0], "{len}: {error}"),
            Ok(found) => {
                let whole = ends.iter().filter(|end| **end <= len).count();
                assert_eq!(found.state, states[whole - 1]);
                assert_eq!(found.dropped_bytes as usize, len - ends[whole - 1]);
            }
        }
    }
}

#[test]
fn zeroed_and_moved_frames_are_damage() {
    let (bytes, _, ends) = fixture(5, 6, UUID);
    let (other, ..) = fixture(5, 6, [9; 16]);
    for pair in ends.windows(2).take(ends.len() - 2) {
        let mut zeroed = bytes.clone();
        zeroed[pair[0]..pair[1]].fill(0);
        assert!(reopened(&zeroed).unwrap_err().is_corruption());
        let removed = [&bytes[..pair[0]], &bytes[pair[1]..]].concat();
        let found = reopened(&removed);
        assert!(found.is_err() || found.unwrap().dropped_bytes > 0);
        let mut foreign = bytes.clone();
        foreign[pair[0]..pair[1]].copy_from_slice(&other[pair[0]..pair[1]]);
        assert!(reopened(&foreign).unwrap_err().is_corruption());
    }
    let renamed = disk_with(&[("CURRENT", b"MANIFEST-000002\n"), ("MANIFEST-000002", &bytes)]);
    assert!(recover(&renamed).unwrap_err().is_corruption());
}

#[test]
fn every_bit_of_current_matters() {
    let (bytes, ..) = fixture(6, 1, UUID);
    for bit in 0..16 * 8 {
        let mut current = *b"MANIFEST-000001\n";
        current[bit / 8] ^= 1 << (bit % 8);
        let found = recover(&disk_with(&[("CURRENT", &current), (NAME, &bytes)]));
        assert!(found.unwrap_err().is_corruption(), "bit {bit}");
    }
}

#[test]
fn another_version_is_refused_as_such() {
    let (mut bytes, ..) = fixture(6, 1, UUID);
    for other in [0, 1, 4, u32::MAX] {
        let (header, _) = ManifestHeader::mut_from_prefix(&mut bytes).unwrap();
        header.version = other.into();
        header.crc = header.checksum().into();
        match reopened(&bytes).unwrap_err() {
            Error::UnsupportedVersion { file, found, max } => {
                assert_eq!((&*file, found, max), (NAME, other, MANIFEST_VERSION))
            }
            error => panic!("{error}"),
        }
    }
}

/// Makes the checksums of all frames right again.
fn repair(bytes: &mut [u8]) {
    let (header, _) = ManifestHeader::mut_from_prefix(bytes).unwrap();
    header.crc = header.checksum().into();
    let seed = header.seed();
    let mut offset = MANIFEST_HEADER_LEN;
    while let Ok((header, rest)) = EditHeader::read_from_prefix(&bytes[offset..]) {
        let len = header.len.get() as usize;
        let Some(payload) = rest.get(..len).filter(|payload| !payload.is_empty()) else { return };
        let repaired = EditHeader::new(seed, offset as u64, crc32c(seed, payload), header.len.get());
        bytes[offset..offset + EDIT_HEADER_LEN].copy_from_slice(repaired.as_bytes());
        offset += EDIT_HEADER_LEN + len;
    }
}

#[test]
fn hostile_fields_with_right_checksums_are_refused_or_keep_the_rules() {
    let mut rng = Rng(11);
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..6_000 {
        let (mut bytes, ..) = fixture(round % 10, 4, UUID);
        for _ in 0..=rng.below(3) {
            let at = MANIFEST_HEADER_LEN + rng.below((bytes.len() - MANIFEST_HEADER_LEN) as u64) as usize;
            bytes[at] = [0, 1, 2, 0x7f, 0x80, 0xff, rng.below(256) as u8][rng.below(7) as usize];
        }
        repair(&mut bytes);
        match reopened(&bytes) {
            Ok(found) => {
                found.state.version.check().unwrap();
                accepted += 1;
            }
            Err(error) => {
                assert!(error.is_corruption(), "{error}");
                refused += 1;
            }
        }
    }
    assert!(accepted > 100 && refused > 100, "{accepted} accepted, {refused} refused");
}

#[test]
fn a_reach_and_its_flag_must_agree() {
    let reaching = |reach: Option<&[u8]>| {
        let sim = disk();
        let table = TableMeta { reach: reach.map(Into::into), ..table(1, "a", "b", 1..=9) };
        let edit = Edit {
            added_runs: vec![NewRun { level: 0, run: 1, tables: vec![table] }],
            next_file: Some(2),
            flushed_seqno: Some(Seqno(9)),
            ..Edit::default()
        };
        let state = ManifestState::new(UUID).apply(&edit).unwrap();
        ManifestLog::create(shared(&sim), Path::new(DIR), 1, &state).unwrap();
        (content(&sim, NAME), state)
    };
    // The table is the last field: 80 bytes and the keys, padded.
    let flags_at = |bytes: &[u8], keys: usize| bytes.len() - (80 + keys).next_multiple_of(4) + 78;
    for (reach, keys) in [(None, 2), (Some(&b""[..]), 2), (Some(b"b\0z"), 5)] {
        let (bytes, state) = reaching(reach);
        assert_eq!(reopened(&bytes).unwrap().state, state);
        let at = flags_at(&bytes, keys);
        assert_eq!(bytes[at], u8::from(reach.is_some()));
        for flags in [0, 2, 3, 0x80] {
            let mut damaged = bytes.clone();
            damaged[at] = flags;
            repair(&mut damaged);
            match (flags, reach) {
                (0, None | Some([])) => assert!(reopened(&damaged).is_ok()),
                _ => assert!(reopened(&damaged).unwrap_err().is_corruption(), "{flags} {reach:?}"),
            }
        }
    }
}

#[test]
fn a_tail_of_nested_frames_takes_linear_time() {
    let (mut bytes, ..) = fixture(1, 1, UUID);
    let seed = ManifestHeader::read_from_prefix(&bytes).unwrap().0.seed();
    // Header after header, each right, each with all that follows as its payload, and a wrong checksum over that.
    let (start, len) = (bytes.len(), 4 << 20);
    bytes.resize(start + len, 0);
    for offset in (start..bytes.len() - EDIT_HEADER_LEN).step_by(EDIT_HEADER_LEN) {
        let payload = (bytes.len() - offset - EDIT_HEADER_LEN) / 4 * 4;
        let header = EditHeader::new(seed, offset as u64, 1, payload as u32);
        bytes[offset..offset + EDIT_HEADER_LEN].copy_from_slice(header.as_bytes());
    }
    let Err(Error::Corruption(corruption)) = reopened(&bytes) else { panic!("accepted") };
    assert_eq!(corruption.what, "frames");
}

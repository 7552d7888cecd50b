//! What is written is read back; what must be refused is; and the order of calls, to the letter.

use std::path::Path;
use std::sync::Arc;

use pebble_format::{Error, KeyspaceId};
use pebble_manifest::{Edit, ManifestLog, ManifestState};
use pebble_vfs::fault::{Fault, FaultKind, Op};
use pebble_vfs::{FaultFs, Fs, TraceFs};

use crate::model::{DIR, UUID, content, disk, disk_with, history, recover, shared, table};

fn keyspace(id: u16) -> Edit {
    Edit { keyspaces: vec![(KeyspaceId(id), format!("k{id}").into())], ..Edit::default() }
}

#[test]
fn every_state_is_read_back() {
    for seed in 0..30 {
        let (states, edits) = history(seed, 40);
        let sim = disk();
        let mut log = ManifestLog::create(shared(&sim), Path::new(DIR), 1, &states[0]).unwrap();
        for (index, edit) in edits.iter().enumerate() {
            if index == 20 {
                log.roll(2, &states[index]).unwrap();
            }
            if index % 7 == 3 {
                log = recover(&sim).unwrap().unwrap().log;
            }
            log.append(edit).unwrap();
            let found = recover(&sim).unwrap().unwrap();
            assert_eq!((found.state, found.dropped_bytes), (states[index + 1].clone(), 0));
            assert_eq!((found.log.number(), found.log.len()), (log.number(), log.len()));
        }
    }
}

#[test]
fn the_order_of_calls_is_as_told() {
    let trace = TraceFs::new(Arc::new(disk()), DIR);
    let fs: Arc<dyn Fs> = Arc::new(trace.clone());
    let state = ManifestState::new(UUID);
    let mut log = ManifestLog::create(Arc::clone(&fs), Path::new(DIR), 1, &state).unwrap();
    log.append(&keyspace(1)).unwrap();
    let state = state.apply(&keyspace(1)).unwrap();
    log.roll(2, &state).unwrap();
    let lines: Vec<_> = trace.transcript().lines().map(String::from).collect();
    let calls: Vec<_> =
        lines.iter().filter(|line| !line.starts_with("metadata")).map(String::as_str).collect();
    assert_eq!(
        calls,
        [
            "create MANIFEST-000001",
            "write MANIFEST-000001 0+120",
            "sync MANIFEST-000001",
            "sync-dir .",
            "create CURRENT.tmp",
            "write CURRENT.tmp 0+16",
            "sync CURRENT.tmp",
            "rename CURRENT.tmp CURRENT",
            "sync-dir .",
            "write MANIFEST-000001 120+28",
            "sync MANIFEST-000001",
            "create MANIFEST-000002",
            "write MANIFEST-000002 0+136",
            "sync MANIFEST-000002",
            "sync-dir .",
            "create CURRENT.tmp",
            "write CURRENT.tmp 0+16",
            "sync CURRENT.tmp",
            "rename CURRENT.tmp CURRENT",
            "sync-dir .",
            "remove MANIFEST-000001",
        ]
    );
}

/// The worked example of `docs/format/manifest.md`.
#[test]
fn a_new_manifest_is_these_bytes() {
    let sim = disk();
    let mut log = ManifestLog::create(shared(&sim), Path::new(DIR), 1, &ManifestState::new(UUID)).unwrap();
    log.append(&keyspace(1)).unwrap();
    let lines: Vec<_> = content(&sim, "MANIFEST-000001")
        .chunks(4)
        .map(|word| word.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "))
        .collect();
    let lines: Vec<_> = lines.chunks(4).map(|words| words.join("  ")).collect();
    assert_eq!(
        lines,
        [
            "70 65 62 6c  00 6d 61 6e  03 00 00 00  00 00 00 00",
            "73 69 78 74  65 65 6e 20  62 79 74 65  73 20 69 64",
            "01 00 00 00  00 00 00 00  00 00 00 00  0b ab da 62",
            "99 4e 55 df  f4 9a 35 7c  3c 00 00 00  01 00 00 00",
            "08 00 00 00  01 00 00 00  00 00 00 00  02 00 00 00",
            "04 00 00 00  01 00 00 00  03 00 00 00  08 00 00 00",
            "00 00 00 00  00 00 00 00  04 00 00 00  08 00 00 00",
            "00 00 00 00  00 00 00 00  1c 30 3f 79  6b c3 fa bf",
            "10 00 00 00  05 00 00 00  06 00 00 00  01 00 00 00",
            "6b 31 00 00",
        ]
    );
}

#[test]
fn recovery_writes_nothing() {
    let sim = disk();
    let mut log = ManifestLog::create(shared(&sim), Path::new(DIR), 1, &ManifestState::new(UUID)).unwrap();
    log.append(&keyspace(1)).unwrap();
    let events = sim.events();
    recover(&sim).unwrap().unwrap();
    assert_eq!(sim.events(), events);
    let torn = disk_with(&[
        ("CURRENT", b"MANIFEST-000001\n"),
        ("MANIFEST-000001", &[content(&sim, "MANIFEST-000001"), vec![1]].concat()),
    ]);
    let events = torn.events();
    assert_eq!(recover(&torn).unwrap().unwrap().dropped_bytes, 1);
    assert_eq!(torn.events(), events);
}

#[test]
fn a_lost_current_is_not_a_new_database() {
    let fresh: [&[(&str, &[u8])]; 4] = [
        &[],
        &[("LOCK", b""), ("notes.txt", b"mine"), ("1.sst", b"foreign")],
        &[("CURRENT.tmp", b"MANIF"), ("MANIFEST-000001", b"half")],
        &[("MANIFEST-000001", b"")],
    ];
    for files in fresh {
        assert!(recover(&disk_with(files)).unwrap().is_none(), "{files:?}");
    }
    for name in ["000001.log", "000009.sst"] {
        let refused = recover(&disk_with(&[(name, b""), ("MANIFEST-000001", b"")]));
        assert!(matches!(refused, Err(Error::MissingFile { file }) if &*file == "CURRENT"), "{name}");
    }
    let refused = recover(&disk_with(&[("CURRENT", b"MANIFEST-000003\n")]));
    assert!(matches!(refused, Err(Error::MissingFile { file }) if &*file == "MANIFEST-000003"));
    let missing = pebble_manifest::recover(&shared(&disk()), Path::new("/nowhere")).unwrap();
    assert!(missing.is_none());
}

#[test]
fn current_has_exactly_one_form() {
    let contents: [&[u8]; 9] = [
        b"",
        b"MANIFEST-000001",
        b"MANIFEST-1\n",
        b"MANIFEST-000001\n\n",
        b" MANIFEST-000001\n",
        b"000001.sst\n",
        b"../MANIFEST-000001\n",
        b"MANIFEST-0000001\n",
        &[b'x'; 65],
    ];
    for bytes in contents {
        let refused = recover(&disk_with(&[("CURRENT", bytes), ("MANIFEST-000001", b"")]));
        assert!(matches!(refused, Err(Error::Corruption(_))), "{bytes:?}");
    }
}

#[test]
fn behind_a_torn_frame_a_new_manifest_begins() {
    let sim = disk();
    let state = ManifestState::new(UUID);
    let mut log = ManifestLog::create(shared(&sim), Path::new(DIR), 1, &state).unwrap();
    log.append(&keyspace(1)).unwrap();
    let mut bytes = content(&sim, "MANIFEST-000001");
    bytes.extend([0xa5; 21]);
    let sim = disk_with(&[("CURRENT", b"MANIFEST-000001\n"), ("MANIFEST-000001", &bytes)]);
    let mut found = recover(&sim).unwrap().unwrap();
    assert_eq!(found.dropped_bytes, 21);
    assert!(found.log.wants_roll());
    assert!(matches!(found.log.append(&keyspace(2)), Err(Error::InvalidArgument(_))));
    assert_eq!(content(&sim, "MANIFEST-000001"), bytes);
    found.log.roll(2, &found.state).unwrap();
    found.log.append(&keyspace(2)).unwrap();
    let again = recover(&sim).unwrap().unwrap();
    assert_eq!((again.dropped_bytes, again.state.keyspaces.len()), (0, 2));
}

#[test]
fn a_manifest_that_has_grown_is_rolled() {
    let sim = disk();
    let mut state = ManifestState::new(UUID);
    let mut log = ManifestLog::create(shared(&sim), Path::new(DIR), 1, &state).unwrap();
    let long = "k".repeat(60_000);
    let mut appended = 0;
    while !log.wants_roll() {
        let number = state.next_file;
        let edit = Edit {
            added_runs: vec![pebble_manifest::NewRun {
                level: 0,
                run: number,
                tables: vec![table(number, &long, &long, number..=number)],
            }],
            removed: state.version.tables().map(|table| table.number).collect(),
            next_file: Some(number + 1),
            flushed_seqno: Some(pebble_format::Seqno(number)),
            ..Edit::default()
        };
        state = state.apply(&edit).unwrap();
        log.append(&edit).unwrap();
        appended += 1;
    }
    assert_eq!(appended, 9, "one mebibyte of edits of 120 kB");
    log.roll(state.next_file, &state).unwrap();
    assert!(!log.wants_roll());
    assert_eq!(recover(&sim).unwrap().unwrap().state, state);
}

#[test]
fn edits_that_say_nothing_or_break_the_state_are_refused_unwritten() {
    let sim = disk();
    let mut log = ManifestLog::create(shared(&sim), Path::new(DIR), 1, &ManifestState::new(UUID)).unwrap();
    let events = sim.events();
    assert!(matches!(log.append(&Edit::default()), Err(Error::InvalidArgument(_))));
    let broken = ManifestState { log_first: 0, ..ManifestState::new(UUID) };
    assert!(matches!(log.roll(2, &broken), Err(Error::InvalidArgument(_))));
    assert_eq!(sim.events(), events);
    log.append(&keyspace(1)).unwrap();
}

#[test]
fn after_a_failed_append_the_file_is_never_touched_again() {
    for (op, kind) in
        [(Op::Write, FaultKind::Io), (Op::Sync, FaultKind::NoSpace), (Op::Sync, FaultKind::LyingSync)]
    {
        let sim = disk();
        let fs = FaultFs::over_sim(sim.clone());
        let state = ManifestState::new(UUID);
        let mut log = ManifestLog::create(Arc::new(fs.clone()), Path::new(DIR), 1, &state).unwrap();
        log.append(&keyspace(1)).unwrap();
        fs.inject(Fault::once(op, 0, kind).on("MANIFEST"));
        let error = log.append(&keyspace(2)).unwrap_err();
        let events = sim.events();
        for _ in 0..3 {
            assert_eq!(log.append(&keyspace(3)).unwrap_err().to_string(), error.to_string());
            assert_eq!(log.roll(2, &state).unwrap_err().to_string(), error.to_string());
        }
        assert_eq!(sim.events(), events);
        for seed in 0..20 {
            let found = recover(&sim.crash(seed)).unwrap().unwrap();
            assert!((1..=2).contains(&found.state.keyspaces.len()));
        }
    }
}

/// All or part of the frame is missing, so the edit is not in force; the next manifest goes on without it.
#[test]
fn an_append_to_a_full_disk_is_made_good_by_a_roll() {
    for kind in [FaultKind::NoSpace, FaultKind::ShortWrite] {
        let sim = disk();
        let fs = FaultFs::over_sim(sim.clone());
        let state = ManifestState::new(UUID).apply(&keyspace(1)).unwrap();
        let mut log = ManifestLog::create(Arc::new(fs.clone()), Path::new(DIR), 1, &state).unwrap();
        fs.inject(Fault::once(Op::Write, 0, kind).on("MANIFEST"));
        assert!(matches!(log.append(&keyspace(2)).unwrap_err(), Error::Io(_)));
        assert!(log.failed().is_none() && log.wants_roll());
        let events = sim.events();
        assert!(matches!(log.append(&keyspace(3)), Err(Error::InvalidArgument(_))));
        assert_eq!(sim.events(), events, "{kind:?}: behind a torn frame nothing is ever appended");
        for seed in 0..20 {
            assert_eq!(recover(&sim.crash(seed)).unwrap().unwrap().state.keyspaces.len(), 1, "{kind:?}");
        }
        log.roll(2, &state).unwrap();
        log.append(&keyspace(3)).unwrap();
        let found = found_state(&sim);
        assert_eq!(found.keyspaces.keys().map(|id| id.0).collect::<Vec<_>>(), [1, 3]);
    }
}

#[test]
fn a_roll_that_fails_leaves_the_old_manifest_usable_unless_the_directory_is_in_doubt() {
    let state = ManifestState::new(UUID).apply(&keyspace(1)).unwrap();
    for (op, nth, kind, usable) in [
        (Op::Create, 0, FaultKind::NoSpace, true),
        (Op::Write, 0, FaultKind::NoSpace, true),
        (Op::Sync, 0, FaultKind::NoSpace, true),
        (Op::SyncDir, 0, FaultKind::TooManyFiles, true),
        (Op::SyncDir, 0, FaultKind::NoSpace, false),
        (Op::Create, 1, FaultKind::NoSpace, true),
        (Op::Write, 1, FaultKind::NoSpace, true),
        (Op::Sync, 1, FaultKind::NoSpace, true),
        (Op::Rename, 0, FaultKind::NoSpace, false),
        (Op::SyncDir, 1, FaultKind::NoSpace, false),
    ] {
        let sim = disk();
        let fs = FaultFs::over_sim(sim.clone());
        let mut log = ManifestLog::create(Arc::new(fs.clone()), Path::new(DIR), 1, &state).unwrap();
        fs.inject(Fault::once(op, nth, kind));
        assert!(log.roll(2, &state).is_err());
        let left = fs.metadata(&Path::new(DIR).join("MANIFEST-000002")).unwrap();
        let switched = matches!((op, nth), (Op::Rename, _) | (Op::SyncDir, 1));
        assert_eq!(left.is_some(), switched, "{op:?} {nth}: what is not in force takes no space");
        assert_eq!(log.append(&keyspace(2)).is_ok(), usable, "{op:?} {nth}");
        for seed in 0..20 {
            let found = recover(&sim.crash(seed)).unwrap().unwrap();
            assert_eq!(found.state.keyspaces.len(), if usable { 2 } else { 1 }, "{op:?} {nth}");
        }
        if usable {
            log.roll(3, &found_state(&sim)).unwrap();
            assert_eq!(recover(&sim).unwrap().unwrap().log.number(), 3);
        }
    }
}

fn found_state(sim: &pebble_vfs::SimFs) -> ManifestState {
    recover(sim).unwrap().unwrap().state
}

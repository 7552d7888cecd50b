//! The rules of a version and of a state, and the search in a run.

use std::sync::Arc;

use pebble_format::log::LogPosition;
use pebble_format::{Error, InternalKey, KeyspaceId, Seqno};
use pebble_manifest::{Edit, ManifestState, NewRun, TableMeta, Version};

use crate::model::{UUID, history, key, table};

fn run(level: u8, run: u64, tables: Vec<TableMeta>) -> NewRun {
    NewRun { level, run, tables }
}

fn add(runs: Vec<NewRun>) -> Edit {
    Edit { added_runs: runs, ..Edit::default() }
}

fn base() -> Version {
    let runs = vec![
        run(0, 9, vec![table(3, "a", "f", 21..=30), table(4, "h", "z", 21..=30)]),
        run(0, 8, vec![table(2, "a", "z", 11..=20)]),
        run(1, 3, vec![table(1, "b", "y", 1..=10)]),
    ];
    Version::default().apply(&add(runs)).unwrap()
}

/// What an edit of [`base`] is refused for.
fn refusal(edit: &Edit) -> String {
    match base().apply(edit) {
        Err(Error::InvalidArgument(what)) => what.into(),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn runs_stand_newest_first() {
    let version = base();
    let ids: Vec<_> = version.runs().map(|run| (run.level(), run.id())).collect();
    assert_eq!(ids, [(0, 9), (0, 8), (1, 3)]);
    assert_eq!(version.level(0).count(), 2);
    let numbers: Vec<_> = version.tables().map(|table| table.number).collect();
    assert_eq!(numbers, [3, 4, 2, 1]);
    version.check().unwrap();
}

#[test]
fn tables_move_and_join_runs() {
    let before = base();
    let edit = Edit {
        removed: vec![1, 3],
        added_runs: vec![
            run(6, 4, vec![base_table(1)]),
            run(0, 9, vec![base_table(3), reaching(table(5, "g", "g", 22..=23), "h")]),
        ],
        ..Edit::default()
    };
    let after = before.apply(&edit).unwrap();
    let places: Vec<_> = after.runs().map(|run| (run.level(), run.id(), run.tables().len())).collect();
    assert_eq!(places, [(0, 9, 3), (0, 8, 1), (6, 4, 1)]);
    assert!(Arc::ptr_eq(after.tables().last().unwrap(), before.tables().last().unwrap()));
    assert_eq!((after.len_bytes(), after.count()), (5_000 + 15, 50));
    assert!(edit.gone().is_empty());
    assert_eq!(Edit { removed: vec![1, 2, 3], ..edit }.gone(), [2]);
}

#[test]
fn the_order_of_time_in_level_0_is_that_of_what_is_left() {
    let older = run(0, 8, vec![table(2, "a", "b", 5..=10), table(3, "c", "d", 5..=20)]);
    let version = Version::default().apply(&add(vec![older])).unwrap();
    let newer = |removed| Edit { removed, ..add(vec![run(0, 9, vec![table(4, "x", "z", 11..=30)])]) };
    assert!(version.apply(&newer(vec![])).is_err());
    assert_eq!(version.apply(&newer(vec![3])).unwrap().runs().count(), 2);
}

#[test]
fn an_edit_replaces_runs_and_shares_the_rest() {
    let before = base();
    let edit = Edit { removed: vec![3, 4, 2], ..add(vec![run(0, 9, vec![table(5, "a", "z", 11..=30)])]) };
    let after = before.apply(&edit).unwrap();
    assert_eq!(after.tables().map(|table| table.number).collect::<Vec<_>>(), [5, 1]);
    assert!(Arc::ptr_eq(after.tables().last().unwrap(), before.tables().last().unwrap()));
    let emptied = after.apply(&Edit { removed: vec![5, 1], ..Edit::default() }).unwrap();
    assert!(emptied.is_empty());
    assert_eq!(before, base());
}

fn reaching(table: TableMeta, reach: &str) -> TableMeta {
    TableMeta { reach: Some(reach.as_bytes().into()), ..table }
}

fn base_table(number: u64) -> TableMeta {
    base().tables().find(|table| table.number == number).map(|table| (**table).clone()).unwrap()
}

#[test]
fn broken_rules_are_refused() {
    let one = |number| vec![table(number, "a", "b", 1..=10)];
    let newest = |tables| add(vec![run(0, 10, tables)]);
    let mut inverted = table(7, "a", "b", 31..=40);
    std::mem::swap(&mut inverted.first, &mut inverted.last);
    let mut outside = table(7, "a", "b", 31..=40);
    outside.first = key(b"a", 41);
    let cases = [
        (Edit { removed: vec![99], ..Edit::default() }, "removed table is not in the tree"),
        (Edit { removed: vec![1, 1], ..Edit::default() }, "removed table is not in the tree"),
        (newest(vec![table(4, "a", "b", 31..=40)]), "table number used twice"),
        (newest(vec![]), "run without tables"),
        (newest(vec![table(7, "a", "c", 31..=40), table(8, "c", "d", 31..=40)]), "tables of a run overlap"),
        (newest(vec![table(7, "e", "f", 31..=40), table(8, "a", "b", 31..=40)]), "tables of a run overlap"),
        (newest(vec![inverted]), "last key of a table before its first"),
        (newest(vec![outside]), "bound outside a table's sequence range"),
        (newest(vec![TableMeta { tombstones: 11, ..table(7, "a", "b", 31..=40) }]), "tombstones of a table"),
        (
            newest(vec![TableMeta { count: 0, tombstones: 0, ..table(7, "a", "b", 31..=40) }]),
            "table without records",
        ),
        (add(vec![run(7, 10, vec![table(7, "a", "b", 31..=40)])]), "level of a run"),
        (add(vec![run(1, 9, vec![table(7, "a", "b", 31..=40)])]), "run on two levels"),
        (add(vec![run(0, 9, vec![table(7, "z", "z", 31..=40)])]), "tables of a run overlap"),
        (add(vec![run(1, 3, vec![reaching(table(7, "a", "a", 1..=10), "c")])]), "tables of a run overlap"),
        (add(vec![run(1, 3, vec![reaching(table(7, "a", "a", 1..=10), "")])]), "tables of a run overlap"),
        (newest(vec![reaching(table(7, "a", "b", 31..=40), "b")]), "reach of a table before its last key"),
        (add(vec![run(6, 1, one(7)), run(6, 2, one(8))]), "runs of the last level"),
        (Edit { removed: vec![1], ..add(vec![run(2, 3, one(1))]) }, "moved table is not the same"),
        (add(vec![run(2, 4, vec![base_table(1)])]), "table number used twice"),
        (newest(vec![table(7, "a", "b", 30..=40)]), "runs of level 0 interleave in time"),
        (add(vec![run(0, 7, vec![table(7, "a", "b", 31..=40)])]), "runs of level 0 interleave in time"),
    ];
    for (edit, rule) in cases {
        let what = refusal(&edit);
        assert!(what.starts_with(rule), "{what} is not {rule}");
    }
}

#[test]
fn a_state_keeps_its_own_rules() {
    let state = ManifestState::new(UUID);
    let first = Edit {
        next_file: Some(9),
        log_first: Some(5),
        log_floor: Some(LogPosition::new(5, 0)),
        flushed_seqno: Some(Seqno(10)),
        keyspaces: vec![(KeyspaceId(1), "one".into()), (KeyspaceId(2), "two".into())],
        ..Edit::default()
    };
    let state = state.apply(&first).unwrap();
    let keyspace =
        |id, name: &str| Edit { keyspaces: vec![(KeyspaceId(id), name.into())], ..Edit::default() };
    let refused = [
        Edit { next_file: Some(8), ..Edit::default() },
        Edit { log_first: Some(4), ..Edit::default() },
        Edit { log_floor: Some(LogPosition::new(4, 99)), ..Edit::default() },
        Edit { flushed_seqno: Some(Seqno(9)), ..Edit::default() },
        Edit { flushed_seqno: Some(Seqno(1 << 56)), ..Edit::default() },
        keyspace(2, "three"),
        keyspace(3, "two"),
        keyspace(0, "three"),
        keyspace(3, ""),
        keyspace(3, &"x".repeat(256)),
        Edit { dropped_keyspaces: vec![KeyspaceId(3)], ..Edit::default() },
        add(vec![run(0, 1, vec![table(9, "a", "b", 1..=10)])]),
        add(vec![run(0, 1, vec![table(8, "a", "b", 1..=11)])]),
    ];
    for edit in refused {
        assert!(matches!(state.apply(&edit), Err(Error::InvalidArgument(_))), "{edit:?}");
    }
    state.apply(&add(vec![run(0, 1, vec![table(8, "a", "b", 1..=10)])])).unwrap();
    state.apply(&keyspace(3, &"x".repeat(255))).unwrap();
    let renamed = Edit { dropped_keyspaces: vec![KeyspaceId(2)], ..keyspace(3, "two") };
    assert_eq!(state.apply(&renamed).unwrap().keyspaces.len(), 2);
}

#[test]
fn every_state_of_a_history_keeps_the_rules() {
    for seed in 0..20 {
        let (states, _) = history(seed, 60);
        states.iter().for_each(|state| state.version.check().unwrap());
        assert!(states.iter().any(|state| state.version.runs().count() > 3));
    }
}

#[test]
fn a_run_finds_the_one_table_that_may_hold_a_key() {
    // Keys that share far more than a head holds, so that heads are equal and whole keys decide.
    for prefix in ["", "a very long prefix ", "x"] {
        let bounds: Vec<String> = (0..60).map(|n| format!("{prefix}{:0>12}", n * 10)).collect();
        let tables = bounds.chunks(2).zip(1..).map(|(pair, number)| table(number, &pair[0], &pair[1], 1..=9));
        let version = Version::default().apply(&add(vec![run(0, 1, tables.collect())])).unwrap();
        let run = version.runs().next().unwrap();
        let mut probes: Vec<String> = (0..620).map(|n| format!("{prefix}{n:0>12}")).collect();
        probes.extend(["", "\0", "w", "zzz", prefix].map(String::from));
        for probe in probes {
            let lookup = InternalKey::lookup(KeyspaceId::DEFAULT, probe.as_bytes(), Seqno(5));
            let naive = run.tables().iter().position(|table| {
                (table.first.as_ref().user_key..=table.last.as_ref().user_key).contains(&probe.as_bytes())
            });
            assert_eq!(run.find(lookup), naive, "{probe}");
        }
        let elsewhere = InternalKey::lookup(KeyspaceId(1), bounds[0].as_bytes(), Seqno(5));
        assert_eq!(run.find(elsewhere), None);
    }
}

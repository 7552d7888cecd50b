//! `Merge` against one sorted vector.

use pebble_cursor::{Cursor, Merge};
use pebble_format::{HeadPrefix, InternalKey, KeyspaceId, Kind, Seqno};
use proptest::prelude::*;

use crate::model::{VecCursor, any_moves, any_records, assert_same_walk, cases, encoded, sorted};

/// Deals the records out to `runs` children, by sequence number.
fn dealt(records: &[Vec<u8>], runs: usize) -> Vec<VecCursor> {
    (0..runs)
        .map(|run| {
            let part = records.iter().enumerate().filter(|(index, _)| index * 7 % runs == run);
            VecCursor::new(sorted(part.map(|(_, record)| record.clone()).collect()))
        })
        .collect()
}

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn it_walks_the_union(records in any_records(40), runs in 1..9_usize, moves in any_moves(), fit in 0..3_u8) {
        let prefix = match fit {
            0 => HeadPrefix::none(),
            1 => HeadPrefix::new(KeyspaceId(1), b"long prefix "),
            _ => HeadPrefix::new(KeyspaceId(1), b"b"),
        };
        let mut merge = Merge::with_prefix(dealt(&records, runs), prefix);
        let mut model = VecCursor::new(sorted(records));
        assert_same_walk(&mut merge, &mut model, &moves);
    }
}

#[test]
fn nothing_merged_is_nothing() {
    let mut merge = Merge::new(Vec::<VecCursor>::new());
    for movement in [Merge::first, Merge::last, Merge::next, Merge::prev] {
        movement(&mut merge).unwrap();
        assert!(merge.record().is_none());
    }
    merge.seek(InternalKey::lookup(KeyspaceId(0), b"", Seqno::MAX)).unwrap();
    assert!(merge.record().is_none());
}

#[test]
fn the_largest_head_is_not_taken_for_the_end() {
    let extreme = |seqno| encoded(u16::MAX, &[0xff; 12], seqno, Kind::Put);
    let run = |records| VecCursor::new(sorted(records));
    let mut merge =
        Merge::new(vec![run(vec![]), run(vec![extreme(2)]), run(vec![extreme(3), extreme(1)]), run(vec![])]);
    let mut seen = vec![];
    merge.first().unwrap();
    while let Some(record) = merge.record() {
        seen.push(record.seqno().0);
        merge.next().unwrap();
    }
    assert_eq!(seen, [3, 2, 1]);
}

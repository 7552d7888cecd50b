//! C5: a child that fails at its n-th call, for every n, is never read past.

use std::cell::Cell;
use std::ops::Bound;
use std::rc::Rc;

use pebble_cursor::{Concat, Merge, Source, Visible};
use pebble_format::{InternalKey, KeyspaceId, Kind, Result, Seqno};
use proptest::prelude::*;

use crate::concat::Parts;
use crate::model::{
    Failing, VecCursor, any_moves, any_records, assert_sticks, cases, encoded, injected, sorted,
};

/// Parts whose opening counts as a call that may fail.
struct FailingParts(Parts, Rc<Cell<u32>>);

impl Source for FailingParts {
    type Cursor = Failing;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn first_key(&self, index: usize) -> InternalKey<'_> {
        self.0.first_key(index)
    }

    fn last_key(&self, index: usize) -> InternalKey<'_> {
        self.0.last_key(index)
    }

    fn open(&self, index: usize) -> Result<Failing> {
        let left = self.1.get();
        self.1.set(left.saturating_sub(1));
        if left == 1 { Err(injected()) } else { Ok(Failing::new(self.0.open(index)?, &self.1)) }
    }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn a_merge_sticks(records in any_records(30), calls in 1..40_u32, moves in any_moves()) {
        let calls = Rc::new(Cell::new(calls));
        let runs = records.chunks(7).map(|run| Failing::new(VecCursor::new(sorted(run.to_vec())), &calls)).collect();
        assert_sticks(&mut Merge::new(runs), &mut VecCursor::new(sorted(records)), &moves);
    }

    #[test]
    fn a_concat_sticks(records in any_records(30), calls in 1..40_u32, moves in any_moves()) {
        let calls = Rc::new(Cell::new(calls));
        let records = sorted(records);
        let parts = FailingParts(Parts::new(&records, 4), calls);
        assert_sticks(&mut Concat::new(parts), &mut VecCursor::new(records), &moves);
    }
}

#[test]
fn a_reader_never_sees_past_a_gap() {
    let records = sorted(
        (1..=40)
            .map(|n| encoded(0, &[n / 3], u64::from(n), if n % 4 == 0 { Kind::Delete } else { Kind::Put }))
            .collect(),
    );
    let visible = |calls: &Rc<Cell<u32>>| {
        let cursor = Merge::new(vec![Failing::new(VecCursor::new(records.clone()), calls)]);
        Visible::new(cursor, KeyspaceId(0), Bound::Unbounded, Bound::Unbounded, Seqno(35))
    };
    for forward in [true, false] {
        let walk = |calls: u32| {
            let mut reader = visible(&Rc::new(Cell::new(calls)));
            let mut seen = vec![];
            let mut done = if forward { reader.first() } else { reader.last() };
            while let Some(record) = reader.record() {
                assert!(done.is_ok());
                seen.push(record.raw().to_vec());
                done = if forward { reader.next() } else { reader.prev() };
            }
            if done.is_err() {
                for movement in [Visible::first, Visible::last, Visible::next, Visible::prev] {
                    assert_eq!(movement(&mut reader).unwrap_err().to_string(), injected().to_string());
                    assert!(reader.record().is_none() && reader.pinned().is_none());
                }
                assert!(reader.seek(b"").is_err() && reader.seek_for_prev(b"\xff").is_err());
            }
            (seen, done.is_ok())
        };
        let (whole, true) = walk(u32::MAX) else { panic!("no fault, no error") };
        assert!(whole.len() > 5);
        for calls in 1.. {
            let (seen, finished) = walk(calls);
            assert!(whole.starts_with(&seen));
            if finished {
                assert_eq!(seen, whole);
                break;
            }
        }
    }
}

/// Behind a row of tombstones there may be a live record, and it may be the one that cannot be read.
#[test]
fn a_row_that_ends_in_an_error_is_no_hole() {
    let dead = (1..=40).map(|n| encoded(0, &[n], u64::from(n), Kind::Delete));
    let records =
        sorted(dead.chain([encoded(0, &[0], 50, Kind::Put), encoded(0, &[99], 51, Kind::Put)]).collect());
    let mut told = 0;
    for forward in [true, false] {
        for calls in 1..60 {
            let cursor = Failing::new(VecCursor::new(records.clone()), &Rc::new(Cell::new(calls)));
            let mut reader = Visible::new(
                Merge::new(vec![cursor]),
                KeyspaceId(0),
                Bound::Unbounded,
                Bound::Unbounded,
                Seqno(60),
            );
            let first = if forward { reader.first() } else { reader.last() };
            let moved = first.and_then(|()| if forward { reader.next() } else { reader.prev() });
            let hole = reader.take_hole();
            assert_eq!(hole.is_some(), moved.is_ok(), "{forward}, {calls}");
            told += u32::from(hole.is_some());
        }
    }
    assert!(told > 0);
}

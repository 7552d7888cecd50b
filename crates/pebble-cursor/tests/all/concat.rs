//! `Concat` against one sorted vector, and what it opens.

use std::cell::RefCell;

use pebble_cursor::{Concat, Cursor, Source};
use pebble_format::{InternalKey, KeyspaceId, Kind, Result, Seqno};
use proptest::prelude::*;

use crate::model::{
    Records, VecCursor, any_moves, any_records, assert_same_walk, cases, encoded, parsed, sorted,
};

/// Parts of a sorted vector, each with its bounds; remembers which were opened.
pub struct Parts {
    pub parts: Vec<Records>,
    pub opened: RefCell<Vec<usize>>,
}

impl Parts {
    pub fn new(records: &Records, len: usize) -> Self {
        let parts = records.chunks(len).map(|part| sorted(part.to_vec())).collect();
        Self { parts, opened: RefCell::default() }
    }
}

impl Source for Parts {
    type Cursor = VecCursor;

    fn len(&self) -> usize {
        self.parts.len()
    }

    fn first_key(&self, index: usize) -> InternalKey<'_> {
        parsed(self.parts[index].first().unwrap()).internal_key()
    }

    fn last_key(&self, index: usize) -> InternalKey<'_> {
        parsed(self.parts[index].last().unwrap()).internal_key()
    }

    fn open(&self, index: usize) -> Result<VecCursor> {
        self.opened.borrow_mut().push(index);
        Ok(VecCursor::new(self.parts[index].clone()))
    }
}

/// Children whose bounds are wider than what they hold, down to nothing.
struct Loose(Parts);

impl Source for Loose {
    type Cursor = VecCursor;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn first_key(&self, index: usize) -> InternalKey<'_> {
        self.0.first_key(index)
    }

    fn last_key(&self, index: usize) -> InternalKey<'_> {
        self.0.last_key(index)
    }

    fn open(&self, index: usize) -> Result<VecCursor> {
        let kept = if index % 3 == 1 { vec![] } else { self.0.parts[index][..1].to_vec() };
        Ok(VecCursor::new(sorted(kept)))
    }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn it_walks_the_parts_in_order(records in any_records(40), len in 1..9_usize, moves in any_moves()) {
        let records = sorted(records);
        let mut concat = Concat::new(Parts::new(&records, len));
        assert_same_walk(&mut concat, &mut VecCursor::new(records), &moves);
    }

    #[test]
    fn bounds_may_be_wider_than_the_records(records in any_records(40), len in 1..9_usize, moves in any_moves()) {
        let records = sorted(records);
        let loose = Loose(Parts::new(&records, len));
        let kept = (0..loose.len()).flat_map(|index| loose.open(index).unwrap().records.to_vec()).collect();
        assert_same_walk(&mut Concat::new(loose), &mut VecCursor::new(sorted(kept)), &moves);
    }
}

#[test]
fn it_opens_only_what_it_reaches() {
    let records = sorted((1..=9).map(|n| encoded(0, &[n], u64::from(n), Kind::Put)).collect());
    let mut concat = Concat::new(Parts::new(&records, 3));
    let target =
        |key| InternalKey { keyspace: KeyspaceId(0), ..InternalKey::lookup(KeyspaceId(0), key, Seqno::MAX) };
    concat.seek(target(&[4])).unwrap();
    concat.seek(target(&[6])).unwrap();
    concat.seek_before(target(&[6])).unwrap();
    assert_eq!(*concat.source().opened.borrow(), [1]);
    concat.seek_before(target(&[4])).unwrap();
    assert_eq!(*concat.source().opened.borrow(), [1, 0]);
    concat.seek(target(&[10])).unwrap();
    assert!(concat.record().is_none());
    assert_eq!(*concat.source().opened.borrow(), [1, 0]);
}

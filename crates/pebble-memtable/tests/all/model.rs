//! Against a `BTreeMap`: any keys, any order of arrival, any learned prefix.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use pebble_cursor::Cursor;
use pebble_format::{HeadPrefix, InternalKey, KeyspaceId, Kind, Seqno, Trailer};
use proptest::prelude::*;

use crate::log::{Log, key};

type Model = BTreeMap<(u16, Vec<u8>, Reverse<u64>), Vec<u8>>;

/// Few keys, so that they collide; empty ones; shared prefixes longer than a head; zeros that a head cannot tell apart.
fn user_key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => prop::collection::vec(0_u8..3, 0..4),
        2 => prop::collection::vec(prop::sample::select(vec![0_u8, 1, 255]), 0..3)
            .prop_map(|tail| [&b"a prefix of many keys/"[..], &tail].concat()),
        2 => (prop::sample::select(vec!["", "/", "0", "1"]), prop::collection::vec(any::<u8>(), 0..3))
            .prop_map(|(which, tail)| [b"a prefix of few keys", which.as_bytes(), &tail].concat()),
        1 => any::<u16>().prop_map(|n| n.to_be_bytes().to_vec()),
        1 => Just(vec![255; 12]),
    ]
}

fn prefix() -> impl Strategy<Value = HeadPrefix> {
    prop_oneof![
        Just(HeadPrefix::none()),
        (0_u16..4, user_key()).prop_map(|(keyspace, bytes)| HeadPrefix::new(KeyspaceId(keyspace), &bytes)),
        Just(HeadPrefix::new(KeyspaceId(0), b"a prefix of many keys/")),
    ]
}

/// Keys with their keyspace, and whether sequence numbers arrive in order (as they do in one log) or not.
fn inserts() -> impl Strategy<Value = (Vec<(u16, Vec<u8>, bool)>, u64)> {
    let one = (prop_oneof![4 => Just(0_u16), 1 => 0_u16..3], user_key(), any::<bool>());
    (prop::collection::vec(one, 0..400), prop::sample::select(vec![1_u64, 7, 400]))
}

fn seek_to(model: &Model, target: &(u16, Vec<u8>, Reverse<u64>)) -> Option<(u16, Vec<u8>, u64)> {
    model.range(target..).next().map(|((keyspace, key, trailer), _)| (*keyspace, key.clone(), trailer.0))
}

fn under(cursor: &impl Cursor) -> Option<(u16, Vec<u8>, u64)> {
    cursor.record().map(|record| (record.keyspace().0, record.key().to_vec(), record.trailer().0))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_memtable_is_an_ordered_map(
        (inserts, stride) in inserts(),
        prefix in prefix(),
        probes in prop::collection::vec((0_u16..4, user_key(), 0_u64..420), 40),
    ) {
        let (mut log, memtable) = Log::new(prefix, 1 << 13);
        let mut model = Model::new();
        for (index, (keyspace, user_key, is_put)) in inserts.iter().enumerate() {
            // A stride that shares no factor with 401 visits every number once.
            let seqno = Seqno(1 + (index as u64 * stride) % 401);
            let trailer = Trailer::new(seqno, if *is_put { Kind::Put } else { Kind::Delete });
            let value = format!("value {index}");
            log.add(*keyspace, user_key, trailer, value.as_bytes()).unwrap();
            model.insert((*keyspace, user_key.clone(), Reverse(trailer.0)), value.into_bytes());
            if index % 50 == 0 {
                prop_assert!(log.add(*keyspace, user_key, trailer, b"twice").is_err());
            }
        }
        prop_assert_eq!(memtable.len(), model.len());

        let mut cursor = memtable.cursor();
        cursor.first().unwrap();
        for ((keyspace, user_key, trailer), value) in &model {
            let record = cursor.record().unwrap();
            let found = (record.keyspace().0, record.key(), record.trailer().0);
            prop_assert_eq!(found, (*keyspace, &user_key[..], trailer.0));
            prop_assert_eq!(record.value(), &value[..]);
            cursor.next().unwrap();
        }
        prop_assert!(cursor.record().is_none());
        cursor.last().unwrap();
        for (keyspace, user_key, trailer) in model.keys().rev() {
            prop_assert_eq!(under(&cursor), Some((*keyspace, user_key.clone(), trailer.0)));
            cursor.prev().unwrap();
        }
        prop_assert!(cursor.record().is_none());

        for (keyspace, user_key, seqno) in &probes {
            let lookup = key(*keyspace, user_key, *seqno);
            let target = (*keyspace, user_key.clone(), Reverse(lookup.trailer.0));
            let at = seek_to(&model, &target);
            let visible = at.clone().filter(|(k, u, _)| k == keyspace && u == user_key);
            let got = memtable.get(lookup);
            prop_assert_eq!(got.map(|record| record.trailer().0), visible.map(|(_, _, trailer)| trailer));
            let pinned = memtable.get_pinned(lookup).map(|pinned| pinned.record().raw().to_vec());
            prop_assert_eq!(pinned, got.map(|record| record.raw().to_vec()));

            cursor.seek(lookup).unwrap();
            prop_assert_eq!(under(&cursor), at);
            cursor.seek_before(lookup).unwrap();
            let before = model.range(..&target).next_back();
            prop_assert_eq!(under(&cursor), before.map(|((k, u, t), _)| (*k, u.clone(), t.0)));
            // Back and forth over the edges of leaves.
            if under(&cursor).is_some() {
                cursor.next().unwrap();
                prop_assert_eq!(under(&cursor), seek_to(&model, &target));
            }
            cursor.seek(lookup).unwrap();
            if under(&cursor).is_some() {
                cursor.prev().unwrap();
                prop_assert_eq!(under(&cursor), before.map(|((k, u, t), _)| (*k, u.clone(), t.0)));
            }
        }

        let own = |entry: Option<InternalKey<'_>>| {
            entry.map(|key| (key.keyspace.0, key.user_key.to_vec(), key.trailer.0))
        };
        let modelled = |entry: Option<&(u16, Vec<u8>, Reverse<u64>)>| entry.map(|(k, u, t)| (*k, u.clone(), t.0));
        prop_assert_eq!(own(memtable.first()), modelled(model.keys().next()));
        prop_assert_eq!(own(memtable.last()), modelled(model.keys().next_back()));
        let numbers = || model.keys().map(|(_, _, trailer)| Seqno(trailer.0 >> 8));
        prop_assert_eq!(memtable.seqno_range(), numbers().min().zip(numbers().max()));
        let learned = memtable.learned_prefix();
        if let (Some(first), Some(last)) = (memtable.first(), memtable.last()) {
            prop_assert_eq!(learned, HeadPrefix::between(first, last));
        }
    }
}

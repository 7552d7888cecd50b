//! A model of the region: every interleaving, and every order that the memory model allows, of the one appender with
//! readers, and of an appender that wants the region for another use.
//!
//! `region.rs` is compiled here a second time, over loom's counts and atomics, and with a cell for each granule of its
//! memory, so that a read without an order to the write is a failure even where the bytes come out right. Run with
//! `RUSTFLAGS="--cfg loom"`.
#![cfg(loom)]
#![allow(clippy::unwrap_used, dead_code, missing_docs, reason = "tests; not every method is driven")]

#[path = "../src/region.rs"]
mod region;

/// Loom's primitives in the place of the standard ones.
mod sync {
    use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{AtomicUsize, Ordering};

    const GRANULE: usize = 4;

    pub(crate) struct Accesses(Vec<UnsafeCell<()>>);

    impl Accesses {
        pub(crate) fn of(capacity: usize) -> Self {
            Self((0..capacity.div_ceil(GRANULE)).map(|_| UnsafeCell::new(())).collect())
        }

        fn cells(&self, offset: usize, len: usize) -> &[UnsafeCell<()>] {
            &self.0[offset / GRANULE..(offset + len).div_ceil(GRANULE)]
        }

        pub(crate) fn read(&self, offset: usize, len: usize) {
            self.cells(offset, len).iter().for_each(|cell| cell.with(|_| ()));
        }

        pub(crate) fn write(&self, offset: usize, len: usize) {
            self.cells(offset, len).iter().for_each(|cell| cell.with_mut(|_| ()));
        }
    }
}

use std::sync::atomic::{AtomicUsize as StdAtomicUsize, Ordering as StdOrdering};

use loom::sync::Arc;
use loom::thread;
use region::{AppendRegion, Appender};

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    let bound = std::env::var("PEBBLE_LOOM_BOUND").ok().and_then(|bound| bound.parse().ok());
    builder.preemption_bound = Some(bound.unwrap_or(3));
    let executions = std::sync::Arc::new(StdAtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&executions);
    builder.check(move || {
        counted.fetch_add(1, StdOrdering::Relaxed);
        model();
    });
    let executions = executions.load(StdOrdering::Relaxed);
    println!("{executions} executions");
    assert!(executions > 1, "a model that does not branch models nothing");
}

fn append(appender: &mut Appender, word: u32) {
    appender.spare()[..4].copy_from_slice(&word.to_le_bytes());
    appender.fill(4);
}

fn words(bytes: &[u8]) -> Vec<u32> {
    assert!(bytes.len().is_multiple_of(4), "a frame is published whole");
    bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

/// What a reader sees is what was appended so far, and never changes.
#[test]
fn reservation_and_publish_against_two_readers() {
    check(|| {
        let mut appender = AppendRegion::heap(16);
        append(&mut appender, 1);
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let region = Arc::clone(appender.region());
                thread::spawn(move || {
                    let first = words(region.bytes());
                    let second = words(region.bytes());
                    assert!(first.iter().copied().eq(1..=u32::try_from(first.len()).unwrap()));
                    assert!(second.starts_with(&first) && !first.is_empty());
                })
            })
            .collect();
        append(&mut appender, 2);
        append(&mut appender, 3);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        assert_eq!(words(appender.region().bytes()), [1, 2, 3]);
    });
}

/// A region is used again only when no reader holds it, and what a reader holds stays as it was.
#[test]
fn recycling_against_readers_that_pin() {
    check(|| {
        let mut appender = AppendRegion::heap(8);
        append(&mut appender, 1);
        append(&mut appender, 2);
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let region = Arc::clone(appender.region());
                thread::spawn(move || {
                    assert_eq!(words(region.bytes()), [1, 2]);
                    assert_eq!(words(region.tail(4).unwrap()), [2], "pinned, so the same");
                })
            })
            .collect();
        if appender.recycle() {
            append(&mut appender, 7);
            assert_eq!(words(appender.region().bytes()), [7]);
        }
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        assert!(appender.filled() == 4 || appender.recycle(), "nobody holds it any more");
    });
}

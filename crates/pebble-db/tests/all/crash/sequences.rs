//! All sequences of a few calls, and a crash at every event of each.
//!
//! ```text
//!     put ── flush ── reopen ── sync
//!                               └──┘ images are taken in the last call: the events before it are those of the
//!                                    shorter sequence, which has its own turn
//! ```

use super::scripted::{Scripted, lock};
use super::scripts::{delete, everywhere, put};
use super::tally::Tally;
use super::visit::Depth;
use crate::support::{Config, env_number};
use pebble_db::LogIo;

/// A call of a sequence.
#[derive(Clone, Copy, Debug)]
enum Call {
    Put,
    Delete,
    Batch,
    Sync,
    Flush,
    Compact,
    Reopen,
}

const CALLS: [Call; 7] =
    [Call::Put, Call::Delete, Call::Batch, Call::Sync, Call::Flush, Call::Compact, Call::Reopen];

impl Call {
    fn make(self, run: &mut Scripted) {
        match self {
            // Three of them are more than a segment holds.
            Self::Put => run.commit(false, |n| vec![put("default", n, 1500)]),
            // Of the key that the call before put, if it was a put.
            Self::Delete => run.commit(false, |n| vec![delete("default", n - 1)]),
            Self::Batch => run.commit(false, everywhere),
            Self::Sync => run.persist(),
            Self::Flush => run.flush(),
            Self::Compact => run.compact(),
            Self::Reopen => {
                run.close();
                run.open();
            }
        }
    }
}

/// The sequence with a number, of `len` calls.
fn sequence(mut number: usize, len: u32) -> Vec<Call> {
    let mut calls = Vec::new();
    for _ in 0..len {
        calls.push(CALLS[number % CALLS.len()]);
        number /= CALLS.len();
    }
    calls
}

fn run(log_io: LogIo, calls: &[Call], total: &mut Tally) {
    let mut run = Scripted::new(Config::tiny(log_io));
    run.depth = Depth { images: 3, again: 40, to_the_first: false };
    run.thin = u64::MAX;
    run.open();
    run.keyspace("a");
    run.keyspace("b");
    let (last, first) = calls.split_last().unwrap();
    for call in first {
        call.make(&mut run);
    }
    let seen = run.fs.events();
    run.thin = 1;
    run.watch("a sequence");
    last.make(&mut run);
    run.check();
    run.fs.clear_on_event();
    let (_, tally) = &mut *lock(&run.shared);
    assert_eq!(seen + tally.events, run.fs.events(), "{calls:?}: an event was missed");
    assert!(tally.events == 0 || tally.images >= 2 * tally.events, "{calls:?}: {} images", tally.images);
    for failure in &mut tally.failures {
        failure.insert_str(0, &format!("{calls:?}: "));
    }
    total.add(tally);
}

/// `PEBBLE_SEQUENCE_LEN=5` takes all of 19,607.
fn every_sequence(log_io: LogIo) {
    let longest = u32::try_from(env_number("PEBBLE_SEQUENCE_LEN", 4)).unwrap();
    let (mut total, mut sequences) = (Tally::default(), 0_u64);
    for len in 1..=longest {
        for number in 0..CALLS.len().pow(len) {
            run(log_io, &sequence(number, len), &mut total);
            sequences += 1;
        }
    }
    println!("crash, {log_io:?}: {sequences} sequences of up to {longest} calls");
    assert!(longest != 4 || sequences == 2800, "{sequences} sequences");
    crate::campaign::count(&["I1", "I2", "I3", "I7"], "sequences", sequences);
    total.close(&format!("{log_io:?}, sequences"), if longest < 4 { 0 } else { 60_000 });
}

#[test]
fn every_sequence_of_four_calls_with_a_mapped_log() {
    every_sequence(LogIo::Map);
}

#[test]
fn every_sequence_of_four_calls_with_a_written_log() {
    every_sequence(LogIo::Write);
}

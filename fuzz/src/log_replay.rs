//! The replay of a log: up to four segments, any bytes in each, any floor.
//!
//! ```text
//!   input = flags u8, floor u32, then for each segment: step of its number u8, length u16, bytes
//! ```
//!
//! Oracle: mapped and read segments give the same; what counts are the frames that the naive reader of
//! [`log_frame`](crate::log_frame) finds; strict agrees with lenient or refuses; nothing is written; and a log that
//! is begun behind the recovered one is read back.
//!
//! Threading: as every body.

use std::path::Path;
use std::sync::Arc;

use pebble_format::log::{LogPosition, SEGMENT_HEADER_LEN, segment_epoch};
use pebble_format::{Error, FileName};
use pebble_vfs::{Fs, SimFs};
use pebble_wal::{LogIo, LogOptions, LogWriter, Recovered, Recovery, recover};
use zerocopy::IntoBytes;

use crate::disk::{DIR, Files, assert_told, disk, dump};
use crate::forge::{self, UUID};
use crate::guard::{allowance, bounded};
use crate::input::Input;
use crate::log_frame::{BOTH, assert_frames, log_of, naive};
use crate::{Seed, Target};

/// See the [module](self).
pub const TARGET: Target = Target { name: "log_replay", run, repair: Some(repair), seeds, rounds: 5_000 };

/// Most segments of an input.
const SEGMENTS_MAX: usize = 4;
/// Bytes of an input before the first segment.
const FRONT: usize = 5;

/// Where the segments of an input lie in it, with their numbers.
fn segments(bytes: &[u8]) -> Vec<(u32, std::ops::Range<usize>)> {
    let mut input = Input(bytes.get(FRONT..).unwrap_or_default());
    let (mut number, mut found) = (0, Vec::new());
    while !input.is_empty() && found.len() < SEGMENTS_MAX {
        number += 1 + u32::from(input.u8() % 3);
        let len = usize::from(input.u16());
        let at = bytes.len() - input.0.len();
        let len = input.take(len).len();
        found.push((number, at..at + len));
    }
    found
}

fn repair(bytes: &mut [u8]) {
    for (number, range) in segments(bytes) {
        forge::segment(&mut bytes[range], &UUID, number);
    }
}

fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let flags = input.u8();
    let floor = match flags >> 4 & 3 {
        0 | 1 => LogPosition::ZERO,
        _ => LogPosition(u64::from(input.u16()) << 32 | u64::from(input.u16())),
    };
    let first = 1 + u32::from(flags & 3);
    let found = segments(bytes);
    let file = |(number, range): &(u32, std::ops::Range<usize>)| {
        (FileName::Log(u64::from(*number)).to_string(), bytes[range.clone()].to_vec())
    };
    let files: Files = found.iter().map(file).collect();
    let sim = disk(&files);
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    let read = |mode, io| {
        bounded(allowance(bytes.len()), || recover(&fs, Path::new(DIR), UUID, first, floor, mode, io))
    };
    let [mapped, in_memory] = BOTH.map(|io| read(Recovery::PointInTime, io));
    let (lenient, other) = match (mapped, in_memory) {
        (Ok(mapped), Ok(in_memory)) => (mapped, in_memory),
        (Err(error), Err(other)) => {
            assert!(matches!(error, Error::UnsupportedVersion { .. }), "{error}");
            assert_eq!(error.to_string(), other.to_string());
            return;
        }
        (mapped, in_memory) => panic!("{mapped:?} mapped, {in_memory:?} in memory"),
    };
    let facts = |log: &Recovered| (log.end, log.sealed, log.dropped_bytes, log.promise, log.next_segment);
    assert_eq!(facts(&lenient), facts(&other));
    assert!(lenient.next_segment >= first && found.iter().all(|(number, _)| *number < lenient.next_segment));
    assert!(
        floor == LogPosition::ZERO || lenient.next_segment > floor.segment(),
        "a log that falls below its floor"
    );
    for number in lenient.segments() {
        let (_, range) = found.iter().find(|(own, _)| *own == number).unwrap();
        let whole = &bytes[range.clone()];
        let expected = naive(whole, number, segment_epoch(&UUID, number));
        assert_frames(&lenient, number, whole, &expected);
        assert_frames(&other, number, whole, &expected);
    }
    let counted = lenient.segments().last();
    assert!(counted.is_none_or(|last| last == lenient.end.segment()));
    match read(Recovery::Strict, LogIo::Map) {
        Ok(strict) => {
            assert_eq!(facts(&strict), facts(&lenient));
            assert!(strict.end >= strict.promise.max(floor) && lenient.damage.is_none());
        }
        Err(error) => {
            assert_told(&error);
            assert!(lenient.damage.is_some(), "refused without damage: {error}");
        }
    }
    assert!(dump(&sim) == files, "a recovery wrote");
    goes_on(&sim, &lenient);
}

/// What an engine does after a crash: a new log in a segment of its own, and nothing before it matters any more.
fn goes_on(sim: &SimFs, recovered: &Recovered) {
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    let options = LogOptions { segment_len_min: 4096, segment_len_max: 4096, ..LogOptions::new(UUID) };
    let next = recovered.next_segment;
    let mut log = LogWriter::create(Arc::clone(&fs), Path::new(DIR), options, next, recovered.end).unwrap();
    let appended = log.append(12, 3, |payload| payload.copy_from_slice(b"what follows")).unwrap();
    log.sync_handle().wait_durable(appended.end).unwrap();
    drop(log);
    let floor = LogPosition::new(next, 0);
    let again = recover(&fs, Path::new(DIR), UUID, next, floor, Recovery::Strict, LogIo::Write).unwrap();
    let payloads: Vec<_> = again.frames().map(|frame| (frame.payload.to_vec(), frame.count)).collect();
    assert_eq!(payloads, [(b"what follows".to_vec(), 3)]);
}

fn seeds() -> Vec<Seed> {
    let segment = |number: u32, previous: LogPosition, frames: &[u8], spare: usize| {
        let header = forge::segment_header(&UUID, number, previous.0);
        [header.as_bytes(), frames, &vec![0; spare]].concat()
    };
    let input = |front: [u8; FRONT], segments: &[Vec<u8>]| {
        let mut bytes = front.to_vec();
        for segment in segments {
            bytes.push(0);
            bytes.extend_from_slice(&(segment.len() as u16).to_le_bytes());
            bytes.extend_from_slice(segment);
        }
        bytes
    };
    let none = LogPosition::ZERO;
    let one = log_of(&[(b"1111", 1, none), (b"22222222", 2, LogPosition::new(1, 92))], 1);
    let end = LogPosition::new(1, (SEGMENT_HEADER_LEN + one.len()) as u32);
    let two = log_of(&[(b"33333333", 1, end), (b"", 0, LogPosition::new(2, 64))], 2);
    let [whole, next] = [segment(1, none, &one, 16), segment(2, end, &two, 8)];
    let third = segment(3, LogPosition::new(2, 88), &log_of(&[(b"late", 1, none)], 3), 0);
    let torn = segment(1, none, &one[..40], 0);
    vec![
        ("two", input([0; FRONT], &[whole.clone(), next.clone()])),
        ("floor", input([0x20, 1, 0, 92, 0], &[whole.clone(), next.clone()])),
        ("second", input([1; FRONT], &[whole.clone(), next.clone(), third])),
        ("torn", input([0; FRONT], &[torn, next])),
        ("none", vec![0; FRONT]),
    ]
}

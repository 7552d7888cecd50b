//! The frame reader: one segment whose header is right, and any bytes behind it.
//!
//! Oracle: a reader that is written here, from `docs/format/log.md` alone, takes the same frames; a strict recovery
//! refuses exactly what was promised further on; nothing is written.
//!
//! Threading: as every body.

use std::path::Path;
use std::sync::Arc;

use pebble_format::log::{
    FRAME_HEADER_LEN, FrameFields, FrameHeader, LogPosition, SEGMENT_HEADER_LEN, segment_epoch,
};
use pebble_vfs::Fs;
use pebble_wal::{LogIo, Recovered, Recovery, recover};
use zerocopy::{FromBytes, IntoBytes};

use crate::disk::{DIR, Files, assert_told, disk, dump};
use crate::forge::{self, UUID};
use crate::guard::{allowance, bounded};
use crate::{Seed, Target};

/// See the [module](self).
pub const TARGET: Target = Target { name: "log_frame", run, repair: Some(repair), seeds, rounds: 10_000 };

/// Mapped and read segments must give the same.
pub(crate) const BOTH: [LogIo; 2] = [LogIo::Map, LogIo::Write];

fn repair(bytes: &mut [u8]) {
    let mut whole = [[0; SEGMENT_HEADER_LEN].as_slice(), bytes].concat();
    forge::frames(&mut whole, SEGMENT_HEADER_LEN, segment_epoch(&UUID, 1));
    bytes.copy_from_slice(&whole[SEGMENT_HEADER_LEN..]);
}

/// What the naive reader finds in a segment: where payloads begin, their lengths and counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Naive {
    pub(crate) payloads: Vec<(usize, usize, u32)>,
    pub(crate) end: usize,
    pub(crate) sealed: bool,
    pub(crate) promise: u64,
}

pub(crate) fn naive(bytes: &[u8], number: u32, epoch: u32) -> Naive {
    let mut found = Naive { end: SEGMENT_HEADER_LEN, ..Naive::default() };
    loop {
        let Some(rest) = bytes.get(found.end..) else { return found };
        let Ok((header, rest)) = FrameHeader::read_from_prefix(rest) else { return found };
        let (len, count) = (header.len.get() as usize, header.count.get());
        let Some(payload) = rest.get(..len) else { return found };
        let start = LogPosition::new(number, found.end as u32);
        let whole = len % 4 == 0
            && (len == 0) == (count == 0)
            && header.epoch.get() == epoch
            && header.promise.get() <= start.0
            && header.crc.get() == header.checksum(found.end as u32, payload);
        if !whole {
            return found;
        }
        if count > 0 {
            found.payloads.push((found.end + FRAME_HEADER_LEN, len, count));
        }
        found.sealed = count == 0;
        found.promise = found.promise.max(header.promise.get());
        found.end += FRAME_HEADER_LEN + len;
    }
}

/// Checks that a segment's frames in `recovered` are those of the naive reader.
pub(crate) fn assert_frames(recovered: &Recovered, number: u32, bytes: &[u8], naive: &Naive) {
    let frames = recovered.frames().filter(|frame| frame.end.segment() == number);
    let mut count = 0;
    for (frame, (at, len, records)) in frames.zip(&naive.payloads) {
        assert_eq!((frame.offset, frame.payload.len(), frame.count), (*at, *len, *records));
        assert_eq!(frame.payload, &bytes[*at..*at + *len], "a payload that is not the file's");
        assert_eq!(frame.region.tail(*at).map(|tail| &tail[..*len]), Some(frame.payload));
        assert_eq!(frame.end, LogPosition::new(number, (*at + *len) as u32));
        count += 1;
    }
    let all = recovered.frames().filter(|frame| frame.end.segment() == number).count();
    assert_eq!((count, all), (naive.payloads.len(), naive.payloads.len()), "frames of segment {number}");
}

fn run(bytes: &[u8]) {
    let header = forge::segment_header(&UUID, 1, LogPosition::ZERO.0);
    let whole = [header.as_bytes(), bytes].concat();
    let files = Files::from([("000001.log".to_owned(), whole.clone())]);
    let sim = disk(&files);
    let fs: Arc<dyn Fs> = Arc::new(sim.clone());
    let read = |mode, io| {
        bounded(allowance(whole.len()), || recover(&fs, Path::new(DIR), UUID, 1, LogPosition::ZERO, mode, io))
    };
    let expected = naive(&whole, 1, segment_epoch(&UUID, 1));
    for io in BOTH {
        let lenient = read(Recovery::PointInTime, io).unwrap();
        assert_frames(&lenient, 1, &whole, &expected);
        assert_eq!(lenient.end, LogPosition::new(1, expected.end as u32));
        assert_eq!(lenient.sealed, expected.sealed);
        assert!(lenient.promise.0 >= expected.promise && lenient.durable() <= lenient.end);
        assert!(lenient.dropped_bytes <= (whole.len() - expected.end) as u64);
        match read(Recovery::Strict, io) {
            Ok(strict) => {
                assert!(strict.end >= strict.promise && lenient.damage.is_none());
                assert_eq!((strict.end, strict.promise), (lenient.end, lenient.promise));
            }
            Err(error) => {
                assert_told(&error);
                assert!(lenient.damage.is_some(), "refused without damage: {error}");
            }
        }
    }
    assert!(dump(&sim) == files, "a recovery wrote");
}

/// Frames behind a segment's header; a payload of no bytes is a seal.
pub(crate) fn log_of(payloads: &[(&[u8], u32, LogPosition)], number: u32) -> Vec<u8> {
    let epoch = segment_epoch(&UUID, number);
    let mut bytes = Vec::new();
    for (payload, count, promise) in payloads {
        let offset = (SEGMENT_HEADER_LEN + bytes.len()) as u32;
        let fields = FrameFields { len: payload.len() as u32, count: *count, epoch, promise: *promise };
        let mut header = [0; FRAME_HEADER_LEN];
        fields.write(&mut header, offset, payload);
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(payload);
    }
    bytes
}

fn seeds() -> Vec<Seed> {
    let none = LogPosition::ZERO;
    let first = LogPosition::new(1, 64);
    let plain = log_of(&[(b"one payload.", 1, none), (b"and another.", 2, first)], 1);
    let sealed = log_of(&[(b"1234", 1, none), (b"", 0, LogPosition::new(1, 92))], 1);
    let mut torn = log_of(&[(&[7; 40], 1, none), (&[8; 40], 1, none), (&[9; 8], 1, first)], 1);
    torn[70] ^= 1;
    let stale = [plain.as_slice(), &[0; 24], &log_of(&[(b"stale...", 1, none)], 2)].concat();
    vec![("plain", plain), ("sealed", sealed), ("torn", torn), ("stale", stale), ("empty", Vec::new())]
}

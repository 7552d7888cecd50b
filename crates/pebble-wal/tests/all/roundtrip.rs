//! What is appended is replayed: over segments, sizes, both ways of writing, and the real file system.

use std::sync::Arc;

use pebble_format::Error;
use pebble_vfs::{Fs, OsFs, TraceFs};
use pebble_wal::{LogIo, LogOptions, LogPosition, LogWriter, Recovery, recover};

use crate::support::*;

#[test]
fn many_segments_are_replayed_in_order() {
    for io in BOTH {
        let (_, fs) = sim(1);
        let mut log = create(&fs, io);
        for index in 0..400 {
            let before = log.segment();
            let appended = append(&mut log, index);
            assert_eq!(appended.end, log.end());
            assert_eq!(appended.new_segment, index == 0 || log.segment() != before);
            assert_eq!(log.region().tail(appended.offset), Some(&payload(index)[..]));
        }
        assert!(log.segment() > 8, "{}", log.segment());
        assert_eq!(replayed(&fs, 1), (0..400).collect::<Vec<_>>());
        let recovered = strict(&fs, 1, LogPosition::ZERO).unwrap();
        assert_eq!((recovered.end, recovered.sealed), (log.end(), false));
        assert_eq!((recovered.dropped_bytes, recovered.next_segment), (0, log.segment() + 1));
    }
}

#[test]
fn segments_double_up_to_the_largest() {
    let (_, fs) = sim(2);
    let mut log = create(&fs, LogIo::Map);
    for index in 0..200 {
        append(&mut log, index);
    }
    let lengths: Vec<u64> = files(&*fs).into_iter().map(|(_, len)| len >> 10).collect();
    assert_eq!(lengths[..4], [4, 8, 16, 16]);
    assert_eq!(log.disk_bytes(), lengths.iter().sum::<u64>() << 10);
    assert_eq!((log.mapped_bytes(), log.heap_bytes()), (log.disk_bytes(), 0));
}

#[test]
fn a_payload_larger_than_any_segment_gets_its_own() {
    for io in BOTH {
        let (_, fs) = sim(3);
        let mut log = create(&fs, io);
        append(&mut log, 0);
        let large = sized(1, 102_280);
        let appended = try_append(&mut log, &large).unwrap();
        assert!(appended.new_segment);
        append(&mut log, 2);
        assert_eq!(replayed(&fs, 1), [0, 1, 2]);
        let lengths: Vec<u64> = files(&*fs).into_iter().map(|(_, len)| len).collect();
        assert_eq!(lengths, [4096, 102_400, 16_384]);
    }
}

#[test]
fn every_length_fits_up_to_the_very_end_of_a_segment() {
    for len in (3900..4100).step_by(4) {
        let (_, fs) = sim(4);
        let mut log = create(&fs, LogIo::Map);
        try_append(&mut log, &sized(0, len)).unwrap();
        let floor = log.seal().unwrap();
        let recovered = strict(&fs, 1, floor).unwrap();
        assert!(recovered.sealed);
        assert_eq!(indexes(&recovered), [0], "{len}");
    }
}

#[test]
fn wrong_lengths_and_counts_are_refused_and_change_nothing() {
    let (_, fs) = sim(5);
    let mut log = create(&fs, LogIo::Map);
    let end = log.end();
    for (len, count) in [(0, 1), (3, 1), (5, 1), (4, 0), (0, 0), ((2 << 30) + 4, 1), (usize::MAX - 3, 1)] {
        let error = log.append(len, count, |_| unreachable!()).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
    }
    assert_eq!(log.end(), end);
    for (min, max) in [(0, 4096), (4095, 8192), (8192, 4096), (4096, u32::MAX)] {
        let options = LogOptions { segment_len_min: min, segment_len_max: max, ..options(LogIo::Map) };
        assert!(LogWriter::create(Arc::clone(&fs), dir(), options, 9, LogPosition::ZERO).is_err());
    }
    assert_eq!(files(&*fs).len(), 1);
}

#[test]
fn an_empty_directory_is_an_empty_log() {
    let (_, fs) = sim(6);
    let recovered = strict(&fs, 1, LogPosition::ZERO).unwrap();
    assert_eq!((recovered.end, recovered.next_segment), (LogPosition::new(1, 0), 1));
    assert_eq!(recovered.frames().count(), 0);
    let mut log = LogWriter::resume(Arc::clone(&fs), dir(), options(LogIo::Map), recovered).unwrap();
    append(&mut log, 0);
    assert_eq!((log.segment(), replayed(&fs, 1)), (1, vec![0]));
}

#[test]
fn the_real_file_system_gives_the_same() {
    for io in BOTH {
        let temp = tempfile::tempdir().unwrap();
        let fs: Arc<dyn Fs> = Arc::new(OsFs);
        let mut log =
            LogWriter::create(Arc::clone(&fs), temp.path(), options(io), 1, LogPosition::ZERO).unwrap();
        assert_eq!(log.io(), io);
        for index in 0..200 {
            append(&mut log, index);
            if index == 100 {
                log.sync_handle().persist().unwrap();
            }
        }
        let floor = log.seal().unwrap();
        drop(log);
        for reading in BOTH {
            let recovered = recover(&fs, temp.path(), UUID, 1, floor, Recovery::Strict, reading).unwrap();
            assert_eq!(indexes(&recovered), (0..200).collect::<Vec<_>>());
            assert!(recovered.sealed && recovered.promise >= LogPosition::new(1, 64));
        }
    }
}

#[test]
fn an_append_makes_no_call_and_a_sync_only_those_it_owes() {
    let (_, fs) = sim(7);
    let trace = TraceFs::new(fs, dir());
    let fs: Arc<dyn Fs> = Arc::new(trace.clone());
    let mut log = create(&fs, LogIo::Map);
    let sync = log.sync_handle();
    trace.clear();
    for index in 0..3 {
        append(&mut log, index);
    }
    assert_eq!(trace.transcript(), "");
    sync.persist().unwrap();
    sync.persist().unwrap();
    sync.wait_durable(log.end()).unwrap();
    assert_eq!(trace.transcript(), "sync-dir .\nsync 000001.log\n");
    trace.clear();

    append(&mut log, 3);
    log.rotate().unwrap();
    append(&mut log, 4);
    assert_eq!(trace.transcript(), "create 000002.log\nallocate 000002.log 8192\nmap-mut 000002.log\n");
    trace.clear();
    sync.wait_durable(log.end()).unwrap();
    assert_eq!(trace.transcript(), "sync-dir .\nsync 000001.log\nsync 000002.log\n");
    trace.clear();

    log.rotate().unwrap();
    log.rotate().unwrap();
    append(&mut log, 5);
    sync.persist().unwrap();
    log.retire(3);
    append(&mut log, 6);
    sync.persist().unwrap();
    assert_eq!(
        trace.transcript(),
        "create 000003.log\nallocate 000003.log 16384\nmap-mut 000003.log\nsync-dir .\nsync 000003.log\n\
         remove 000001.log\nremove 000002.log\nsync 000003.log\n"
    );
    assert_eq!(sync.syncs(), 4);
}

/// Reads the file with nothing but what `docs/format/log.md` says.
#[test]
fn the_bytes_are_those_of_the_document() {
    let (_, fs) = sim(8);
    let previous_end = LogPosition::new(6, 900);
    let mut log = LogWriter::create(Arc::clone(&fs), dir(), options(LogIo::Map), 7, previous_end).unwrap();
    log.append(4, 3, |to| to.copy_from_slice(b"abcd")).unwrap();
    log.sync_handle().persist().unwrap();
    log.append(8, 1, |to| to.copy_from_slice(b"efghijkl")).unwrap();
    assert_eq!(log.seal().unwrap(), LogPosition::new(7, 148));
    let bytes = read(&*fs, "000007.log");
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let crc = pebble_format::checksum::crc32c;
    let epoch = pebble_format::log::segment_epoch(&UUID, 7);

    assert_eq!((bytes.len(), &bytes[..8], &bytes[16..32]), (4096, &b"pebl\0log"[..], &UUID[..]));
    assert_eq!((u32_at(8), u32_at(12), u64_at(32), u32_at(40)), (1, epoch, 6 << 32 | 900, 7));
    assert_eq!((&bytes[44..60], u32_at(60)), (&[0; 16][..], crc(0, &bytes[..60])));
    let durable = |offset: u64| 7 << 32 | offset;
    for (at, len, count, promise) in
        [(64, 4, 3, previous_end.0), (92, 8, 1, durable(92)), (124, 0, 0, durable(124))]
    {
        assert_eq!((u32_at(at + 4), u32_at(at + 8), u32_at(at + 12)), (len, count, epoch));
        assert_eq!(u64_at(at + 16), promise);
        let place = [epoch.to_le_bytes(), (at as u32).to_le_bytes()].concat();
        assert_eq!(u32_at(at), crc(crc(0, &place), &bytes[at + 4..at + 24 + len as usize]));
    }
    assert_eq!((&bytes[88..92], &bytes[116..124]), (&b"abcd"[..], &b"efghijkl"[..]));
    assert!(bytes[148..].iter().all(|byte| *byte == 0));
}

/// On a real file system: every part of a large, fresh segment is given once and before appends come to it; none of a
/// small segment, of a recycled one, or of a log on the heap.
#[test]
fn pages_are_asked_for_ahead_of_appends_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let options = |io, len| LogOptions {
        io,
        segment_len_min: len,
        segment_len_max: len,
        ..LogOptions::new(*b"sixteen bytes id")
    };
    for (number, (io, len, parts)) in
        [(LogIo::Map, 16 << 20, 4), (LogIo::Map, 1 << 20, 0), (LogIo::Write, 16 << 20, 0)]
            .into_iter()
            .enumerate()
    {
        let dir = dir.path().join(number.to_string());
        OsFs.create_dir(&dir).unwrap();
        let fs: Arc<dyn Fs> = Arc::new(OsFs);
        let mut log = LogWriter::create(fs, &dir, options(io, len), 1, LogPosition::ZERO).unwrap();
        let mut lives = Vec::new();
        for _life in 0..2 {
            let segment = log.segment();
            let mut given = 0;
            while log.segment() == segment {
                log.append(60_000, 1, |to| to.fill(7)).unwrap();
                if let Some(ahead) = log.pages_ahead() {
                    given += 1;
                    ahead.populate();
                }
            }
            lives.push(given);
            log.retire(log.segment());
            log.rotate().unwrap();
        }
        // The append that began the next segment was of that one: what it was given counts for this life.
        assert_eq!(lives[0], if parts == 0 { 0 } else { parts + 1 }, "{io:?}, {len}");
        assert!(lives[1] <= 1, "{io:?}, {len}: a recycled segment has its pages");
    }
}

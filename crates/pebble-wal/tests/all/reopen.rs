//! Closing, going on, giving segments another life, and what must not come back from an earlier one.

use std::sync::Arc;

use pebble_format::Error;
use pebble_vfs::Fs;
use pebble_vfs::sim::CrashImage;
use pebble_wal::{LogIo, LogOptions, LogPosition, LogWriter};

use crate::support::*;

fn resume(fs: &Arc<dyn Fs>, io: LogIo, first: u32, floor: LogPosition) -> LogWriter {
    let recovered =
        pebble_wal::recover(fs, dir(), UUID, first, floor, pebble_wal::Recovery::Strict, io).unwrap();
    LogWriter::resume(Arc::clone(fs), dir(), options(io), recovered).unwrap()
}

#[test]
fn a_sealed_log_goes_on_behind_its_seal() {
    for io in BOTH {
        let (_, fs) = sim(1);
        let mut log = create(&fs, io);
        let mut floor = LogPosition::ZERO;
        for round in 0..6 {
            append(&mut log, round);
            floor = log.seal().unwrap();
            assert_eq!(log.seal().unwrap(), floor);
            assert_eq!(log.sync_handle().durable(), floor);
            assert!(matches!(try_append(&mut log, &payload(99)), Err(Error::InvalidArgument(_))));
            assert!(matches!(log.rotate(), Err(Error::InvalidArgument(_))));
            drop(log);
            log = resume(&fs, io, 1, floor);
            assert_eq!((log.end(), log.sync_handle().durable()), (floor, floor));
        }
        let recovered = strict(&fs, 1, floor).unwrap();
        assert_eq!((recovered.sealed, recovered.dropped_bytes), (true, 0));
        assert_eq!(indexes(&recovered), (0..6).collect::<Vec<_>>());
        assert_eq!(files(&*fs)[0], ("000001.log".to_owned(), 4096));
    }
}

#[test]
fn opening_and_closing_alone_does_not_grow_the_log() {
    let (_, fs) = sim(2);
    let mut log = create(&fs, LogIo::Map);
    append(&mut log, 0);
    let floor = log.seal().unwrap();
    drop(log);
    let before = contents(&*fs);
    for _ in 0..5 {
        assert_eq!(resume(&fs, LogIo::Map, 1, floor).seal().unwrap(), floor);
    }
    assert_eq!(contents(&*fs), before);
}

#[test]
fn an_unclean_log_goes_on_in_a_new_segment() {
    for io in BOTH {
        let (_, fs) = sim(3);
        let mut log = create(&fs, io);
        append(&mut log, 0);
        let end = log.end();
        drop(log);
        let mut log = resume(&fs, io, 1, LogPosition::ZERO);
        assert_eq!((log.end(), log.segment(), files(&*fs).len()), (end, 1, 1));
        assert!(append(&mut log, 1).new_segment);
        assert_eq!((log.segment(), replayed(&fs, 1)), (2, vec![0, 1]));
        log.sync_handle().persist().unwrap();
        drop(log);
        let mut log = resume(&fs, io, 1, LogPosition::ZERO);
        log.rotate().unwrap();
        assert_eq!(log.segment(), 3);
        log.seal().unwrap();
        assert_eq!(replayed(&fs, 1), [0, 1]);
    }
}

#[test]
fn what_was_replayed_is_durable_after_the_next_sync() {
    let (sim, fs) = sim(4);
    let mut log = create(&fs, LogIo::Map);
    for index in 0..20 {
        append(&mut log, index);
    }
    drop(log);
    let killed = sim.kill();
    let fs: Arc<dyn Fs> = Arc::new(killed.clone());
    let mut log = resume(&fs, LogIo::Map, 1, LogPosition::ZERO);
    let appended = append(&mut log, 20);
    log.sync_handle().wait_durable(appended.end).unwrap();
    let fs: Arc<dyn Fs> = Arc::new(killed.crash_with(CrashImage::NothingUnsynced));
    assert_eq!(replayed(&fs, 1), (0..=20).collect::<Vec<_>>());
}

/// A whole frame behind a torn one must not come back when the torn one's place is taken by another of its length.
#[test]
fn a_frame_behind_a_torn_one_does_not_come_back() {
    let (_, fs) = sim(5);
    let mut log = create(&fs, LogIo::Map);
    append(&mut log, 0);
    let floor = log.seal().unwrap();
    drop(log);
    let mut log = resume(&fs, LogIo::Map, 1, floor);
    let torn = try_append(&mut log, &sized(1, 100)).unwrap();
    let lost = try_append(&mut log, &sized(2, 100)).unwrap();
    drop(log);
    let file = fs.open(&dir().join("000001.log"), pebble_vfs::Open::ReadWrite).unwrap();
    file.write_at(&[0], torn.offset as u64 + 50).unwrap();

    let recovered = strict(&fs, 1, floor).unwrap();
    assert_eq!((recovered.end, recovered.sealed), (floor, true));
    assert_eq!(recovered.dropped_bytes, u64::from(lost.end.offset() - floor.offset()));
    drop(recovered);
    let mut log = resume(&fs, LogIo::Map, 1, floor);
    let again = try_append(&mut log, &sized(3, 100)).unwrap();
    assert!(again.new_segment);
    assert_eq!(replayed(&fs, 1), [0, 3]);
}

#[test]
fn a_dropped_tail_is_passed_over_and_removed_when_obsolete() {
    let (_, fs) = sim(6);
    let mut log = create(&fs, LogIo::Map);
    for index in 0..40 {
        append(&mut log, index);
    }
    let last = log.segment();
    drop(log);
    // The first byte of the second segment's first frame; nothing was ever promised.
    let file = fs.open(&dir().join("000002.log"), pebble_vfs::Open::ReadWrite).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 64).unwrap();
    file.write_at(&[!byte[0]], 64).unwrap();
    let kept = replayed(&fs, 1);
    assert!(!kept.is_empty() && kept.len() < 20);
    assert!(strict(&fs, 1, LogPosition::ZERO).unwrap().dropped_bytes > 4096);

    // A file of another database, and names that are not segments of this log.
    let mut foreign = read(&*fs, "000003.log");
    foreign[16] ^= 1;
    let header = pebble_format::log::SEGMENT_HEADER_LEN;
    let crc = pebble_format::checksum::crc32c(0, &foreign[..header - 4]);
    foreign[header - 4..header].copy_from_slice(&crc.to_le_bytes());
    let alien = format!("{:06}.log", last + 1);
    write(&*fs, &alien, &foreign);
    for name in ["9.log", "4294967296.log", "000001.sst", "notes"] {
        write(&*fs, name, b"keep");
    }

    let mut log = resume(&fs, LogIo::Map, 1, LogPosition::ZERO);
    append(&mut log, 900);
    assert_eq!(log.segment(), last + 2);
    append(&mut log, 901);
    let mut expected = kept.clone();
    expected.extend([900, 901]);
    assert_eq!(replayed(&fs, 1), expected);

    log.retire(last + 2);
    assert_eq!(replayed(&fs, last + 2), [900, 901]);
    let names: Vec<String> = files(&*fs).into_iter().map(|(name, _)| name).collect();
    let ours = format!("{:06}.log", last + 2);
    let mut left = vec!["9.log", "4294967296.log", "000001.sst", "notes", &alien, &ours];
    left.sort_unstable();
    assert_eq!(names, left);
}

#[test]
fn recycled_segments_never_replay_an_earlier_life() {
    for io in BOTH {
        let (sim, fs) = sim(7);
        let options =
            LogOptions { segment_len_min: 4096, segment_len_max: 4096, spare_max: 2, ..options(io) };
        let mut log = LogWriter::create(Arc::clone(&fs), dir(), options, 1, LogPosition::ZERO).unwrap();
        let mut index = 0;
        let mut begins = vec![0];
        for round in 1..30 {
            // Frames of one length, so that the stale ones stand exactly where new ones would follow.
            for _ in 0..1 + (round % 5) * 7 {
                if try_append(&mut log, &sized(index, 100)).unwrap().new_segment && index > 0 {
                    begins.push(index);
                }
                index += 1;
                if index % 3 == 0 {
                    let first = log.segment();
                    let from = *begins.last().unwrap();
                    assert_eq!(replayed(&fs, first), (from..index).collect::<Vec<_>>());
                    for seed in 0..4 {
                        let image: Arc<dyn Fs> = Arc::new(sim.crash(seed));
                        let got = indexes(&strict(&image, first, LogPosition::ZERO).unwrap());
                        assert_eq!(got, (from..from + got.len() as u32).collect::<Vec<_>>());
                    }
                }
            }
            log.rotate().unwrap();
            log.retire(log.segment());
            assert!(files(&*fs).len() <= 3);
        }
        assert!(files(&*fs).iter().all(|(_, len)| *len == 4096));
        log.seal().unwrap();
        assert_eq!(files(&*fs).len(), 1, "spares go with a clean close");
    }
}

#[test]
fn a_segment_of_an_earlier_writer_is_not_recycled() {
    let (_, fs) = sim(21);
    let options = LogOptions { segment_len_min: 4096, segment_len_max: 4096, ..options(LogIo::Map) };
    let mut log = LogWriter::create(Arc::clone(&fs), dir(), options, 1, LogPosition::ZERO).unwrap();
    append(&mut log, 0);
    let held = Arc::clone(log.region());
    let before = held.bytes().to_vec();
    let floor = log.seal().unwrap();
    drop(log);
    let mode = pebble_wal::Recovery::Strict;
    let recovered = pebble_wal::recover(&fs, dir(), UUID, 1, floor, mode, LogIo::Map).unwrap();
    let mut log = LogWriter::resume(Arc::clone(&fs), dir(), options, recovered).unwrap();
    for round in 1..4 {
        log.rotate().unwrap();
        append(&mut log, round);
        log.retire(log.segment());
    }
    assert!(held.bytes().starts_with(&before), "memory that is read was written again");
}

#[test]
fn a_segment_that_is_read_is_not_recycled() {
    let (_, fs) = sim(8);
    let options =
        LogOptions { segment_len_min: 4096, segment_len_max: 4096, spare_max: 2, ..options(LogIo::Map) };
    let mut log = LogWriter::create(Arc::clone(&fs), dir(), options, 1, LogPosition::ZERO).unwrap();
    let appended = append(&mut log, 0);
    let reader = Arc::clone(log.region());
    for index in 1..30 {
        append(&mut log, index);
        log.retire(log.segment());
    }
    let expected = payload(0);
    assert_eq!(reader.bytes()[appended.offset..][..expected.len()], expected);
    assert!(!files(&*fs).iter().any(|(name, _)| name == "000001.log"));
}

#[test]
fn a_log_that_rests_keeps_no_spare_segments() {
    let (_, fs) = sim(9);
    let mut log = create(&fs, LogIo::Map);
    (0..60).for_each(|index| _ = append(&mut log, index));
    log.rotate().unwrap();
    let first = log.segment();
    log.retire(first);
    assert!(files(&*fs).len() > 1, "spares");
    log.trim();
    assert_eq!(files(&*fs).len(), 1);
    (60..90).for_each(|index| _ = append(&mut log, index));
    assert_eq!(replayed(&fs, first), (60..90).collect::<Vec<_>>());
}

#[test]
fn a_segment_made_ahead_is_used() {
    let (_, fs) = sim(9);
    let mut log = create(&fs, LogIo::Map);
    append(&mut log, 0);
    log.prepare_next().unwrap();
    log.prepare_next().unwrap();
    assert_eq!(files(&*fs).len(), 2);
    assert_eq!(replayed(&fs, 1), [0]);
    log.rotate().unwrap();
    append(&mut log, 1);
    assert_eq!(files(&*fs).len(), 2);
    assert_eq!((log.segment(), replayed(&fs, 1)), (3, vec![0, 1]));
}

//! Damaged bytes: below what was durable the log is refused, above it the prefix is taken, and a payload is never
//! wrong.

use std::path::Path;
use std::sync::Arc;

use pebble_format::checksum::crc32c;
use pebble_format::log::segment_epoch;
use pebble_format::{Error, Result};
use pebble_vfs::{Fs, Open, OsFs};
use pebble_wal::{LogIo, LogOptions, LogPosition, LogWriter, Recovered, Recovery, recover};

use crate::support::*;

/// Files of a log, where each of its frames ends, and how far it promised to be durable.
struct Fixture {
    files: Vec<(String, Vec<u8>)>,
    ends: Vec<LogPosition>,
    promise: LogPosition,
}

/// `count` frames of about 40 bytes in segments of 4 KiB, `per_segment` in each, durable up to the frame `synced`.
fn fixture(count: u32, per_segment: u32, synced: u32) -> Fixture {
    let (_, fs) = sim(1);
    let options = LogOptions { segment_len_min: 4096, segment_len_max: 4096, ..options(LogIo::Map) };
    let mut log = LogWriter::create(Arc::clone(&fs), dir(), options, 1, LogPosition::ZERO).unwrap();
    let mut fixture = Fixture { files: Vec::new(), ends: Vec::new(), promise: LogPosition::ZERO };
    for index in 0..count {
        if index > 0 && index % per_segment == 0 {
            log.rotate().unwrap();
        }
        let appended = try_append(&mut log, &sized(index, 16 + 4 * (index as usize % 5))).unwrap();
        fixture.ends.push(appended.end);
        if index == synced {
            log.sync_handle().persist().unwrap();
            fixture.promise = appended.end;
        }
    }
    fixture.files = contents(&*fs);
    fixture
}

impl Fixture {
    /// As [`Fixture::check_with`], with nothing but the log's own promises.
    fn check(&self, files: &[(String, Vec<u8>)], what: &str) {
        self.check_with(LogPosition::ZERO, files, what);
    }

    /// Checks what recovery makes of changed files: the whole prefix, or a refusal if that is shorter than
    /// promised.
    fn check_with(&self, floor: LogPosition, files: &[(String, Vec<u8>)], what: &str) {
        let fs = disk_of(files);
        let lenient = lenient(&fs, 1, floor).unwrap();
        let got = indexes(&lenient);
        assert_eq!(got, (0..got.len() as u32).collect::<Vec<_>>(), "{what}");
        let whole = self.ends.partition_point(|end| *end <= lenient.end);
        assert_eq!(got.len(), whole, "{what}");
        let promised = self.ends.partition_point(|end| *end <= self.promise);
        match strict(&fs, 1, floor) {
            Ok(recovered) => {
                assert!(recovered.end >= self.promise, "{what}: {} of {promised}", got.len());
                assert!(recovered.damage.is_none());
            }
            Err(error) => {
                assert!(error.is_corruption(), "{what}: {error}");
                assert!(lenient.end < self.promise && lenient.damage.is_some(), "{what}: {error}");
            }
        }
        assert_eq!(contents(&*fs), files, "recovery writes nothing");
    }
}

#[test]
fn every_bit_of_a_small_log() {
    let fixture = fixture(10, 5, 6);
    for file in 0..fixture.files.len() {
        let used = fixture.ends.iter().rfind(|end| end.segment() as usize == file + 1).unwrap();
        for bit in 0..used.offset() as usize * 8 {
            let mut files = fixture.files.clone();
            files[file].1[bit / 8] ^= 1 << (bit % 8);
            let version = (8 * 8..12 * 8).contains(&bit);
            match strict(&disk_of(&files), 1, LogPosition::ZERO) {
                Err(Error::UnsupportedVersion { found, max, .. }) => assert!(version && found > max),
                _ if version && bit != 64 => panic!("version bit {bit}"),
                _ => fixture.check(&files, &format!("bit {bit} of {}", fixture.files[file].0)),
            }
        }
    }
}

#[test]
fn every_truncation_and_every_torn_tail() {
    let fixture = fixture(10, 20, 4);
    let used = fixture.ends.last().unwrap().offset() as usize;
    for len in 0..used {
        let mut files = fixture.files.clone();
        files[0].1.truncate(len);
        fixture.check_with(fixture.promise, &files, &format!("truncated to {len}"));
        files[0].1.resize(4096, 0);
        fixture.check_with(fixture.promise, &files, &format!("zeros from {len}"));
        // Garbage in the version alone is a newer format.
        let garbage = if (8..12).contains(&len) { 0 } else { 0xa5 };
        files[0].1[len..].fill(garbage);
        fixture.check_with(fixture.promise, &files, &format!("garbage from {len}"));
    }
}

#[test]
fn sectors_zeroed_swapped_and_duplicated() {
    let fixture = fixture(120, 60, 80);
    for file in 0..2 {
        for sector in 0..8 {
            for other in 0..9 {
                let mut files = fixture.files.clone();
                let bytes = &mut files[file].1;
                let copy: Vec<u8> = bytes[sector * 512..][..512].to_vec();
                if other == 8 {
                    bytes[sector * 512..][..512].fill(0);
                } else {
                    let range = other * 512..other * 512 + 512;
                    bytes.copy_within(range.clone(), sector * 512);
                    fixture.check(&files, &format!("sector {other} of {file} again at {sector}"));
                    files[file].1[range].copy_from_slice(&copy);
                }
                fixture.check(&files, &format!("sectors {sector} and {other} of {file}"));
            }
        }
    }
}

#[test]
fn missing_swapped_and_foreign_segments() {
    let fixture = fixture(40, 10, 35);
    let (intact, last) = (&fixture.files, fixture.files.len() - 1);
    for gone in 0..=last {
        let mut files = intact.clone();
        files.remove(gone);
        let fs = disk_of(&files);
        if gone < last {
            match strict(&fs, 1, LogPosition::ZERO) {
                Err(Error::MissingFile { file }) => assert_eq!(*file, *intact[gone].0),
                other => panic!("{gone}: {other:?}"),
            }
        } else {
            // Nothing left says that there was more, but for the floor.
            assert_eq!(replayed(&fs, 1).len(), 30);
            let error = strict(&fs, 1, fixture.promise).unwrap_err();
            assert!(matches!(error, Error::MissingFile { file } if *file == *intact[last].0));
        }
        assert_eq!(lenient(&fs, 1, LogPosition::ZERO).unwrap().frames().count(), gone * 10);
    }
    for (a, b) in [(0, 1), (1, 2), (2, 3)] {
        let mut files = intact.clone();
        let taken = std::mem::take(&mut files[a].1);
        files[a].1 = std::mem::replace(&mut files[b].1, taken);
        let error = strict(&disk_of(&files), 1, fixture.promise).unwrap_err();
        let Error::Corruption(corruption) = error else { panic!("{error}") };
        assert_eq!((&*corruption.file, corruption.what), (&*intact[a].0, "log segment number"));
    }
    let fs = disk_of(intact);
    let other = [1; 16];
    let recover =
        |floor| pebble_wal::recover(&fs, dir(), other, 1, floor, pebble_wal::Recovery::Strict, LogIo::Map);
    let error = recover(fixture.promise).unwrap_err();
    assert!(matches!(error, Error::Corruption(c) if c.what == "log segment owner"));
    assert_eq!(recover(LogPosition::ZERO).unwrap().frames().count(), 0);
}

#[test]
fn a_missing_first_segment_is_a_crash_unless_something_says_otherwise() {
    let (_, fs) = sim(2);
    assert!(strict(&fs, 1, LogPosition::ZERO).is_ok());
    assert!(strict(&fs, 7, LogPosition::new(6, 900)).is_ok());
    let error = strict(&fs, 7, LogPosition::new(7, 64)).unwrap_err();
    assert!(matches!(error, Error::MissingFile { file } if &*file == "000007.log"));
    write(&*fs, "000007.log", b"");
    assert_eq!(strict(&fs, 7, LogPosition::ZERO).unwrap().next_segment, 8);
    assert!(matches!(strict(&fs, 7, LogPosition::new(7, 64)), Err(Error::Corruption(_))));
}

#[test]
fn damage_before_a_seal_is_refused_by_the_floor_alone() {
    let (_, fs) = sim(3);
    let mut log = create(&fs, LogIo::Map);
    let first = append(&mut log, 0);
    append(&mut log, 1);
    let floor = log.seal().unwrap();
    drop(log);
    let intact = contents(&*fs);
    for bit in 0..u64::from(floor.offset()) * 8 {
        let mut files = intact.clone();
        files[0].1[(bit / 8) as usize] ^= 1 << (bit % 8);
        assert!(strict(&disk_of(&files), 1, floor).is_err(), "bit {bit}");
    }
    let mut files = intact;
    files[0].1[first.offset] ^= 1;
    let error = strict(&disk_of(&files), 1, floor).unwrap_err();
    let Error::Corruption(corruption) = error else { panic!("{error}") };
    assert_eq!(
        (&*corruption.file, corruption.offset, corruption.what),
        ("000001.log", 64, "log frame checksum")
    );
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Recomputes the checksum of the frame at `at`, if its length lets it have one.
fn repair(bytes: &mut [u8], at: usize, epoch: u32) {
    let len = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
    let end = at.saturating_add(24).saturating_add(len);
    if end <= bytes.len() {
        let mut place = epoch.to_le_bytes().to_vec();
        place.extend((at as u32).to_le_bytes());
        let crc = crc32c(crc32c(0, &place), &bytes[at + 4..end]);
        put(bytes, at, crc);
    }
}

fn any_outcome(result: Result<Recovered>) {
    match result {
        Ok(recovered) => drop(recovered.frames().map(|frame| frame.payload.len()).sum::<usize>()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

#[test]
fn hostile_fields_with_right_checksums_are_survived() {
    let fixture = fixture(6, 10, 2);
    let epoch = segment_epoch(&UUID, 1);
    let mut at = 64;
    for end in &fixture.ends {
        for field in [4, 8, 16, 20] {
            for value in [0, 1, 2, 3, 4, 16, 4096, 1 << 16, 1 << 31, u32::MAX - 3, u32::MAX] {
                let mut files = fixture.files.clone();
                put(&mut files[0].1, at + field, value);
                repair(&mut files[0].1, at, epoch);
                let fs = disk_of(&files);
                any_outcome(strict(&fs, 1, LogPosition::ZERO));
                any_outcome(lenient(&fs, 1, LogPosition::ZERO));
            }
        }
        at = end.offset() as usize;
    }
    let mut seed = 9;
    for _ in 0..2_000 {
        let mut files = fixture.files.clone();
        for _ in 0..1 + next(&mut seed) % 4 {
            let at = next(&mut seed) as usize % 700;
            files[0].1[at] = next(&mut seed) as u8;
        }
        let crc = crc32c(0, &files[0].1[..60]);
        put(&mut files[0].1, 60, crc);
        any_outcome(strict(&disk_of(&files), 1, LogPosition::ZERO));
    }
}

#[test]
fn a_promise_behind_its_own_frame_is_no_frame() {
    let fixture = fixture(3, 10, 9);
    let mut files = fixture.files.clone();
    let at = fixture.ends[0].offset() as usize;
    files[0].1[at + 16..at + 24].copy_from_slice(&(LogPosition::new(1, at as u32).0 + 1).to_le_bytes());
    repair(&mut files[0].1, at, segment_epoch(&UUID, 1));
    assert_eq!(replayed(&disk_of(&files), 1), [0]);
}

/// Headers at every place, each claiming the rest of the file: checking them all would take hours.
#[test]
fn a_tail_made_to_waste_time_is_refused_soon() {
    let fixture = fixture(1, 10, 9);
    let mut files = fixture.files.clone();
    let bytes = &mut files[0].1;
    bytes.resize(16 << 20, 0);
    let (from, epoch) = (fixture.ends[0].offset() as usize, segment_epoch(&UUID, 1));
    for at in (from..bytes.len() - 24).step_by(4) {
        put(bytes, at, epoch);
    }
    // Every word is the epoch, so every length is the epoch too: it must fit to be a claim.
    for at in (from..bytes.len() - 64).step_by(24) {
        put(bytes, at + 4, 8 << 20);
        put(bytes, at + 8, 1);
    }
    let fs = disk_of(&files);
    let error = strict(&fs, 1, LogPosition::ZERO).unwrap_err();
    assert!(matches!(error, Error::Corruption(c) if c.what == "log tail"));
    assert_eq!(indexes(&lenient(&fs, 1, LogPosition::ZERO).unwrap()), [0]);
}

#[test]
fn the_last_number_leaves_no_room_for_another() {
    let (_, fs) = sim(4);
    write(&*fs, "4294967295.log", b"");
    assert!(matches!(strict(&fs, 1, LogPosition::ZERO), Err(Error::Corruption(_))));
}

/// The segment that a clean close was noted in is gone. Who takes the prefix goes on behind the floor, which never
/// falls.
#[test]
fn what_follows_a_missing_floor_lies_behind_it() {
    let (_, fs) = sim(4);
    for (first, floor, next) in [(1, LogPosition::new(1, 612), 2), (1, LogPosition::new(4, 612), 5)] {
        assert!(strict(&fs, first, floor).unwrap_err().is_corruption());
        let recovered = lenient(&fs, first, floor).unwrap();
        assert!(recovered.damage.is_some());
        assert_eq!(recovered.next_segment, next);
    }
    assert_eq!(lenient(&fs, 3, LogPosition::ZERO).unwrap().next_segment, 3);
    assert!(lenient(&fs, 1, LogPosition::new(u32::MAX, 64)).unwrap_err().is_corruption());
}

#[test]
fn a_newer_version_is_told_and_nothing_is_written() {
    let fixture = fixture(3, 10, 1);
    let mut files = fixture.files.clone();
    put(&mut files[0].1, 8, 2);
    let fs = disk_of(&files);
    for result in [strict(&fs, 1, LogPosition::ZERO), lenient(&fs, 1, LogPosition::ZERO)] {
        assert!(matches!(result, Err(Error::UnsupportedVersion { found: 2, max: 1, .. })));
    }
    assert_eq!(contents(&*fs), files);
}

/// How a part of a log comes to be zeros.
#[derive(Clone, Copy, Debug)]
enum Lost {
    /// A file that was written whole, zeros too.
    Written,
    /// A file in which that part was never written.
    Hole,
    /// The file that the writer stored to through its map, and of which nothing was synced lately.
    InPlace,
}

/// Frames behind a part that was never written are found as behind one of zeros, so a log says the same of itself
/// whether its file system tells what was written or not.
#[test]
fn a_hole_hides_no_frame_behind_it() {
    const LEN: usize = 1 << 20;
    let home = tempfile::tempdir().unwrap();
    let fs: Arc<dyn Fs> = Arc::new(OsFs);
    let name = "000001.log";
    let options = LogOptions { segment_len_min: 1 << 20, segment_len_max: 1 << 20, ..options(LogIo::Map) };
    let log = |dir: &Path| {
        fs.create_dir(dir).unwrap();
        let mut log = LogWriter::create(Arc::clone(&fs), dir, options, 1, LogPosition::ZERO).unwrap();
        for index in 0..100 {
            try_append(&mut log, &sized(index, 6000)).unwrap();
            if index % 10 == 0 {
                log.sync_handle().persist().unwrap();
            }
        }
    };
    log(&home.path().join("log"));
    let bytes = std::fs::read(home.path().join("log").join(name)).unwrap();
    for lost in [40_000..90_000, 200_000..590_000, 30_000..500_000, 8192..LEN] {
        let zeros = lost.start.next_multiple_of(4096)..lost.end / 4096 * 4096;
        let mut whole = bytes.clone();
        whole[zeros.clone()].fill(0);
        let told = [Lost::Written, Lost::Hole, Lost::InPlace].map(|how| {
            let dir = home.path().join(format!("{lost:?} {how:?}"));
            fs.create_dir(&dir).unwrap();
            match how {
                Lost::InPlace => {
                    log(&dir);
                    let file = fs.open(&dir.join(name), Open::ReadWrite).unwrap();
                    file.write_at(&whole[zeros.clone()], zeros.start as u64).unwrap();
                }
                Lost::Written | Lost::Hole => {
                    let file = fs.open(&dir.join(name), Open::CreateNew).unwrap();
                    file.allocate(LEN as u64).unwrap();
                    let written = if matches!(how, Lost::Hole) { zeros.clone() } else { 0..0 };
                    file.write_at(&whole[..written.start], 0).unwrap();
                    file.write_at(&whole[written.end..], written.end as u64).unwrap();
                }
            }
            let recovered = |mode| recover(&fs, &dir, UUID, 1, LogPosition::ZERO, mode, LogIo::Map);
            let got = recovered(Recovery::PointInTime).unwrap();
            let strict = recovered(Recovery::Strict).map(|_| ()).map_err(|error| error.to_string());
            (got.end, got.dropped_bytes, got.durable(), got.frames().count(), strict)
        });
        assert_eq!([&told[1], &told[2]], [&told[0]; 2], "{lost:?}");
        let nothing_behind = lost.end == LEN;
        assert_eq!((told[0].1 == 0, told[0].4.is_ok()), (nothing_behind, nothing_behind), "{lost:?}");
    }
}

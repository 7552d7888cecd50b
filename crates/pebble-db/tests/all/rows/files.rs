//! Files that are not as the database left them: with flipped bits, exchanged, gone, a stranger's, of a newer format.

use pebble_db::Error;
use pebble_format::checksum::crc32c;

use super::bench::Bench;
use crate::support::{LOG_MODES, dump, write_file};
use crate::{campaign, damage};

/// Every bit of every file of closed databases, small ones of two layouts.
#[test]
fn bit_flip() {
    let flips = damage::flip_every_bit();
    campaign::count(&["bit-flip", "I4", "I8"], "flips", flips);
}

#[test]
fn swapped() {
    let cases = damage::exchange_files() + damage::take_files_of_another() + damage::put_old_copies_back();
    campaign::count(&["swapped", "I4", "I8"], "cases", cases);
}

#[test]
fn missing() {
    let cases = damage::remove_files() + damage::cut_files();
    campaign::count(&["missing", "I4", "I8"], "cases", cases);
}

#[test]
fn foreign_file() {
    let cases = damage::leave_strangers_alone();
    campaign::count(&["foreign-file", "I8"], "cases", cases);
}

/// Each kind of file that has a version says that it is of the next one, with a right checksum.
#[test]
fn newer_format() {
    let mut cases = 0;
    for log_io in LOG_MODES {
        let bench = Bench::prepared(log_io);
        bench.db.flush().unwrap();
        bench.db.put("in the log", "").unwrap();
        bench.db.close().unwrap();
        let kinds = [(".log", 0, 60, 1_u8), ("MANIFEST", 0, 44, 3), (".sst", 256, 252, 3)];
        for (kind_of_file, from_end, covered, newest) in kinds {
            let files = dump(&bench.sim);
            let (name, file) = files.iter().find(|(name, _)| name.contains(kind_of_file)).unwrap();
            let begin = if from_end == 0 { 0 } else { file.len() - from_end };
            let mut newer = file.clone();
            newer[begin + 8] = newest + 1;
            let crc = crc32c(0, &newer[begin..begin + covered]);
            newer[begin + covered..begin + covered + 4].copy_from_slice(&crc.to_le_bytes());
            let disk = bench.sim.kill();
            write_file(&disk, name, &newer);
            let before = dump(&disk);
            let error = bench.config.sim(disk.clone()).open().unwrap_err();
            let Error::UnsupportedVersion { file, found, max } = &error else { panic!("{name}: {error}") };
            assert_eq!((&**file, *found, *max), (&**name, u32::from(newest) + 1, u32::from(newest)));
            assert!(dump(&disk) == before, "{name}: something was written");
            cases += 1;
        }
    }
    campaign::count(&["newer-format", "I8"], "cases", cases);
}

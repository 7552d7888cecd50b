//! Real files, identities and versions.

use std::path::Path;
use std::sync::Arc;

use pebble_format::checksum::crc32c;
use pebble_format::{Error, InternalKey, KeyspaceId, Seqno};
use pebble_sstable::{
    BlockCache, Compression, FileSink, PointIndex, Table, TableOptions, TableReadOptions, TableWriter,
};
use pebble_vfs::{Fs, Open, OsFs};

use crate::model::{SOURCES, Said, fill, fixture, open, small, write};

#[test]
fn a_file_is_written_mapped_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("000007.sst");
    let file = OsFs.open(&path, Open::CreateNew).unwrap();
    let mut writer =
        TableWriter::new(FileSink::new(file), small(PointIndex::Location, Compression::None)).unwrap();
    fill(&mut writer, &fixture());
    // More than a chunk of the sink.
    for n in 0..50_000_u32 {
        writer.put(KeyspaceId(9), &n.to_be_bytes(), Seqno(1), &[1; 60]).unwrap();
    }
    let (sink, info) = writer.finish().unwrap();
    let file = sink.into_file();
    file.sync_data().unwrap();
    assert_eq!(file.len().unwrap(), info.len);

    let mapped = Table::open(&path, TableReadOptions::default()).unwrap();
    let cache = Some(Arc::new(BlockCache::new(1 << 20)));
    let read = Table::open_file(file, "000007.sst", TableReadOptions { cache }).unwrap();
    assert!(read.memory() > mapped.memory());
    for table in [mapped, read] {
        table.verify().unwrap();
        table.check_identity(&[9; 16], 7, info.len, info.footer_crc).unwrap();
        let found = table.get(InternalKey::lookup(KeyspaceId(9), &77_u32.to_be_bytes(), Seqno(3))).unwrap();
        assert_eq!(&*found.unwrap().into_value(), [1; 60]);
    }
}

#[test]
fn a_missing_file_is_an_io_error() {
    let missing = Table::open(Path::new("/nowhere/000001.sst"), TableReadOptions::default());
    assert!(matches!(missing, Err(Error::Io(_))));
}

#[test]
fn another_tables_file_is_not_taken_for_this_one() {
    let options = small(PointIndex::Location, Compression::None);
    let (bytes, info) = write(&fixture(), &options);
    let table = open(&bytes, SOURCES[0]).unwrap();
    table.check_identity(&[9; 16], 7, info.len, info.footer_crc).unwrap();
    let wrong = [
        table.check_identity(&[8; 16], 7, info.len, info.footer_crc),
        table.check_identity(&[9; 16], 8, info.len, info.footer_crc),
        table.check_identity(&[9; 16], 7, info.len + 64, info.footer_crc),
        table.check_identity(&[9; 16], 7, info.len, info.footer_crc ^ 1),
    ];
    assert!(wrong.into_iter().all(|found| matches!(found, Err(Error::Corruption(_)))));

    // An older file of the same number, database and length differs in its footer's checksum.
    let mut older = fixture();
    older.last_entry().unwrap().insert(Said::Put(b"9876543210".repeat(60)));
    let (_, old) = write(&older, &options);
    assert_eq!(old.len, info.len);
    assert!(table.check_identity(&[9; 16], 7, old.len, old.footer_crc).is_err());
}

#[test]
fn another_version_is_told_from_damage() {
    for version in [0, 1, 4] {
        let (mut bytes, _) = write(&fixture(), &TableOptions::default());
        let footer = bytes.len() - 256;
        bytes[footer + 8] = version;
        let damaged = open(&bytes, SOURCES[0]).unwrap_err();
        assert!(damaged.is_corruption());
        let crc = crc32c(0, &bytes[footer..footer + 252]);
        bytes[footer + 252..].copy_from_slice(&crc.to_le_bytes());
        match open(&bytes, SOURCES[0]).unwrap_err() {
            Error::UnsupportedVersion { file, found, max } => {
                assert_eq!((&*file, found, max), ("000007.sst", version.into(), 3));
            }
            other => panic!("{other}"),
        }
    }
}

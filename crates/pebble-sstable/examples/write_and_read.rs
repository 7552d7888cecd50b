//! Writes a table to a file and reads it back, with nothing of PebbleTree but this crate and what lies under
//! it.
//!
//! `cargo run -p pebble-sstable --example write_and_read [directory]`

use std::error::Error;
use std::path::PathBuf;

use pebble_format::{InternalKey, KeyspaceId, Seqno};
use pebble_sstable::{Compression, FileSink, Table, TableOptions, TableReadOptions, TableWriter};
use pebble_vfs::{Fs, Open, OsFs};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let path = dir.join(format!("example-{}.sst", std::process::id()));
    let fruit = KeyspaceId(1);

    // Records come in ascending order of key; of one key the newest version, with the largest seqno, comes
    // first.
    let file = OsFs.open(&path, Open::CreateNew)?;
    let options = TableOptions { compression: Compression::Lz4, number: 1, ..TableOptions::default() };
    let mut writer = TableWriter::new(FileSink::new(file), options)?;
    for n in 0..10_000_u64 {
        let key = format!("fruit:{n:05}");
        if n % 10 == 0 {
            writer.delete(fruit, key.as_bytes(), Seqno(20_000 + n))?;
        }
        writer.put(fruit, key.as_bytes(), Seqno(1 + n), format!("{n} plums, {n} pears").as_bytes())?;
    }
    let (sink, info) = writer.finish()?;
    sink.into_file().sync_data()?;
    OsFs.sync_dir(&dir)?;
    println!(
        "{}: {} records, {} of them tombstones, in {} blocks and {} bytes",
        path.display(),
        info.count,
        info.tombstones,
        info.blocks,
        info.len
    );

    let table = Table::open(&path, TableReadOptions::default())?;
    table.check_identity(&[0; 16], 1, info.len, info.footer_crc)?;

    // A get is as of a seqno: the tombstone is newer than the value that it hides.
    for (seqno, name) in [(Seqno::MAX, "now"), (Seqno(20_000), "before the deletes")] {
        let found = table.get(InternalKey::lookup(fruit, b"fruit:00010", seqno))?;
        match found {
            Some(found) if found.record().is_tombstone() => println!("fruit:00010 {name}: deleted"),
            Some(found) => println!("fruit:00010 {name}: {}", String::from_utf8_lossy(&found.into_value())),
            None => println!("fruit:00010 {name}: never heard of it"),
        }
    }

    let some = table.range(fruit, &b"fruit:00019"[..]..&b"fruit:00022"[..]);
    for found in some {
        let found = found?;
        println!("{:?}: {}", found.record(), String::from_utf8_lossy(found.record().key()));
    }

    let report = table.verify()?;
    println!("verified {} records of {} keys", report.records, report.keys);
    Ok(OsFs.remove(&path)?)
}

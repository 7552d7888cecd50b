//! A table read once past the cache: the same records as by any other cursor, whole blocks included.

use std::sync::Arc;

use pebble_cursor::{Concat, Cursor};
use pebble_format::{Error, RecordRef};
use pebble_sstable::{FileSink, PointIndex, StreamedRun, Table, TableOptions, TableReadOptions};
use pebble_vfs::{DIRECT_ALIGN, File, Fs, NoHelpers, Open, OsFs, SimFs};

use crate::model::{COMPRESSIONS, Model, Plain, Said, fixture, plain, small, write};

fn large() -> Model {
    let mut model = fixture();
    for n in 0..30_000_u32 {
        let key = (9, n.to_be_bytes().to_vec(), std::cmp::Reverse(1));
        model.insert(key, Said::Put(n.to_le_bytes().repeat(5 + (n % 20) as usize)));
    }
    // Longer than the part of the file that is read at once.
    model.insert((9, b"long".to_vec(), std::cmp::Reverse(3)), Said::Put(vec![7; 700 << 10]));
    model
}

fn file_with(fs: &dyn Fs, path: &std::path::Path, bytes: &[u8], past_cache: bool) -> Arc<dyn File> {
    let file = fs.open(path, Open::CreateNew).unwrap();
    let mut sink =
        if past_cache { FileSink::past_cache(file, Arc::new(NoHelpers)) } else { FileSink::new(file) };
    std::io::Write::write_all(&mut sink, bytes).unwrap();
    std::io::Write::flush(&mut sink).unwrap();
    sink.into_file()
}

fn walk(cursor: &mut impl Cursor) -> pebble_format::Result<Vec<Plain>> {
    let mut found = Vec::new();
    cursor.first()?;
    while let Some(record) = cursor.record() {
        found.push(plain(record));
        cursor.next()?;
    }
    Ok(found)
}

/// The bytes of the blocks that are lent whole, as they are stored.
fn blocks(cursor: &mut impl Cursor) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    cursor.first().unwrap();
    while cursor.is_positioned() {
        found.extend(cursor.block().map(|block| block.stored.to_vec()));
        cursor.skip_block().unwrap();
    }
    found
}

#[test]
fn a_stream_gives_the_same_records_and_blocks() {
    let dir = tempfile::tempdir().unwrap();
    for (number, compression) in COMPRESSIONS.into_iter().enumerate() {
        for model in [fixture(), large()] {
            let options = TableOptions { block_len: 4096, ..small(PointIndex::Location, compression) };
            let (bytes, _) = write(&model, &options);
            let path = dir.path().join(format!("{number}-{}.sst", model.len()));
            let file = file_with(&OsFs, &path, &bytes, true);
            assert_eq!(file.len().unwrap(), bytes.len() as u64);
            let table =
                Table::open_map(file.map().unwrap(), "000007.sst", TableReadOptions::default()).unwrap();
            let tables: Arc<[_]> = Arc::new([Arc::clone(&table)]);
            let open = |_: &Table| Ok(Some(OsFs.open(&path, Open::Read)?));
            let mut streamed = Concat::new(StreamedRun::new(tables, &open, Arc::new(NoHelpers)));
            assert_eq!(walk(&mut streamed).unwrap(), walk(&mut table.cursor()).unwrap());
            assert_eq!(blocks(&mut streamed), blocks(&mut table.cursor()));
        }
    }
}

/// What is read for a merge, or to be checked, is nobody's interest in the table.
#[test]
fn a_walk_for_the_tables_own_sake_does_not_count_as_reading() {
    let options = small(PointIndex::Location, COMPRESSIONS[0]);
    let file = file_with(&SimFs::new(1), "/000007.sst".as_ref(), &write(&fixture(), &options).0, false);
    let table = Table::open_file(Arc::clone(&file), "000007.sst", TableReadOptions::default()).unwrap();
    let open = |_: &Table| Ok(Some(Arc::clone(&file)));
    let tables: Arc<[_]> = Arc::new([Arc::clone(&table)]);
    walk(&mut Concat::new(StreamedRun::new(tables, &open, Arc::new(NoHelpers)))).unwrap();
    assert_eq!(table.blocks_read().0, 0);
    let mut records = 0;
    table.verify().unwrap();
    assert!(table.remains(&mut |_| {}).lost().is_empty());
    let mut count = |_: RecordRef<'_>| {
        records += 1;
        Ok(())
    };
    table.each_once(&mut count).unwrap();
    assert_eq!((records, table.blocks_read().0), (table.info().count, 0));
    walk(&mut table.cursor()).unwrap();
    let (read, of) = table.blocks_read();
    assert!(read > 1 && read == of);
}

/// A file that is damaged, or shorter than the table says, behind the back of who has it open.
#[test]
fn damage_under_a_stream_is_corruption() {
    let options = TableOptions { block_len: 4096, ..small(PointIndex::Location, COMPRESSIONS[0]) };
    let (good, info) = write(&large(), &options);
    let table = Table::from_bytes(good.clone(), "000007.sst", TableReadOptions::default()).unwrap();
    let tables: Arc<[_]> = Arc::new([table]);
    let mut flipped = good.clone();
    flipped[DIRECT_ALIGN * 40 + 123] ^= 4;
    let cut = usize::try_from(info.data_len).unwrap() / 2;
    for bytes in [&flipped[..], &good[..cut], &[]] {
        let file = file_with(&SimFs::new(1), "/000007.sst".as_ref(), bytes, false);
        let open = |_: &Table| Ok(Some(Arc::clone(&file)));
        let mut cursor = Concat::new(StreamedRun::new(Arc::clone(&tables), &open, Arc::new(NoHelpers)));
        let error = walk(&mut cursor).unwrap_err();
        assert!(matches!(error, Error::Corruption(_)), "{error}");
        assert!(cursor.record().is_none() && cursor.next().is_err());
    }
}

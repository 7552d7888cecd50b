//! A database whose oldest run is compressed with zstd; and what a build without the feature says to that.

use pebble_db::{Compression, Error, LogIo};
use pebble_vfs::SimFs;

#[cfg(not(feature = "zstd"))]
use crate::campaign;
use crate::support::Config;

fn config(compression: Compression) -> Config {
    Config {
        compression,
        block_len: 1 << 10,
        table_len: 1 << 20,
        budget: 4 << 20,
        ..Config::tiny(LogIo::Map)
    }
}

#[cfg(not(feature = "zstd"))]
#[test]
fn a_build_without_zstd_refuses_the_option() {
    let compression = Compression::Zstd { level: 3, dictionary: true };
    let refused = config(compression).sim(SimFs::new(1)).open().map(drop);
    assert!(
        matches!(&refused, Err(Error::InvalidArgument(told)) if told.contains("feature zstd")),
        "{refused:?}"
    );
    campaign::count(&["no-codec"], "cases", 1);
}

#[cfg(feature = "zstd")]
#[test]
fn a_database_with_zstd_is_smaller_and_reads_alike() {
    let key = |n: u32| format!("customer:{n:08}");
    let value = |n: u32| {
        let (age, id) = (n.wrapping_mul(2_654_435_761) % 90, n.wrapping_mul(0x9e37_79b9));
        format!(r#"{{"id":"{id:08x}","town":"Coimbra","age":{age},"active":true,"tags":["a"]}}"#)
    };
    let disk = |compression| {
        let fs = SimFs::new(1);
        let db = config(compression).sim(fs.clone()).open().unwrap();
        (0..20_000).for_each(|n| db.put(key(n), value(n)).unwrap());
        db.delete_range(key(500)..key(600)).unwrap();
        db.compact_range(..).unwrap();
        // Over what is compressed already: its tables are read, and made anew.
        (0..20_000).step_by(3).for_each(|n| db.put(key(n), value(n + 1)).unwrap());
        db.compact_range(..).unwrap();
        db.close().unwrap();
        drop(db);
        let db = config(compression).sim(fs).open().unwrap();
        db.verify().unwrap();
        for n in 0..20_000 {
            let expected = match n {
                n if n % 3 == 0 => Some(value(n + 1)),
                500..600 => None,
                n => Some(value(n)),
            };
            assert_eq!(db.get(key(n)).unwrap().as_deref(), expected.as_deref().map(str::as_bytes), "{n}");
        }
        assert_eq!(db.iter().unwrap().count(), 20_000 - 67);
        db.stats().levels.iter().map(|level| level.bytes).sum::<u64>()
    };
    let [lz4, plain, trained] = [
        Compression::Lz4,
        Compression::Zstd { level: 3, dictionary: false },
        Compression::Zstd { level: 3, dictionary: true },
    ]
    .map(disk);
    println!("{lz4} B lz4, {plain} B zstd, {trained} B trained");
    assert!(plain < lz4 && trained < plain);
}

#[cfg(feature = "zstd")]
#[test]
fn a_level_out_of_range_is_refused() {
    let refused =
        config(Compression::Zstd { level: 99, dictionary: false }).sim(SimFs::new(1)).open().map(drop);
    assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{refused:?}");
}

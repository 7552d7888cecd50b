//! Repair beyond one byte: without any manifest, with files missing, cut short by a crash.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};

use pebble_db::{
    Db, Error, Fate, LogIo, Recovery, RepairOptions, RepairReport, WriteBatch, WriteOptions, repair_with,
};
use pebble_vfs::sim::CrashImage;
use pebble_vfs::{Fs, Open, SimFs};

use crate::campaign;
use crate::salvage::{Files, Fixture, WHOLE, check_account, class, components, disk_of, fixtures, flip};
use crate::support::{
    Config, LOG_MODES, Rng, State, assert_none, attempt, bytes, dir, dump, env_number, keyspace, kind,
    policies, scan,
};

/// Some history with everything that has to do with order: overwritten and deleted keys, ranges and keyspaces, merges
/// of all and of parts, reopens. Gives the files as they are left, and the content.
fn history(config: &Config, rng: &mut Rng, is_closed: bool) -> (Files, State) {
    let fs = SimFs::new(rng.next());
    let mut db = config.sim(fs.clone()).open().unwrap();
    let names = ["default", "b", "c"];
    for step in 0..220_u64 {
        let space = keyspace(&db, rng.pick(&names)).unwrap();
        let key = |rng: &mut Rng| format!("key-{:02}", rng.below(40));
        match rng.below(40) {
            0..=22 => space.put(key(rng), bytes(step, 10 + rng.below(60))).unwrap(),
            23..=28 => space.delete(key(rng)).unwrap(),
            29..=30 => {
                let (a, b) = (key(rng), key(rng));
                space.delete_range(a.clone().min(b.clone())..a.max(b)).unwrap();
            }
            31..=35 => db.flush().unwrap(),
            36..=37 => {
                let (a, b) = (key(rng), key(rng));
                space.compact_range(a.clone().min(b.clone())..a.max(b)).unwrap();
            }
            38 => db.compact_range(..).unwrap(),
            _ => {
                db.close().unwrap();
                drop(space);
                db = config.sim(fs.clone()).open().unwrap();
            }
        }
    }
    let expected = scan(&db).unwrap();
    if is_closed {
        db.close().unwrap();
    }
    (dump(&fs.kill()), expected)
}

fn repair(fs: &SimFs, options: RepairOptions) -> pebble_db::Result<RepairReport> {
    repair_with(dir(), WHOLE, options, &components(fs), |_| ControlFlow::Continue(()))
}

fn open_whole(config: &Config, fs: &SimFs) -> pebble_db::Result<Db> {
    let builder = config.apply(Db::builder(WHOLE)).create_if_missing(false).sync_interval(None);
    builder.components(components(fs)).open()
}

/// Keyspaces by number, as a repair without names calls them: `b` was made first, then `c`, if at all.
fn contents(state: &State) -> Vec<&BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut contents: Vec<_> =
        state.iter().filter(|(name, _)| *name != "default").map(|(_, map)| map).collect();
    contents.sort();
    contents.extend(state.get("default"));
    contents
}

#[test]
fn the_order_of_time_is_found_without_a_manifest() {
    let seeds = env_number("PEBBLE_REPAIR_SEEDS", 60);
    let (mut failures, mut rewritten, mut kept) = (Vec::new(), 0, 0);
    for seed in 0..seeds as u64 {
        let mut rng = Rng(seed);
        let compaction = rng.pick(&policies());
        let config = Config { compaction, ..Config::tiny(rng.pick(&LOG_MODES)) };
        let is_closed = rng.one_in(2);
        let (mut files, expected) = history(&config, &mut rng, is_closed);
        files.retain(|name, _| name != "CURRENT" && class(name) != "manifest");
        attempt(
            &mut failures,
            || format!("seed {seed}"),
            || {
                let fs = disk_of(&files);
                let report = repair(&fs, RepairOptions::default()).unwrap();
                check_account(&report, &files);
                assert!(!report.manifest_believed);
                (rewritten, kept) = (rewritten + report.tables_written, kept + report.tables_kept);
                let db = open_whole(&config, &fs).unwrap();
                let found = scan(&db).unwrap();
                assert!(contents(&found) == contents(&expected), "{found:?}\nfor {expected:?}");
                assert!(found.keys().all(|name| name == "default" || name.starts_with("recovered-")));
                db.compact_range(..).unwrap();
                assert!(scan(&db).unwrap() == found, "a merge changed what is seen");
                drop(db);
                // Salvage sees the same.
                let salvaged = config.sim(fs.clone()).recovery(Recovery::SalvageReadOnly).open().unwrap();
                assert_eq!(scan(&salvaged).unwrap(), found);
            },
        );
    }
    println!("repair: {seeds} histories without a manifest; {kept} tables kept, {rewritten} written");
    assert_none(&failures);
    assert!(rewritten > 0 && kept > 0);
    campaign::count(&["missing", "I4", "I5"], "cases", seeds as u64);
}

/// A table that is gone: its keys are nobody's guess, unless one asks for what is older.
#[test]
fn older_versions_are_kept_only_for_who_asks() {
    let fs = SimFs::new(1);
    let config = Config { compaction: policies()[4], ..Config::tiny(LogIo::Map) };
    let db = config.sim(fs.clone()).open().unwrap();
    for value in ["old", "new"] {
        for key in ["a", "b", "c"] {
            db.put(key, value).unwrap();
        }
        if value == "old" {
            db.put("z", "alone").unwrap();
        }
        db.flush().unwrap();
    }
    db.close().unwrap();
    let newest = dump(&fs).into_keys().filter(|name| class(name) == "table").max().unwrap();
    fs.remove(&dir().join(newest)).unwrap();
    assert_eq!(kind(&config.sim(fs.clone()).open().unwrap_err()), "MissingFile");

    let salvaged = config.sim(fs.clone()).recovery(Recovery::SalvageReadOnly).open().unwrap();
    assert_eq!(kind(&salvaged.get("b").unwrap_err()), "MissingFile");
    assert_eq!(salvaged.get("z").unwrap().as_deref(), Some(&b"alone"[..]));
    assert_eq!(salvaged.iter().unwrap().count(), 1);
    drop(salvaged);
    for (older, count, b) in [(false, 1, None), (true, 4, Some(&b"old"[..]))] {
        let disk = fs.kill();
        repair(&disk, RepairOptions::default().older_versions(older)).unwrap();
        let db = open_whole(&config, &disk).unwrap();
        assert_eq!((db.get("b").unwrap().as_deref(), db.iter().unwrap().count()), (b, count));
    }
    campaign::count(&["missing"], "cases", 3);
}

/// A frame of the log that is lost, of a put and of a range delete.
#[test]
fn older_versions_are_kept_where_a_frame_is_lost() {
    let fs = SimFs::new(1);
    let config = Config::tiny(LogIo::Map);
    let db = config.sim(fs.clone()).open().unwrap();
    ["a", "r"].iter().for_each(|key| db.put(key, "old").unwrap());
    db.flush().unwrap();
    let sync = WriteOptions::sync();
    db.put_with("a", "the new one", &sync).unwrap();
    let mut batch = WriteBatch::new();
    batch.delete_range(&db.default_keyspace(), "r".."the end of it");
    db.write_with(batch, &sync).unwrap();
    ["x", "y"].iter().for_each(|key| db.put_with(key, "1", &sync).unwrap());
    let files = dump(&fs.kill());
    for (key, damaged) in [("a", &b"the new one"[..]), ("r", b"the end of it")] {
        let mut files = files.clone();
        flip(&mut files, damaged);
        for (older, value) in [(false, None), (true, Some(&b"old"[..]))] {
            let disk = disk_of(&files);
            repair(&disk, RepairOptions::default().older_versions(older)).unwrap();
            let db = open_whole(&config, &disk).unwrap();
            assert_eq!(db.get(key).unwrap().as_deref(), value, "{key}, {older}");
            assert!(db.contains("x").unwrap());
        }
    }
    campaign::count(&["log-damage"], "cases", 4);
}

#[test]
fn a_dry_run_says_the_same_and_writes_nothing() {
    for (title, fixture) in fixtures() {
        let fs = damaged(&fixture);
        let (before, events) = (dump(&fs), fs.events());
        let dry = repair(&fs, RepairOptions::default().dry_run(true)).unwrap();
        assert_eq!((dump(&fs), fs.events()), (before, events), "{title}");
        assert!(fs.metadata(Path::new(WHOLE)).unwrap().is_none());
        let done = repair(&fs, RepairOptions::default()).unwrap();
        assert_eq!((&dry.extents, &dry.damage), (&done.extents, &done.damage), "{title}");
        for fate in [Fate::Kept, Fate::Dropped, Fate::Unreadable] {
            assert!(done.extents.iter().any(|extent| extent.fate == fate), "{title}: nothing is {fate:?}");
        }
        let again = repair(&fs, RepairOptions::default()).unwrap_err();
        assert_eq!(kind(&again), "InvalidArgument", "a full directory was written to");
    }
}

/// A table with a wrong byte in the middle of its data.
fn damaged(fixture: &Fixture) -> SimFs {
    let mut files = fixture.files.clone();
    let (_, bytes) = files.iter_mut().find(|(name, _)| class(name) == "table").unwrap();
    bytes[100] ^= 4;
    disk_of(&files)
}

fn make_durable(fs: &SimFs) {
    for name in dump(fs).keys() {
        fs.open(&dir().join(name), Open::Read).unwrap().sync_data().unwrap();
    }
    fs.sync_dir(dir()).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
}

#[test]
fn a_crash_in_a_repair_leaves_a_whole_database_or_none() {
    let mut images = 0;
    for (title, fixture) in fixtures() {
        let fs = damaged(&fixture);
        make_durable(&fs);
        let before = dump(&fs);
        let taken = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&taken);
        fs.on_event(move |fs, number| {
            sink.lock().unwrap().extend([fs.kill(), fs.crash(number)]);
        });
        repair(&fs, RepairOptions::default()).unwrap();
        fs.clear_on_event();
        let expected = scan(&open_whole(&fixture.config, &fs).unwrap()).unwrap();
        for image in std::mem::take(&mut *taken.lock().unwrap()) {
            images += 1;
            match open_whole(&fixture.config, &image) {
                Ok(db) => assert_eq!(scan(&db).unwrap(), expected, "{title}"),
                Err(Error::NotADatabase { .. } | Error::MissingFile { .. }) => {}
                Err(error) => panic!("{title}: {error}"),
            }
            assert!(dump(&image) == before, "{title}: the damaged directory changed");
        }
    }
    println!("repair: {images} images of a repair that crashed");
    campaign::count(&["I7", "killed", "power-lost"], "images", images);
}

/// Also where the directory above its own is new.
#[test]
fn a_repaired_database_is_durable_with_the_way_to_it() {
    let (_, fixture) = &fixtures()[0];
    let fs = damaged(fixture);
    make_durable(&fs);
    let to = Path::new("/new/and/whole");
    let options = RepairOptions::default();
    repair_with(dir(), to, options, &components(&fs), |_| ControlFlow::Continue(())).unwrap();
    let after = fs.crash_with(CrashImage::NothingUnsynced);
    let open = |fs: &SimFs| {
        let builder = fixture.config.apply(Db::builder(to)).create_if_missing(false).sync_interval(None);
        builder.components(components(fs)).open()
    };
    assert_eq!(scan(&open(&after).unwrap()).unwrap(), scan(&open(&fs).unwrap()).unwrap());
    campaign::count(&["power-lost"], "images", 1);
}

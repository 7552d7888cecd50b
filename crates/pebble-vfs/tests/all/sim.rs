//! The simulated disk: its contract as a file system, and the images that a crash may leave.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use pebble_vfs::sim::{CrashImage, SimFs};
use pebble_vfs::{Effect, FaultFs, File, Fs, LockKind, Op, Open, is_no_space, op_error, os_code};

const SEEDS: u64 = 200;

fn path(name: &str) -> &Path {
    Path::new(name)
}

fn create(fs: &SimFs, name: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = fs.open(path(name), Open::CreateNew).unwrap();
    file.write_at(bytes, 0).unwrap();
    file
}

fn read(fs: &SimFs, name: &str) -> Option<Vec<u8>> {
    let file = fs.open(path(name), Open::Read).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

/// What `look` sees over many random crashes.
fn outcomes<T: Ord>(fs: &SimFs, look: impl Fn(&SimFs) -> T) -> BTreeSet<T> {
    (0..SEEDS).map(|seed| look(&fs.crash(seed))).collect()
}

/// A disk with a durable file `a` of three sectors of ones.
fn three_sectors() -> (SimFs, Arc<dyn File>) {
    let fs = SimFs::new(1);
    let file = create(&fs, "a", &[1; 1536]);
    file.sync_data().unwrap();
    fs.sync_dir(path("/")).unwrap();
    (fs, file)
}

/// The first byte of each sector.
fn heads(fs: &SimFs, name: &str) -> Vec<u8> {
    read(fs, name).unwrap().chunks(512).map(|sector| sector[0]).collect()
}

#[test]
fn it_is_a_file_system() {
    let fs = SimFs::new(0);
    fs.create_dir(path("/db/deep")).unwrap();
    fs.create_dir(path("db/deep")).unwrap();
    let file = create(&fs, "/db/a", b"hello");
    file.write_at(b"!", 700).unwrap();
    assert_eq!((file.len().unwrap(), file.path()), (701, path("/db/a")));
    let mut buf = [1; 8];
    assert_eq!(file.read_at(&mut buf, 698).unwrap(), 3);
    assert_eq!(buf, [0, 0, b'!', 1, 1, 1, 1, 1]);
    assert_eq!(file.read_at(&mut buf, 701).unwrap(), 0);
    assert_eq!(file.read_at(&mut buf, u64::MAX).unwrap(), 0);
    file.truncate(2).unwrap();
    file.truncate(4).unwrap();
    assert_eq!(read(&fs, "/db/a").unwrap(), b"he\0\0");

    create(&fs, "/db/b", b"b");
    fs.rename(path("/db/b"), path("/db/c")).unwrap();
    let names: Vec<_> = fs.list(path("/db")).unwrap();
    let names: Vec<_> = names.iter().map(|e| (e.name.to_str().unwrap(), e.len, e.is_file)).collect();
    assert_eq!(names, [("a", 4, true), ("c", 1, true), ("deep", 0, false)]);
    assert_eq!(fs.metadata(path("/db/c")).unwrap().unwrap().len, 1);
    assert_eq!(fs.metadata(path("/none/c")).unwrap(), None);

    fs.remove(path("/db/a")).unwrap();
    assert_eq!(read(&fs, "/db/a"), None);
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), 4, "an open file outlives its name");
}

#[test]
fn misuse_is_refused_with_context() {
    let fs = SimFs::new(0);
    fs.create_dir(path("/d/e")).unwrap();
    create(&fs, "/d/a", b"a");
    let kind = |result: std::io::Result<()>| {
        let error = result.unwrap_err();
        assert!(op_error(&error).is_some(), "{error}");
        error.kind()
    };
    let open = |name, mode| fs.open(path(name), mode).map(drop);
    assert_eq!(kind(open("/d/a", Open::CreateNew)), ErrorKind::AlreadyExists);
    assert_eq!(kind(open("/d/b", Open::Read)), ErrorKind::NotFound);
    assert_eq!(kind(open("/x/b", Open::CreateNew)), ErrorKind::NotFound);
    assert_eq!(kind(open("/d/a/b", Open::CreateNew)), ErrorKind::NotADirectory);
    assert_eq!(kind(open("/d", Open::ReadWrite)), ErrorKind::IsADirectory);
    assert_eq!(kind(open("/d/../d/a", Open::Read)), ErrorKind::InvalidInput);
    assert_eq!(kind(fs.remove(path("/d/e"))), ErrorKind::IsADirectory);
    assert_eq!(kind(fs.rename(path("/d/x"), path("/d/y"))), ErrorKind::NotFound);
    assert_eq!(kind(fs.rename(path("/d/a"), path("/a"))), ErrorKind::InvalidInput);
    assert_eq!(kind(fs.rename(path("/d/a"), path("/d/e"))), ErrorKind::IsADirectory);
    assert_eq!(kind(fs.create_dir(path("/d/a"))), ErrorKind::AlreadyExists);
    assert_eq!(kind(fs.list(path("/x")).map(drop)), ErrorKind::NotFound);

    let reader = fs.open(path("/d/a"), Open::Read).unwrap();
    assert_eq!(os_code(&reader.write_at(b"x", 0).unwrap_err()), Some(9), "EBADF");
    assert_eq!(kind(reader.map_mut().map(drop)), ErrorKind::PermissionDenied);
    let file = fs.open(path("/d/a"), Open::ReadWrite).unwrap();
    assert!(is_no_space(&file.write_at(b"x", u64::MAX).unwrap_err()));
    assert!(is_no_space(&file.allocate(u64::MAX).unwrap_err()));
}

#[test]
fn maps_share_memory_and_fix_the_length() {
    let fs = SimFs::new(0);
    let file = create(&fs, "a", &[]);
    assert!(file.map().unwrap().is_empty());
    file.truncate(5000).unwrap();
    assert_eq!(file.map_mut().unwrap_err().kind(), ErrorKind::InvalidInput, "there may be no blocks");
    file.allocate(5000).unwrap();
    let writable = file.map_mut().unwrap();
    assert_eq!(writable.base().as_ptr().addr() % 4096, 0);
    // SAFETY: within the map, and nobody else looks at the byte.
    unsafe { writable.base().add(4999).write(7) };
    file.write_at(b"x", 0).unwrap();
    let map = file.map().unwrap();
    assert_eq!((map.len(), map[0], map[4999]), (5000, b'x', 7));
    assert_eq!(read(&fs, "a").unwrap()[4999], 7);
    for result in [file.truncate(1), file.allocate(5001), file.write_at(b"x", 5000)] {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::ResourceBusy);
    }
    fs.remove(path("a")).unwrap();
    drop((file, writable));
    assert_eq!(map[4999], 7);
}

#[test]
fn locks_exclude_on_one_disk_and_die_with_it() {
    let fs = SimFs::new(0);
    let lock = |fs: &SimFs, kind| fs.lock(path("LOCK"), kind);
    assert_eq!(lock(&fs, LockKind::Shared).unwrap_err().kind(), ErrorKind::NotFound);
    let exclusive = lock(&fs, LockKind::Exclusive).unwrap();
    assert_eq!(lock(&fs, LockKind::Exclusive).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(lock(&fs, LockKind::Shared).unwrap_err().kind(), ErrorKind::WouldBlock);
    lock(&fs.kill(), LockKind::Exclusive).unwrap();
    drop(exclusive);
    let first = lock(&fs, LockKind::Shared).unwrap();
    let second = lock(&fs, LockKind::Shared).unwrap();
    drop(first);
    assert_eq!(lock(&fs, LockKind::Exclusive).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(second);
    lock(&fs, LockKind::Exclusive).unwrap();
}

#[test]
fn an_unsynced_creation_may_vanish() {
    let fs = SimFs::new(0);
    create(&fs, "a", b"a").sync_data().unwrap();
    let seen = outcomes(&fs, |fs| read(fs, "a"));
    assert_eq!(seen, BTreeSet::from([None, Some(b"a".to_vec())]), "whole or gone: its bytes were synced");
    fs.sync_dir(path("/")).unwrap();
    assert_eq!(outcomes(&fs, |fs| read(fs, "a")), BTreeSet::from([Some(b"a".to_vec())]));
}

#[test]
fn an_unsynced_directory_takes_its_files_along() {
    let fs = SimFs::new(0);
    fs.create_dir(path("d")).unwrap();
    create(&fs, "d/a", b"a").sync_data().unwrap();
    fs.sync_dir(path("d")).unwrap();
    assert_eq!(outcomes(&fs, |fs| read(fs, "d/a")).len(), 2);
    fs.sync_dir(path("/")).unwrap();
    assert_eq!(outcomes(&fs, |fs| read(fs, "d/a")), BTreeSet::from([Some(b"a".to_vec())]));
}

#[test]
fn an_unsynced_removal_may_come_back() {
    let (fs, _file) = three_sectors();
    fs.remove(path("a")).unwrap();
    let seen = outcomes(&fs, |fs| read(fs, "a"));
    assert_eq!(seen, BTreeSet::from([None, Some(vec![1; 1536])]));
    fs.sync_dir(path("/")).unwrap();
    assert_eq!(outcomes(&fs, |fs| read(fs, "a")), BTreeSet::from([None]));
}

#[test]
fn a_rename_is_whole_or_not_at_all() {
    let fs = SimFs::new(0);
    create(&fs, "old", b"old").sync_data().unwrap();
    create(&fs, "new", b"new").sync_data().unwrap();
    fs.sync_dir(path("/")).unwrap();
    fs.rename(path("new"), path("old")).unwrap();
    let seen = outcomes(&fs, |fs| (read(fs, "old"), read(fs, "new")));
    let before = (Some(b"old".to_vec()), Some(b"new".to_vec()));
    let after = (Some(b"new".to_vec()), None);
    assert_eq!(seen, BTreeSet::from([before, after]));
}

#[test]
fn changes_of_different_names_are_free_and_of_one_name_in_order() {
    let fs = SimFs::new(0);
    for name in ["a", "b"] {
        create(&fs, name, name.as_bytes()).sync_data().unwrap();
    }
    fs.remove(path("a")).unwrap();
    create(&fs, "a", b"again").sync_data().unwrap();
    let seen = outcomes(&fs, |fs| (read(fs, "a"), read(fs, "b").is_some()));
    let states = [None, Some(b"a".to_vec()), Some(b"again".to_vec())];
    let all = states.into_iter().flat_map(|a| [(a.clone(), false), (a, true)]).collect();
    assert_eq!(seen, all);
}

#[test]
fn synced_data_survives_under_any_name() {
    let fs = SimFs::new(0);
    let file = create(&fs, "tmp", &[1; 600]);
    fs.sync_dir(path("/")).unwrap();
    fs.rename(path("tmp"), path("final")).unwrap();
    file.sync_data().unwrap();
    for seed in 0..SEEDS {
        let after = fs.crash(seed);
        let names = [read(&after, "tmp"), read(&after, "final")];
        assert_eq!(names.into_iter().flatten().collect::<Vec<_>>(), [vec![1; 600]]);
    }
}

#[test]
fn every_subset_of_unsynced_sectors_appears() {
    let (fs, file) = three_sectors();
    file.write_at(&[2; 1536], 0).unwrap();
    let seen = outcomes(&fs, |fs| heads(fs, "a"));
    assert_eq!(seen.len(), 8);
    assert!(seen.iter().flatten().all(|byte| [1, 2].contains(byte)));
    assert!(outcomes(&fs, |fs| read(fs, "a").unwrap().len()).into_iter().eq([1536]));
    file.sync_data().unwrap();
    assert_eq!(outcomes(&fs, |fs| heads(fs, "a")), BTreeSet::from([vec![2; 3]]));
}

#[test]
fn files_keep_their_sectors_independently() {
    let (fs, file) = three_sectors();
    let other = create(&fs, "b", &[1; 512]);
    other.sync_data().unwrap();
    fs.sync_dir(path("/")).unwrap();
    file.write_at(&[2], 0).unwrap();
    other.write_at(&[2], 0).unwrap();
    assert_eq!(outcomes(&fs, |fs| (heads(fs, "a"), heads(fs, "b"))).len(), 4);
}

#[test]
fn a_grown_file_has_any_length_and_may_run_ahead_of_its_data() {
    let fs = SimFs::new(3);
    let file = create(&fs, "a", &[1; 100]);
    file.sync_data().unwrap();
    fs.sync_dir(path("/")).unwrap();
    file.write_at(&[2; 1200], 100).unwrap();
    let seen = outcomes(&fs, |fs| read(fs, "a").unwrap());
    let lengths: BTreeSet<usize> = seen.iter().map(Vec::len).collect();
    assert_eq!(lengths, BTreeSet::from([100, 512, 1024, 1300]));
    for image in &seen {
        assert_eq!(image[..100], [1; 100], "synced bytes of a shared sector");
        for sector in image[100..].chunk_by(|a, b| a == b) {
            assert!([0, 2].contains(&sector[0]));
        }
    }
    assert!(seen.iter().any(|image| image.len() == 1300 && image[512..] == [0; 788]));
}

#[test]
fn a_cut_file_may_have_its_old_length() {
    let (fs, file) = three_sectors();
    file.truncate(10).unwrap();
    let seen = outcomes(&fs, |fs| read(fs, "a").unwrap().len());
    assert_eq!(seen, BTreeSet::from([10, 512, 1024, 1536]));
    file.sync_data().unwrap();
    assert_eq!(outcomes(&fs, |fs| read(fs, "a").unwrap()), BTreeSet::from([vec![1; 10]]));
}

#[test]
fn mapped_stores_are_unsynced_from_the_moment_they_are_made() {
    let (fs, file) = three_sectors();
    let map = file.map_mut().unwrap();
    // SAFETY: within the map, and nobody else looks at the bytes.
    let store = |at: usize, byte: u8| unsafe { map.base().add(at).write(byte) };
    store(0, 2);
    store(1024, 2);
    let all = || BTreeSet::from([[1, 1, 1], [1, 1, 2], [2, 1, 1], [2, 1, 2]].map(Vec::from));
    assert_eq!(outcomes(&fs, |fs| heads(fs, "a")), all());
    file.sync_data().unwrap();
    assert_eq!(outcomes(&fs, |fs| heads(fs, "a")), BTreeSet::from([vec![2, 1, 2]]));
    store(512, 3);
    drop(map);
    assert_eq!(outcomes(&fs, |fs| heads(fs, "a")).len(), 2, "also once the map is gone");
    file.sync_data().unwrap();
    assert_eq!(outcomes(&fs, |fs| heads(fs, "a")), BTreeSet::from([vec![2, 3, 2]]));
}

#[test]
fn the_named_images_are_what_they_say() {
    let (fs, file) = three_sectors();
    file.write_at(&[2; 2048], 0).unwrap();
    create(&fs, "b", b"b").sync_data().unwrap();
    let image = |image| {
        let after = fs.crash_with(image);
        (heads(&after, "a"), read(&after, "b").is_some())
    };
    assert_eq!(image(CrashImage::NothingUnsynced), (vec![1; 3], false));
    assert_eq!(image(CrashImage::EverythingUnsynced), (vec![2; 4], true));
    assert_eq!(image(CrashImage::NamesOnly), (vec![1; 3], true));
    assert_eq!(image(CrashImage::DataOnly), (vec![2; 4], false));
    assert_eq!(image(CrashImage::ZeroedTail), (vec![1, 1, 1, 0], true));
    let torn: BTreeSet<_> = (0..SEEDS).map(|seed| image(CrashImage::TornTail(seed)).0).collect();
    for heads in [vec![1, 1, 1], vec![1, 1, 1, 0], vec![2, 1, 1], vec![2, 2, 1, 0], vec![2, 2, 2, 2]] {
        assert!(torn.contains(&heads), "{heads:?} in {torn:?}");
    }
    assert!(!torn.contains(&vec![1, 2, 1]), "a torn tail has one edge");
}

#[test]
fn a_seed_names_one_image() {
    let (fs, file) = three_sectors();
    file.write_at(&[2; 1536], 0).unwrap();
    create(&fs, "b", b"b");
    let look = |fs: &SimFs| (heads(fs, "a"), read(fs, "b"));
    assert!((0..SEEDS).all(|seed| look(&fs.crash(seed)) == look(&fs.crash(seed))));
}

#[test]
fn a_kill_keeps_everything_and_syncs_nothing() {
    let (fs, file) = three_sectors();
    let map = file.map_mut().unwrap();
    // SAFETY: within the map, and nobody else looks at the byte.
    unsafe { map.base().write(2) };
    create(&fs, "b", b"b");
    fs.rename(path("b"), path("c")).unwrap();
    let killed = fs.kill();
    assert_eq!((heads(&killed, "a"), read(&killed, "c")), (vec![2, 1, 1], Some(b"b".to_vec())));
    let lost = killed.crash_with(CrashImage::NothingUnsynced);
    assert_eq!((heads(&lost, "a"), read(&lost, "c")), (vec![1, 1, 1], None));
    // SAFETY: as above.
    unsafe { map.base().write(3) };
    file.write_at(&[4], 600).unwrap();
    assert_eq!(heads(&killed, "a"), [2, 1, 1], "old handles stay with the old disk");
    let reopened = killed.open(path("a"), Open::ReadWrite).unwrap();
    reopened.sync_data().unwrap();
    assert_eq!(heads(&killed.crash_with(CrashImage::NothingUnsynced), "a"), [2, 1, 1]);
}

#[test]
fn a_crash_leaves_a_disk_of_its_own() {
    let (fs, file) = three_sectors();
    let after = fs.crash_with(CrashImage::EverythingUnsynced);
    create(&after, "b", b"b");
    after.open(path("a"), Open::ReadWrite).unwrap().write_at(&[9], 0).unwrap();
    file.write_at(&[8], 512).unwrap();
    assert_eq!((heads(&fs, "a"), read(&fs, "b")), (vec![1, 8, 1], None));
    assert_eq!(heads(&after, "a"), [9, 1, 1]);
    assert_eq!(heads(&after.crash_with(CrashImage::NothingUnsynced), "a"), [1, 1, 1]);
}

#[test]
fn blocks_are_durable_with_the_data() {
    let fs = SimFs::new(0);
    let file = create(&fs, "a", b"");
    file.allocate(4096).unwrap();
    fs.sync_dir(path("/")).unwrap();
    let open = |fs: &SimFs| fs.open(path("a"), Open::ReadWrite).unwrap();
    let lost = open(&fs.crash_with(CrashImage::EverythingUnsynced));
    assert_eq!(lost.map_mut().unwrap_err().kind(), ErrorKind::InvalidInput);
    file.sync_data().unwrap();
    assert_eq!(open(&fs.crash_with(CrashImage::NothingUnsynced)).map_mut().unwrap().len(), 4096);
    file.truncate(8192).unwrap();
    file.sync_data().unwrap();
    let holes = open(&fs.crash_with(CrashImage::NothingUnsynced));
    assert_eq!(holes.map_mut().unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_failed_sync_loses_what_it_should_have_written() {
    let (fs, file) = three_sectors();
    let nothing = |fs: &SimFs| heads(&fs.crash_with(CrashImage::NothingUnsynced), "a");
    file.write_at(&[2; 1536], 0).unwrap();
    fs.drop_dirty(path("a")).unwrap();
    assert_eq!(heads(&fs, "a"), [2, 2, 2], "still read");
    file.write_at(&[3], 512).unwrap();
    file.write_at(&[2], 1024).unwrap();
    file.sync_data().unwrap();
    assert_eq!(nothing(&fs), [1, 3, 2], "only what was written again, be it the same");
    assert_eq!(outcomes(&fs, |fs| heads(fs, "a")), BTreeSet::from([vec![1, 3, 2]]));

    file.write_at(&[5; 600], 1536).unwrap();
    fs.drop_dirty(path("a")).unwrap();
    file.sync_data().unwrap();
    assert_eq!(nothing(&fs), [1, 3, 2, 0, 0], "the length of a lost tail may be there");
    assert_eq!(heads(&fs.kill(), "a"), [2, 3, 2, 5, 5], "the cache outlives the process");
}

#[test]
fn a_full_disk_is_an_error_and_space_comes_back() {
    let fs = SimFs::new(0);
    fs.set_capacity(Some(1000));
    let file = create(&fs, "a", &[1; 600]);
    assert_eq!(fs.free_space(path("/")).unwrap(), 400);
    let error = file.allocate(1001).unwrap_err();
    assert!(is_no_space(&error) && os_code(&error).is_some());
    assert_eq!(file.len().unwrap(), 600);
    let other = create(&fs, "b", &[]);
    assert!(is_no_space(&other.write_at(&[2; 500], 0).unwrap_err()));
    assert_eq!(other.len().unwrap(), 400, "what fits is written");
    assert!(is_no_space(&fs.open(path("c"), Open::CreateNew).unwrap_err()));
    file.write_at(&[3; 600], 0).unwrap();

    fs.sync_dir(path("/")).unwrap();
    fs.remove(path("a")).unwrap();
    assert_eq!(fs.free_space(path("/")).unwrap(), 0, "still open");
    let map = file.map().unwrap();
    drop(file);
    assert_eq!(fs.free_space(path("/")).unwrap(), 0, "still mapped");
    drop(map);
    assert_eq!(fs.free_space(path("/")).unwrap(), 600);
    fs.set_capacity(None);
    other.write_at(&[2; 5000], 0).unwrap();
}

/// A name that was made and given on needs both changes; the file's bytes are a thing of their own.
#[test]
fn one_thing_is_lost_or_kept_by_itself() {
    let fs = SimFs::new(0);
    create(&fs, "old", b"1").sync_data().unwrap();
    fs.sync_dir(path("/")).unwrap();
    create(&fs, "a", b"2");
    fs.rename(path("a"), path("b")).unwrap();
    fs.remove(path("old")).unwrap();
    assert_eq!(fs.unsynced(), 4, "three changes of the directory and a file");
    let shown = |image| {
        let text = |(path, bytes): (PathBuf, Option<Arc<Vec<u8>>>)| {
            format!("{}={}", path.display(), bytes.unwrap().escape_ascii())
        };
        fs.crash_with(image).contents().into_iter().map(text).collect::<Vec<_>>().join(" ")
    };
    let but = [0, 1, 2, 3, 4].map(|number| shown(CrashImage::AllBut(number)));
    assert_eq!(but, ["", "a=2", "b=2 old=1", "b=", "b=2"]);
    let only = [0, 1, 2, 3, 4].map(|number| shown(CrashImage::Only(number)));
    assert_eq!(only, ["a= old=1", "b= old=1", "", "old=1", "old=1"]);
    assert!(fs.crash_with(CrashImage::DataOnly).contents() == fs.crash_with(CrashImage::Only(3)).contents());
}

/// Every call goes once through a wrapper that counts calls by kind; the disk announces each that changes it, under
/// the same kind.
#[test]
fn every_kind_of_call_is_announced_as_what_it_is() {
    let sim = SimFs::new(0);
    let fs = FaultFs::over_sim(sim.clone());
    let announced = Arc::new(Mutex::new(BTreeMap::new()));
    let sink = Arc::clone(&announced);
    sim.on_event(move |sim, _| *sink.lock().unwrap().entry(sim.announced().unwrap()).or_insert(0) += 1);
    fs.create_dir(path("d")).unwrap();
    let file = fs.open(path("d/a"), Open::CreateNew).unwrap();
    file.write_at(b"1", 0).unwrap();
    file.truncate(2).unwrap();
    file.allocate(4096).unwrap();
    file.sync_data().unwrap();
    fs.sync_dir(path("d")).unwrap();
    fs.rename(path("d/a"), path("d/b")).unwrap();
    drop((file.map().unwrap(), file.map_mut().unwrap()));
    assert_eq!(file.read_at(&mut [0], 0).unwrap(), 1);
    file.write_back(0, 1).unwrap();
    drop((fs.open(path("d/b"), Open::Read).unwrap(), fs.lock(path("lock"), LockKind::Exclusive).unwrap()));
    drop((fs.list(path("d")).unwrap(), fs.metadata(path("d")).unwrap(), fs.free_space(path("d")).unwrap()));
    fs.remove(path("d/b")).unwrap();
    assert_eq!(sim.announced(), None);
    for op in Op::ALL {
        assert_eq!(fs.calls(op), 1, "{op:?}");
        let expected = u64::from(op.effect() != Effect::None);
        assert_eq!(announced.lock().unwrap().get(&op).copied().unwrap_or(0), expected, "{op:?}");
    }
}

#[test]
fn every_event_is_announced_before_it_happens() {
    let fs = SimFs::new(0);
    let images = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&images);
    fs.on_event(move |fs, number| {
        let image = fs.crash_with(CrashImage::EverythingUnsynced);
        let inner = Arc::clone(&taken);
        image.on_event(move |_, _| inner.lock().unwrap().push((u64::MAX, 0, 0)));
        image.create_dir(path("recovery")).unwrap();
        fs.create_dir(path("from-the-hook")).unwrap();
        let len = read(fs, "a").map_or(0, |bytes| bytes.len());
        taken.lock().unwrap().push((number, len, fs.list(path("/")).unwrap().len()));
    });
    let file = create(&fs, "a", b"12345");
    file.sync_data().unwrap();
    fs.clear_on_event();
    file.truncate(0).unwrap();
    let nested = (u64::MAX, 0, 0);
    let expected = [nested, (0, 0, 1), nested, (2, 0, 2), nested, (4, 5, 2)];
    assert_eq!(*images.lock().unwrap(), expected);
    assert_eq!(fs.events(), 7, "three announced, three of the hook's own, one after it");
}

#[test]
fn exactly_the_changing_calls_are_events() {
    let fs = SimFs::new(0);
    let file = create(&fs, "a", b"1");
    let writable = fs.open(path("a"), Open::ReadWrite).unwrap();
    let calls: [(&str, u64, &dyn Fn()); 17] = [
        ("create", 1, &|| drop(fs.open(path("b"), Open::CreateNew).unwrap())),
        ("create-dir", 1, &|| fs.create_dir(path("d")).unwrap()),
        ("write", 1, &|| writable.write_at(b"2", 0).unwrap()),
        ("allocate", 1, &|| file.allocate(10).unwrap()),
        ("truncate", 1, &|| file.truncate(5).unwrap()),
        ("sync", 1, &|| file.sync_data().unwrap()),
        ("sync-dir", 1, &|| fs.sync_dir(path("/")).unwrap()),
        ("rename", 1, &|| fs.rename(path("b"), path("c")).unwrap()),
        ("remove", 1, &|| fs.remove(path("c")).unwrap()),
        ("lock that creates", 1, &|| drop(fs.lock(path("LOCK"), LockKind::Exclusive).unwrap())),
        ("lock", 0, &|| drop(fs.lock(path("LOCK"), LockKind::Exclusive).unwrap())),
        ("open", 0, &|| drop(fs.open(path("a"), Open::ReadWrite).unwrap())),
        ("read", 0, &|| drop(read(&fs, "a"))),
        ("list", 0, &|| drop(fs.list(path("/")).unwrap())),
        ("map", 0, &|| drop((file.map().unwrap(), file.map_mut().unwrap()))),
        ("write-back", 0, &|| file.write_back(0, 5).unwrap()),
        ("images", 0, &|| drop((fs.crash(0), fs.kill()))),
    ];
    for (name, count, call) in calls {
        let before = fs.events();
        call();
        assert_eq!(fs.events() - before, count, "{name}");
    }
}

#[test]
fn threads_share_a_disk() {
    let fs = SimFs::new(0);
    fs.set_capacity(Some(1 << 20));
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let fs = fs.clone();
            scope.spawn(move || {
                for round in 0..50u64 {
                    let file = create(&fs, &format!("{thread}-{round}"), &[thread; 700]);
                    file.sync_data().unwrap();
                    fs.sync_dir(path("/")).unwrap();
                    let after = fs.crash(round);
                    assert_eq!(read(&after, &format!("{thread}-{round}")), Some(vec![thread; 700]));
                }
            });
        }
    });
    assert_eq!(fs.list(path("/")).unwrap().len(), 200);
}

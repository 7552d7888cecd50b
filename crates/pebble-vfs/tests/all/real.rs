//! The real file system, in a temporary directory.

use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use pebble_vfs::{Advice, DIRECT_ALIGN, DirectBuffer, Fs, LockKind, Open, OsFs, op_error, os_code};

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn bytes_written_are_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let file = OsFs.open(&path, Open::CreateNew).unwrap();
    file.write_at(b"world", 6).unwrap();
    file.write_at(b"hello ", 0).unwrap();
    file.sync_data().unwrap();
    file.write_back(0, 11).unwrap();
    OsFs.sync_dir(dir.path()).unwrap();
    assert_eq!(file.len().unwrap(), 11);
    assert_eq!(file.path(), path);

    let again = OsFs.open(&path, Open::Read).unwrap();
    let mut buf = [0; 11];
    again.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"hello world");
    assert_eq!(again.read_at(&mut buf, 6).unwrap(), 5);
    assert_eq!(again.read_at(&mut buf, 11).unwrap(), 0);
    let error = again.read_exact_at(&mut buf, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    assert_eq!(op_error(&error).unwrap().path, path);
    assert_eq!(os_code(&again.write_at(b"x", 0).unwrap_err()), Some(9), "EBADF");
}

#[test]
fn open_modes_are_strict() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    for mode in [Open::Read, Open::ReadWrite] {
        let error = OsFs.open(&path, mode).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(op_error(&error).unwrap().op, "open");
    }
    OsFs.open(&path, Open::CreateNew).unwrap();
    assert_eq!(OsFs.open(&path, Open::CreateNew).unwrap_err().kind(), ErrorKind::AlreadyExists);
}

#[test]
fn only_regular_files_open_and_nothing_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let target = dir.path().join("target");
    OsFs.open(&target, Open::CreateNew).unwrap();
    let link = dir.path().join("link");
    symlink(&target, &link).unwrap();
    for mode in [Open::Read, Open::ReadWrite] {
        assert_eq!(OsFs.open(&fifo, mode).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(os_code(&OsFs.open(&link, mode).unwrap_err()), Some(40), "ELOOP");
        assert_eq!(OsFs.open(dir.path(), mode).unwrap_err().kind(), ErrorKind::IsADirectory);
    }
    assert_eq!(OsFs.open(&link, Open::CreateNew).unwrap_err().kind(), ErrorKind::AlreadyExists);
    for kind in [LockKind::Exclusive, LockKind::Shared] {
        assert_eq!(OsFs.lock(&fifo, kind).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(os_code(&OsFs.lock(&link, kind).unwrap_err()), Some(40), "ELOOP");
    }
    assert!(!OsFs.metadata(&link).unwrap().unwrap().is_file);
}

#[test]
fn what_is_created_belongs_to_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a/b");
    OsFs.create_dir(&deep).unwrap();
    OsFs.create_dir(&deep).unwrap();
    assert_eq!((mode(&dir.path().join("a")), mode(&deep)), (0o700, 0o700));
    OsFs.open(&deep.join("f"), Open::CreateNew).unwrap();
    let _lock = OsFs.lock(&deep.join("LOCK"), LockKind::Exclusive).unwrap();
    assert_eq!((mode(&deep.join("f")), mode(&deep.join("LOCK"))), (0o600, 0o600));
    assert!(OsFs.create_dir(&deep.join("f")).is_err());
}

#[test]
fn locks_exclude_within_a_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("LOCK");
    assert_eq!(OsFs.lock(&path, LockKind::Shared).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(OsFs.metadata(&path).unwrap(), None, "a shared lock creates nothing");

    let exclusive = OsFs.lock(&path, LockKind::Exclusive).unwrap();
    for kind in [LockKind::Exclusive, LockKind::Shared] {
        let error = OsFs.lock(&path, kind).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert_eq!(op_error(&error).unwrap().op, "lock");
    }
    drop(exclusive);
    let shared = [(); 2].map(|()| OsFs.lock(&path, LockKind::Shared).unwrap());
    assert_eq!(OsFs.lock(&path, LockKind::Exclusive).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(shared);
    OsFs.lock(&path, LockKind::Exclusive).unwrap();
}

/// The child half of `locks_exclude_other_processes`: does nothing unless that test starts it.
#[test]
fn try_lock_in_child() {
    let Some(path) = std::env::var_os("PEBBLE_VFS_LOCK") else { return };
    let kind = OsFs.lock(Path::new(&path), LockKind::Exclusive).err().map(|error| error.kind());
    std::process::exit(if kind == Some(ErrorKind::WouldBlock) { 42 } else { 43 });
}

#[test]
fn locks_exclude_other_processes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("LOCK");
    let child = || {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "real::try_lock_in_child"])
            .env("PEBBLE_VFS_LOCK", &path)
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap()
            .code()
    };
    let held = OsFs.lock(&path, LockKind::Exclusive).unwrap();
    assert_eq!(child(), Some(42));
    drop(held);
    assert_eq!(child(), Some(43));
}

#[test]
fn names_change_and_are_listed_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["b", "a", "c"] {
        OsFs.open(&at(name), Open::CreateNew).unwrap().write_at(name.as_bytes(), 2).unwrap();
    }
    OsFs.create_dir(&at("d")).unwrap();
    OsFs.rename(&at("a"), &at("c")).unwrap();
    OsFs.remove(&at("b")).unwrap();
    let listed: Vec<_> = OsFs.list(dir.path()).unwrap();
    let listed: Vec<_> = listed.iter().map(|e| (e.name.to_str().unwrap(), e.len, e.is_file)).collect();
    assert_eq!(listed, [("c", 3, true), ("d", 0, false)]);
    for number in 0..64 {
        OsFs.open(&at("d").join(format!("{:02}", number * 37 % 64)), Open::CreateNew).unwrap();
    }
    assert!(OsFs.list(&at("d")).unwrap().is_sorted_by(|a, b| a.name < b.name));
    assert_eq!(OsFs.metadata(&at("a")).unwrap(), None);
    assert_eq!(OsFs.metadata(&at("c")).unwrap().unwrap().len, 3);
    assert_eq!(OsFs.remove(&at("a")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(OsFs.rename(&at("c"), &at("d/c")).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(OsFs.list(&at("x")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(OsFs.sync_dir(&at("c")).unwrap_err().kind(), ErrorKind::NotADirectory);
    assert!(OsFs.free_space(dir.path()).unwrap() > 0);
}

#[test]
fn allocation_extends_and_never_shrinks() {
    let dir = tempfile::tempdir().unwrap();
    let file = OsFs.open(&dir.path().join("a"), Open::CreateNew).unwrap();
    match file.allocate(1 << 16) {
        Err(error) if error.kind() == ErrorKind::Unsupported => return,
        result => result.unwrap(),
    }
    file.write_at(b"x", 100).unwrap();
    file.allocate(10).unwrap();
    file.allocate(0).unwrap();
    assert_eq!(file.len().unwrap(), 1 << 16);
    let blocks = std::fs::metadata(file.path()).unwrap().blocks();
    assert!(blocks * 512 >= 1 << 16, "{blocks} blocks are not real ones");
    file.truncate(101).unwrap();
    let mut buf = [9; 101];
    file.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!((buf[0], buf[100]), (0, b'x'));
    assert_eq!(file.allocate(u64::MAX).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn what_was_never_written_is_known_to_be_zeros() {
    const LEN: u64 = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let file = OsFs.open(&dir.path().join("a"), Open::CreateNew).unwrap();
    assert_eq!(file.written(0).unwrap(), None);
    file.allocate(LEN).unwrap();
    file.write_at(&[1; 100], 300_000).unwrap();
    file.write_at(&[2; 9000], 700_001).unwrap();

    // A hole that was read may count as written from then on, so all parts are asked for first.
    let parts: Vec<_> =
        std::iter::successors(file.written(0).unwrap(), |part| file.written(part.end).unwrap()).collect();
    let (mut from, mut zeros) = (0, 0);
    for part in parts.into_iter().chain(std::iter::once(LEN..LEN)) {
        assert!(from <= part.start && part.start <= part.end && part.end <= LEN, "{part:?} behind {from}");
        let mut gap = vec![9; usize::try_from(part.start - from).unwrap()];
        file.read_exact_at(&mut gap, from).unwrap();
        assert!(gap.iter().all(|byte| *byte == 0), "{from} .. {part:?}");
        zeros += gap.len();
        from = part.end;
    }
    // A file system that tells nothing has one part; this one can, where the tests of the project run.
    assert!(zeros == 0 || zeros > 900_000, "{zeros} bytes of it are no holes");
    assert_eq!(file.written(LEN).unwrap(), None);
}

#[test]
fn maps_share_memory_and_outlive_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let file = OsFs.open(&path, Open::CreateNew).unwrap();
    assert!(file.map().unwrap().is_empty());
    assert!(file.map_mut().unwrap().is_empty());
    file.write_at(&[7; 5000], 0).unwrap();
    let writable = file.map_mut().unwrap();
    assert_eq!((writable.len(), writable.base().as_ptr().addr() % 4096), (5000, 0));
    // SAFETY: within the map, and nobody else looks at the byte.
    unsafe { writable.base().add(4999).write(9) };
    let map = file.map().unwrap();
    for advice in [Advice::Random, Advice::Sequential, Advice::WillNeed] {
        map.advise(advice).unwrap();
    }
    file.sync_data().unwrap();
    OsFs.remove(&path).unwrap();
    drop((file, writable));
    assert_eq!((map.len(), map[0], map[4999]), (5000, 7, 9));
    std::thread::spawn(move || assert_eq!(map[4998], 7)).join().unwrap();
}

#[test]
fn what_goes_past_the_cache_and_what_does_not_are_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let file = OsFs.open(&path, Open::CreateNew).unwrap();
    let mut chunk = DirectBuffer::new(3 * DIRECT_ALIGN).unwrap();
    for (at, byte) in chunk.bytes_mut().iter_mut().enumerate() {
        *byte = (at % 251) as u8;
    }
    file.write_past_cache(chunk.bytes(), 0).unwrap();
    // Neither of these is aligned, and each goes the ordinary way.
    file.write_past_cache(&chunk.bytes()[..77], 3 * DIRECT_ALIGN as u64).unwrap();
    file.write_past_cache(&chunk.bytes()[1..DIRECT_ALIGN + 1], 100).unwrap();
    file.sync_data().unwrap();
    let mut expected = chunk.bytes().to_vec();
    expected.extend_from_slice(&chunk.bytes()[..77]);
    expected[100..100 + DIRECT_ALIGN].copy_from_slice(&chunk.bytes()[1..DIRECT_ALIGN + 1]);

    let mut whole = vec![0; expected.len()];
    file.read_exact_at(&mut whole, 0).unwrap();
    assert_eq!(whole, expected);
    assert_eq!(*file.map().unwrap(), *expected);
    let reader = OsFs.open(&path, Open::Read).unwrap();
    let mut part = DirectBuffer::new(2 * DIRECT_ALIGN).unwrap();
    assert_eq!(reader.read_past_cache(part.bytes_mut(), DIRECT_ALIGN as u64).unwrap(), 2 * DIRECT_ALIGN);
    assert_eq!(part.bytes(), &expected[DIRECT_ALIGN..3 * DIRECT_ALIGN]);
    // Up to the end of the file, and not behind it.
    assert_eq!(reader.read_past_cache(part.bytes_mut(), 3 * DIRECT_ALIGN as u64).unwrap(), 77);
    assert_eq!(reader.read_past_cache(part.bytes_mut(), 4 * DIRECT_ALIGN as u64).unwrap(), 0);
}

#[test]
fn a_file_under_another_name_is_not_taken_for_the_one_that_was_opened() {
    let dir = tempfile::tempdir().unwrap();
    let [path, other] = ["one", "other"].map(|name| dir.path().join(name));
    let file = OsFs.open(&path, Open::CreateNew).unwrap();
    OsFs.rename(&path, &other).unwrap();
    let stranger = OsFs.open(&path, Open::CreateNew).unwrap();
    file.write_past_cache(DirectBuffer::new(DIRECT_ALIGN).unwrap().bytes(), 0).unwrap();
    assert_eq!((file.len().unwrap(), stranger.len().unwrap()), (DIRECT_ALIGN as u64, 0));
}

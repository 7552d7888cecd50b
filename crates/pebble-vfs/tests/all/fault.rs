//! The fault wrapper: each kind, each selection, and what is left of a call.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use pebble_vfs::fault::{Fault, FaultKind, Op};
use pebble_vfs::sim::CrashImage;
use pebble_vfs::{FaultFs, File, Fs, LockKind, Open, OsFs, SimFs, is_no_space, op_error, os_code};

const A: &str = "/db/a.log";

/// A wrapped disk with one open file of 8 bytes; the rules are added after that.
fn disk() -> (SimFs, FaultFs, Arc<dyn File>) {
    let sim = SimFs::new(0);
    let fs = FaultFs::over_sim(sim.clone());
    fs.create_dir(Path::new("/db")).unwrap();
    let file = fs.open(Path::new(A), Open::CreateNew).unwrap();
    file.write_at(b"abcdefgh", 0).unwrap();
    file.sync_data().unwrap();
    for dir in ["/", "/db"] {
        fs.sync_dir(Path::new(dir)).unwrap();
    }
    (sim, fs, file)
}

fn content(file: &dyn File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn errors_carry_code_and_context_and_the_call_does_nothing() {
    for (kind, code) in [(FaultKind::Io, 5), (FaultKind::NoSpace, 28), (FaultKind::TooManyFiles, 24)] {
        let (_, fs, file) = disk();
        fs.inject(Fault::once(Op::Write, 0, kind));
        let error = file.write_at(b"XY", 0).unwrap_err();
        assert_eq!(os_code(&error), Some(code));
        assert_eq!(is_no_space(&error), kind == FaultKind::NoSpace);
        let context = op_error(&error).unwrap();
        assert_eq!((context.op, context.path.as_path()), ("write", Path::new(A)));
        assert_eq!(content(&*file), b"abcdefgh");
        file.write_at(b"XY", 0).unwrap();
        assert_eq!(content(&*file), b"XYcdefgh", "once");
    }
}

#[test]
fn every_operation_can_fail() {
    let (_, fs, file) = disk();
    let (a, b) = (Path::new(A), Path::new("/db/b"));
    let calls: [(Op, &dyn Fn() -> std::io::Result<()>); 16] = [
        (Op::Open, &|| fs.open(a, Open::Read).map(drop)),
        (Op::Create, &|| fs.open(b, Open::CreateNew).map(drop)),
        (Op::CreateDir, &|| fs.create_dir(b)),
        (Op::Read, &|| file.read_at(&mut [0], 0).map(drop)),
        (Op::Write, &|| file.write_at(&[0], 0)),
        (Op::Allocate, &|| file.allocate(100)),
        (Op::Truncate, &|| file.truncate(1)),
        (Op::Sync, &|| file.sync_data()),
        (Op::SyncDir, &|| fs.sync_dir(Path::new("/db"))),
        (Op::Rename, &|| fs.rename(a, b)),
        (Op::Remove, &|| fs.remove(a)),
        (Op::Map, &|| file.map().map(drop)),
        (Op::MapMut, &|| file.map_mut().map(drop)),
        (Op::Lock, &|| fs.lock(b, LockKind::Exclusive).map(drop)),
        (Op::List, &|| fs.list(Path::new("/db")).map(drop)),
        (Op::Metadata, &|| fs.metadata(a).map(drop)),
    ];
    for (op, call) in &calls {
        let (all, own) = (fs.calls(Op::Any), fs.calls(*op));
        fs.inject(Fault::once(*op, 0, FaultKind::Io));
        let error = call().unwrap_err();
        assert_eq!(os_code(&error), Some(5), "{op:?}");
        assert!(op_error(&error).is_some(), "{op:?}");
        assert_eq!((fs.calls(Op::Any), fs.calls(*op)), (all + 1, own + 1), "{op:?}");
    }
    assert_eq!(fs.fired(), 16);
    assert_eq!(fs.list(Path::new("/db")).unwrap().len(), 1, "none of them did anything");
    assert_eq!(content(&*file), b"abcdefgh");
}

#[test]
fn rules_count_what_they_select() {
    let (_, fs, file) = disk();
    let other = fs.open(Path::new("/db/b.sst"), Open::CreateNew).unwrap();
    fs.inject(Fault::once(Op::Write, 1, FaultKind::Io).sticky().on(".log"));
    let fails = |file: &Arc<dyn File>| file.write_at(b"x", 0).is_err();
    let seen = [fails(&file), fails(&other), fails(&other), fails(&file), fails(&other), fails(&file)];
    assert_eq!(seen, [false, false, false, true, false, true]);
    fs.clear();
    assert!(!fails(&file));

    fs.inject(Fault::once(Op::Any, 2, FaultKind::TooManyFiles));
    assert!(!fails(&file));
    fs.metadata(Path::new(A)).unwrap();
    assert_eq!(os_code(&fs.list(Path::new("/db")).unwrap_err()), Some(24));
    fs.inject(Fault::once(Op::Rename, 0, FaultKind::Io).on("*/new"));
    assert!(fs.rename(Path::new(A), Path::new("/db/new")).is_err());
}

#[test]
fn a_short_write_leaves_half() {
    let (_, fs, file) = disk();
    fs.inject(Fault::once(Op::Write, 0, FaultKind::ShortWrite));
    assert!(is_no_space(&file.write_at(b"123456", 0).unwrap_err()));
    assert_eq!(content(&*file), b"123defgh");
}

#[test]
fn an_interruption_is_invisible() {
    let (_, fs, file) = disk();
    fs.inject(Fault::once(Op::Any, 0, FaultKind::Interrupted).sticky());
    file.write_at(b"XY", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(content(&*file), b"XYcdefgh");
    fs.open(Path::new(A), Open::Read).unwrap();
    assert!(fs.fired() >= 4);
}

#[test]
fn a_flipped_bit_is_read_and_mapped_but_not_stored() {
    let (_, fs, file) = disk();
    fs.inject(Fault::once(Op::Read, 0, FaultKind::FlipBit { bit: 64 + 9 }));
    fs.inject(Fault::once(Op::Map, 0, FaultKind::FlipBit { bit: 9 }));
    assert_eq!(content(&*file), b"a`cdefgh");
    assert_eq!(&*file.map().unwrap(), b"a`cdefgh");
    assert_eq!(content(&*file), b"abcdefgh");
    assert_eq!(&*file.map().unwrap(), b"abcdefgh");
}

#[test]
fn a_lying_sync_fails_once_and_then_pretends() {
    let (sim, fs, file) = disk();
    fs.inject(Fault::once(Op::Sync, 0, FaultKind::LyingSync));
    file.write_at(b"XY", 0).unwrap();
    fs.rename(Path::new(A), Path::new("/db/renamed")).unwrap();
    fs.sync_dir(Path::new("/db")).unwrap();
    assert_eq!(os_code(&file.sync_data().unwrap_err()), Some(5));
    file.sync_data().unwrap();
    assert_eq!(content(&*file), b"XYcdefgh");
    let after = sim.crash_with(CrashImage::EverythingUnsynced);
    let file = after.open(Path::new("/db/renamed"), Open::Read).unwrap();
    assert_eq!(content(&*file), b"abcdefgh");
}

#[test]
fn a_panic_leaves_the_wrapper_usable() {
    let (_, fs, file) = disk();
    fs.inject(Fault::once(Op::Write, 0, FaultKind::Panic));
    assert!(catch_unwind(AssertUnwindSafe(|| file.write_at(b"x", 0))).is_err());
    file.write_at(b"x", 0).unwrap();
}

#[test]
fn it_wraps_the_real_file_system_too() {
    let dir = tempfile::tempdir().unwrap();
    let fs = FaultFs::new(Arc::new(OsFs));
    fs.inject(Fault::once(Op::Sync, 0, FaultKind::LyingSync));
    fs.inject(Fault::once(Op::Create, 0, FaultKind::TooManyFiles));
    let path = dir.path().join("a");
    assert_eq!(os_code(&fs.open(&path, Open::CreateNew).unwrap_err()), Some(24));
    let file = fs.open(&path, Open::CreateNew).unwrap();
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(fs.open(&path, Open::CreateNew).unwrap_err().kind(), ErrorKind::AlreadyExists);
}

#[test]
fn the_calls_that_failed_are_known_each_once() {
    let fs = FaultFs::over_sim(SimFs::new(0));
    fs.open(Path::new("a"), Open::CreateNew).unwrap();
    fs.inject(Fault::once(Op::Any, 1, FaultKind::Io).sticky());
    fs.sync_dir(Path::new("/")).unwrap();
    for _ in 0..2 {
        fs.rename(Path::new("a"), Path::new("b")).unwrap_err();
        fs.remove(Path::new("b")).unwrap_err();
    }
    assert_eq!(fs.hits(), [(Op::Rename, "a".into()), (Op::Remove, "b".into())]);
    assert_eq!(fs.fired(), 4);
}

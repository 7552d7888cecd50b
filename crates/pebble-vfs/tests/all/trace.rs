//! The transcript, line by line.

use std::path::Path;
use std::sync::Arc;

use pebble_vfs::fault::{Fault, FaultKind, Op};
use pebble_vfs::{FaultFs, Fs, LockKind, Open, SimFs, TraceFs};

#[test]
fn every_call_that_matters_is_a_line() {
    let faults = FaultFs::over_sim(SimFs::new(0));
    let fs = TraceFs::new(Arc::new(faults.clone()), "/db");
    let at = |name: &str| Path::new("/db").join(name);
    fs.create_dir(Path::new("/db")).unwrap();
    let lock = fs.lock(&at("LOCK"), LockKind::Exclusive).unwrap();
    assert!(fs.lock(&at("LOCK"), LockKind::Shared).is_err());
    let log = fs.open(&at("000003.log"), Open::CreateNew).unwrap();
    log.allocate(4096).unwrap();
    let map = log.map_mut().unwrap();
    log.write_at(&[1; 100], 28).unwrap();
    log.write_back(0, 128).unwrap();
    faults.inject(Fault::once(Op::Sync, 0, FaultKind::NoSpace));
    assert!(log.sync_data().is_err());
    log.sync_data().unwrap();
    fs.sync_dir(Path::new("/db")).unwrap();
    drop((map, lock));
    fs.rename(&at("000003.log"), &at("000004.log")).unwrap();
    fs.open(&at("000004.log"), Open::Read).unwrap().map().unwrap();
    fs.open(&at("000004.log"), Open::ReadWrite).unwrap().truncate(0).unwrap();
    fs.remove(&at("000004.log")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    assert_eq!((fs.list(Path::new("/db")).unwrap().len(), log.len().unwrap()), (1, 0));
    let expected = "\
create-dir .
lock LOCK
lock-shared LOCK ! WouldBlock
create 000003.log
allocate 000003.log 4096
map-mut 000003.log
write 000003.log 28+100
write-back 000003.log 0+128
sync 000003.log ! StorageFull
sync 000003.log
sync-dir .
rename 000003.log 000004.log
open 000004.log
map 000004.log
open-rw 000004.log
truncate 000004.log 0
remove 000004.log
sync-dir /
";
    assert_eq!(fs.transcript(), expected);
    fs.clear();
    assert_eq!(fs.transcript(), "");
}

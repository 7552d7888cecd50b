//! Calls that fail: the writer stays usable where it may, and is ended for good where it must.

use std::sync::Arc;

use pebble_format::{Error, Result};
use pebble_vfs::fault::{Fault, FaultKind, Op};
use pebble_vfs::sim::CrashImage;
use pebble_vfs::{FaultFs, Fs, SimFs, is_no_space};
use pebble_wal::{LogIo, LogPosition, LogWriter};

use crate::support::*;

fn faulty(seed: u64) -> (SimFs, FaultFs, Arc<dyn Fs>) {
    let sim = SimFs::new(seed);
    let faults = FaultFs::over_sim(sim.clone());
    (sim, faults.clone(), Arc::new(faults))
}

fn no_space(error: &Error) -> bool {
    matches!(error, Error::Io(cause) if is_no_space(cause))
}

#[test]
fn a_failed_sync_ends_the_log() {
    for op in [Op::Sync, Op::SyncDir] {
        for kind in [FaultKind::Io, FaultKind::LyingSync, FaultKind::NoSpace] {
            let (sim, faults, fs) = faulty(1);
            let mut log = create(&fs, LogIo::Map);
            let sync = log.sync_handle();
            if op == Op::Sync {
                append(&mut log, 0);
                sync.persist().unwrap();
            }
            let durable = sync.durable();
            let end = append(&mut log, 1).end;
            faults.inject(Fault::once(op, 0, kind));
            let first = sync.wait_durable(end).unwrap_err().to_string();
            assert_eq!(sync.failed().unwrap().to_string(), first);
            let calls = faults.calls(Op::Sync) + faults.calls(Op::SyncDir);
            let events = sim.events();
            assert_eq!(sync.wait_durable(end).unwrap_err().to_string(), first);
            assert_eq!(sync.persist().unwrap_err().to_string(), first);
            assert_eq!(try_append(&mut log, &payload(2)).unwrap_err().to_string(), first);
            assert_eq!(log.rotate().unwrap_err().to_string(), first);
            assert_eq!(log.seal().unwrap_err().to_string(), first);
            assert_eq!(sync.durable(), durable);
            sync.wait_durable(durable).unwrap();
            assert_eq!(faults.calls(Op::Sync) + faults.calls(Op::SyncDir), calls, "nothing is synced again");
            assert_eq!(sim.events(), events, "nothing is written again");
            assert_eq!(log.end(), end);
        }
    }
}

#[test]
fn a_position_behind_the_end_is_refused() {
    let (_, _, fs) = faulty(2);
    let mut log = create(&fs, LogIo::Map);
    let end = append(&mut log, 0).end;
    let error = log.sync_handle().wait_durable(LogPosition(end.0 + 1)).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)));
    log.sync_handle().wait_durable(end).unwrap();
}

#[test]
fn no_space_for_a_segment_is_an_error_until_space_returns() {
    for io in BOTH {
        let (sim, fs) = sim(3);
        let mut log = create(&fs, io);
        sim.set_capacity(Some(4096));
        let mut index = 0;
        let error = loop {
            match try_append(&mut log, &payload(index)) {
                Ok(_) => index += 1,
                Err(error) => break error,
            }
        };
        assert!(no_space(&error), "{error}");
        let end = log.end();
        for _ in 0..3 {
            assert!(no_space(&try_append(&mut log, &sized(999, 4000)).unwrap_err()));
            assert!(no_space(&log.rotate().unwrap_err()));
        }
        assert_eq!((log.end(), files(&*fs)), (end, vec![("000001.log".to_owned(), 4096)]));
        log.sync_handle().persist().unwrap();
        sim.set_capacity(None);
        append(&mut log, index);
        assert_eq!(log.segment(), 2, "attempts on a full disk use up no numbers");
        assert_eq!(replayed(&fs, 1), (0..=index).collect::<Vec<_>>());
        // The seal has its room in the segment, even on a full disk.
        sim.set_capacity(Some(0));
        let floor = log.seal().unwrap();
        assert!(strict(&fs, 1, floor).unwrap().sealed);
    }
}

#[test]
fn a_log_that_cannot_be_made_leaves_nothing() {
    for io in BOTH {
        let (sim, fs) = sim(4);
        sim.set_capacity(Some(1000));
        let error = LogWriter::create(Arc::clone(&fs), dir(), options(io), 1, LogPosition::ZERO).unwrap_err();
        assert!(no_space(&error) && files(&*fs).is_empty());
        sim.set_capacity(None);
        append(&mut create(&fs, io), 0);
        assert_eq!(replayed(&fs, 1), [0]);
    }
}

#[test]
fn a_full_disk_does_not_keep_a_log_from_being_opened() {
    let (sim, fs) = sim(5);
    let mut log = create(&fs, LogIo::Map);
    append(&mut log, 0);
    drop(log);
    sim.set_capacity(Some(0));
    let recovered = strict(&fs, 1, LogPosition::ZERO).unwrap();
    let mut log = LogWriter::resume(Arc::clone(&fs), dir(), options(LogIo::Map), recovered).unwrap();
    assert!(no_space(&try_append(&mut log, &payload(1)).unwrap_err()));
    sim.set_capacity(None);
    append(&mut log, 1);
    assert_eq!(replayed(&fs, 1), [0, 1]);
}

#[test]
fn a_short_write_for_lack_of_space_costs_the_segment_and_no_more() {
    for kind in [FaultKind::ShortWrite, FaultKind::NoSpace] {
        let (sim, faults, fs) = faulty(6);
        let mut log = create(&fs, LogIo::Write);
        append(&mut log, 0);
        let end = append(&mut log, 1).end;
        faults.inject(Fault::once(Op::Write, 0, kind));
        assert!(no_space(&try_append(&mut log, &payload(2)).unwrap_err()));
        assert_eq!((log.end(), log.sync_handle().failed().is_none()), (end, true));
        assert_eq!(replayed(&fs, 1), [0, 1]);
        let appended = append(&mut log, 3);
        assert!(appended.new_segment);
        assert_eq!(replayed(&fs, 1), [0, 1, 3]);
        log.sync_handle().wait_durable(appended.end).unwrap();
        let fs: Arc<dyn Fs> = Arc::new(sim.crash_with(CrashImage::NothingUnsynced));
        assert_eq!(replayed(&fs, 1), [0, 1, 3]);
    }
}

/// What a write for lack of space did not come to holds zeros in a fresh file, and so may the frame.
#[test]
fn a_frame_that_is_whole_without_what_was_not_written_is_appended() {
    let zeros = |log: &mut LogWriter| log.append(8000, 1, |to| to.fill(0));
    let lens = |fs: &Arc<dyn Fs>| {
        let recovered = strict(fs, 1, LogPosition::ZERO).unwrap();
        recovered.frames().map(|frame| frame.payload.len()).collect::<Vec<_>>()
    };
    let (sim, faults, fs) = faulty(10);
    let mut log = create(&fs, LogIo::Write);
    append(&mut log, 0);
    log.rotate().unwrap();
    faults.inject(Fault::once(Op::Write, 0, FaultKind::ShortWrite));
    let end = zeros(&mut log).unwrap().end;
    assert_eq!((log.end(), faults.fired()), (end, 1));
    let before = payload(0).len();
    assert_eq!(lens(&fs), [before, 8000]);
    log.rotate().unwrap();
    let end = append(&mut log, 1).end;
    log.sync_handle().wait_durable(end).unwrap();
    let crashed: Arc<dyn Fs> = Arc::new(sim.crash_with(CrashImage::NothingUnsynced));
    assert_eq!(lens(&crashed), [before, 8000, payload(1).len()]);

    // Nobody knows whether it is whole: the log has ended.
    faults.inject(Fault::once(Op::Write, 0, FaultKind::ShortWrite));
    faults.inject(Fault::once(Op::Read, 0, FaultKind::Io));
    assert!(zeros(&mut log).is_err() && log.ended_log());
}

#[test]
fn any_other_failed_write_ends_the_log() {
    let (sim, faults, fs) = faulty(7);
    let mut log = create(&fs, LogIo::Write);
    append(&mut log, 0);
    faults.inject(Fault::once(Op::Write, 0, FaultKind::Io));
    assert!(try_append(&mut log, &payload(1)).is_err());
    let events = sim.events();
    assert!(try_append(&mut log, &payload(1)).is_err());
    assert!(log.sync_handle().persist().is_err());
    assert_eq!((sim.events(), replayed(&fs, 1)), (events, vec![0]));
}

#[test]
fn calls_that_may_fail_for_a_while_do_not_end_the_log() {
    for op in [Op::Create, Op::Allocate, Op::MapMut, Op::Rename] {
        for kind in [FaultKind::TooManyFiles, FaultKind::Io] {
            let (_, faults, fs) = faulty(8);
            let mut log = create(&fs, LogIo::Map);
            append(&mut log, 0);
            if op == Op::Rename {
                log.prepare_next().unwrap();
            }
            faults.inject(Fault::once(op, 0, kind));
            assert!(log.rotate().is_err(), "{op:?}");
            append(&mut log, 1);
            log.rotate().unwrap();
            append(&mut log, 2);
            log.sync_handle().persist().unwrap();
            assert_eq!(replayed(&fs, 1), [0, 1, 2]);
        }
    }
}

/// Appends, syncs, rotates, retires and seals. Gives how many payloads were acknowledged as durable, and how many
/// were appended.
fn script(fs: &Arc<dyn Fs>, io: LogIo) -> (u32, u32, Result<()>) {
    let (mut acked, mut index) = (0, 0);
    let mut run = || {
        let mut log = LogWriter::create(Arc::clone(fs), dir(), options(io), 1, LogPosition::ZERO)?;
        let sync = log.sync_handle();
        for round in 0..4 {
            for _ in 0..3 {
                try_append(&mut log, &payload(index))?;
                index += 1;
            }
            sync.persist()?;
            acked = index;
            if round == 1 {
                log.prepare_next()?;
            }
            log.rotate()?;
        }
        try_append(&mut log, &payload(index))?;
        index += 1;
        log.seal()?;
        acked = index;
        Ok(())
    };
    let result = run();
    (acked, index, result)
}

#[test]
fn every_call_fails_in_every_way_and_what_was_acknowledged_is_there() {
    let mut runs = 0;
    for io in BOTH {
        for kind in [
            FaultKind::Io,
            FaultKind::NoSpace,
            FaultKind::ShortWrite,
            FaultKind::TooManyFiles,
            FaultKind::LyingSync,
        ] {
            for sticky in [false, true] {
                for nth in 0.. {
                    let (sim, faults, fs) = faulty(nth);
                    let fault = Fault::once(Op::Any, nth, kind);
                    faults.inject(if sticky { fault.sticky() } else { fault });
                    let (acked, appended, result) = script(&fs, io);
                    if faults.fired() == 0 {
                        result.unwrap();
                        break;
                    }
                    runs += 1;
                    for image in
                        [CrashImage::NothingUnsynced, CrashImage::EverythingUnsynced, CrashImage::Random(nth)]
                    {
                        let fs: Arc<dyn Fs> = Arc::new(sim.crash_with(image));
                        let got = indexes(&strict(&fs, 1, LogPosition::ZERO).unwrap());
                        let end = got.len() as u32;
                        assert_eq!(got, (0..end).collect::<Vec<_>>());
                        assert!(
                            (acked..=appended.max(acked)).contains(&end),
                            "{end} of {acked}..={appended}"
                        );
                    }
                }
            }
        }
    }
    assert!(runs > 300, "{runs} runs");
}

#[test]
fn every_failed_read_of_recovery_is_an_error_or_harmless() {
    let (sim, _, fs) = faulty(9);
    script(&fs, LogIo::Map).2.unwrap();
    let before = contents(&*fs);
    for io in BOTH {
        for kind in [FaultKind::Io, FaultKind::TooManyFiles] {
            for nth in 0.. {
                let faults = FaultFs::over_sim(sim.clone());
                faults.inject(Fault::once(Op::Any, nth, kind));
                let fs: Arc<dyn Fs> = Arc::new(faults.clone());
                let floor = LogPosition::ZERO;
                let result =
                    pebble_wal::recover(&fs, dir(), UUID, 1, floor, pebble_wal::Recovery::Strict, io);
                if faults.fired() == 0 {
                    break;
                }
                assert!(matches!(result, Err(Error::Io(_))), "{kind:?} {nth}: {result:?}");
            }
        }
    }
    assert_eq!(contents(&*fs), before);
}

//! Power loss at every event of a script, with several images each: what is recovered is a prefix, and holds all
//! that was acknowledged as durable.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use pebble_vfs::sim::CrashImage;
use pebble_vfs::{Fs, SimFs};
use pebble_wal::{LogIo, LogOptions, LogPosition, LogWriter, Recovery, recover};

use crate::support::*;

/// What the script knows, for whoever looks at an image of its disk.
#[derive(Default)]
struct Known {
    /// The first segment that matters, as a manifest would note it durably before the older ones are retired.
    first: AtomicU32,
    /// The first payload in it.
    from: AtomicU32,
    /// Payloads below this were acknowledged as durable.
    acked: AtomicU32,
}

fn images() -> impl Iterator<Item = CrashImage> {
    let fixed = [
        CrashImage::NothingUnsynced,
        CrashImage::EverythingUnsynced,
        CrashImage::NamesOnly,
        CrashImage::DataOnly,
        CrashImage::ZeroedTail,
    ];
    let random = (0..3).flat_map(|seed| [CrashImage::TornTail(seed), CrashImage::Random(seed)]);
    fixed.into_iter().chain(random)
}

/// Recovers an image and checks it; goes on with it, loses power again, and checks that too.
fn check(image: &SimFs, io: LogIo, known: &Known) {
    let (first, from) = (known.first.load(SeqCst), known.from.load(SeqCst));
    let acked = known.acked.load(SeqCst);
    let fs: Arc<dyn Fs> = Arc::new(image.clone());
    let before = contents(&*fs);
    let open = || recover(&fs, dir(), UUID, first, LogPosition::ZERO, Recovery::Strict, io).unwrap();
    let recovered = open();
    assert_eq!(contents(&*fs), before, "recovery writes nothing");
    let got = indexes(&recovered);
    let end = from + got.len() as u32;
    assert_eq!(got, (from..end).collect::<Vec<_>>());
    assert!(end >= acked.max(from), "{end} of {acked} acknowledged");

    let mut log = LogWriter::resume(Arc::clone(&fs), dir(), options(io), recovered).unwrap();
    let appended = append(&mut log, end);
    log.sync_handle().wait_durable(appended.end).unwrap();
    append(&mut log, end + 1);
    for second in [CrashImage::NothingUnsynced, CrashImage::Random(7)] {
        let fs: Arc<dyn Fs> = Arc::new(image.crash_with(second));
        let recovered = recover(&fs, dir(), UUID, first, LogPosition::ZERO, Recovery::Strict, io).unwrap();
        let again = indexes(&recovered);
        assert!(again == (from..=end).collect::<Vec<_>>() || again == (from..=end + 1).collect::<Vec<_>>());
    }
}

/// Appends, syncs, rotates and retires by a seed; gives the number of images that were looked at.
fn script(io: LogIo, seed: u64) -> u32 {
    let (sim, fs) = sim(seed);
    let known = Arc::new(Known::default());
    known.first.store(1, SeqCst);
    let looked = Arc::new(AtomicU32::new(0));
    let (seen, count) = (Arc::clone(&known), Arc::clone(&looked));
    sim.on_event(move |sim, _| {
        for image in images() {
            check(&sim.crash_with(image), io, &seen);
            count.fetch_add(1, SeqCst);
        }
    });
    let options = LogOptions { segment_len_min: 4096, segment_len_max: 8192, ..options(io) };
    let mut log = LogWriter::create(Arc::clone(&fs), dir(), options, 1, LogPosition::ZERO).unwrap();
    let sync = log.sync_handle();
    let mut rng = seed;
    let mut index = 0;
    for _ in 0..40 {
        match next(&mut rng) % 8 {
            0..4 => {
                append(&mut log, index);
                index += 1;
            }
            4 | 5 => {
                sync.persist().unwrap();
                known.acked.store(index, SeqCst);
            }
            6 => log.rotate().unwrap(),
            _ => {
                log.rotate().unwrap();
                known.first.store(log.segment(), SeqCst);
                known.from.store(index, SeqCst);
                log.retire(log.segment());
            }
        }
    }
    log.seal().unwrap();
    known.acked.store(index, SeqCst);
    for image in images() {
        check(&sim.crash_with(image), io, &known);
    }
    sim.clear_on_event();
    looked.load(SeqCst)
}

#[test]
fn power_loss_at_every_event_leaves_a_prefix_with_all_that_was_acknowledged() {
    for io in BOTH {
        let looked: u32 = (0..6).map(|seed| script(io, seed)).sum();
        assert!(looked > 1_000, "{looked} images");
    }
}

/// Eight threads commit durably; whatever was acknowledged before an event is in every image taken at it.
#[test]
fn every_acknowledgement_of_a_group_is_in_every_crash_image() {
    let (sim, fs) = sim(1);
    let log = Mutex::new(create(&fs, LogIo::Map));
    let sync = log.lock().unwrap().sync_handle();
    let acked = Arc::new(Mutex::new(Vec::<u32>::new()));
    let next_index = AtomicU32::new(0);
    let seen = Arc::clone(&acked);
    sim.on_event(move |sim, _| {
        let must = seen.lock().unwrap().clone();
        for image in [CrashImage::NothingUnsynced, CrashImage::Random(1), CrashImage::TornTail(2)] {
            let fs: Arc<dyn Fs> = Arc::new(sim.crash_with(image));
            let got = indexes(&strict(&fs, 1, LogPosition::ZERO).unwrap());
            assert_eq!(got, (0..got.len() as u32).collect::<Vec<_>>());
            assert!(must.iter().all(|index| (*index as usize) < got.len()), "{} recovered", got.len());
        }
    });
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..12 {
                    let (index, end) = {
                        let mut log = log.lock().unwrap();
                        let index = next_index.fetch_add(1, SeqCst);
                        (index, append(&mut log, index).end)
                    };
                    sync.wait_durable(end).unwrap();
                    acked.lock().unwrap().push(index);
                }
            });
        }
    });
    sim.clear_on_event();
    assert_eq!(acked.lock().unwrap().len(), 96);
}

//! Power cuts at every event of creating, appending and rolling, several images each: what comes back is a prefix
//! that holds at least every acknowledged edit, and it can be gone on with.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pebble_manifest::{ManifestLog, ManifestState};
use pebble_vfs::SimFs;
use pebble_vfs::sim::CrashImage;

use crate::model::{DIR, disk, history, recover, shared};

/// Which images are taken at every event.
fn images() -> Vec<CrashImage> {
    use CrashImage::{
        DataOnly, EverythingUnsynced, NamesOnly, NothingUnsynced, Random, TornTail, ZeroedTail,
    };
    let mut images = vec![DataOnly, EverythingUnsynced, NamesOnly, NothingUnsynced, ZeroedTail];
    images.extend((0..4).map(TornTail));
    images.extend((0..8).map(Random));
    images
}

/// Recovers an image, checks it against `states[acked ..= acked + 1]`, goes on with a roll, and recovers again after
/// one more power cut.
fn check(image: &SimFs, states: &[ManifestState], acked: Option<usize>) {
    let Some(mut found) = recover(image).expect("a crash is never damage") else {
        assert!(acked.is_none(), "an acknowledged creation is gone");
        return;
    };
    let first = acked.unwrap_or(0);
    let last = acked.map_or(0, |acked| acked + 1).min(states.len() - 1);
    let allowed = &states[first..=last];
    assert!(allowed.contains(&found.state), "neither the acknowledged state nor the next");
    let entries = pebble_vfs::Fs::list(image, Path::new(DIR)).unwrap();
    let number = entries.len() as u64 + 1_000;
    found.log.roll(number, &found.state).unwrap();
    let again = recover(&image.crash_with(CrashImage::NothingUnsynced)).unwrap().unwrap();
    assert_eq!((again.state, again.dropped_bytes), (found.state, 0));
}

#[test]
fn a_power_cut_at_any_event_leaves_a_prefix() {
    let taken = Arc::new(AtomicUsize::new(0));
    for seed in 0..6 {
        let (states, edits) = history(seed, 12);
        let (states, acked) = (Arc::new(states), Arc::new(Mutex::new(None)));
        let sim = disk();
        sim.on_event({
            let (states, acked, taken) = (Arc::clone(&states), Arc::clone(&acked), Arc::clone(&taken));
            move |sim, _| {
                let acked = *acked.lock().unwrap();
                for image in images() {
                    check(&sim.crash_with(image), &states, acked);
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let mut log = ManifestLog::create(shared(&sim), Path::new(DIR), 1, &states[0]).unwrap();
        *acked.lock().unwrap() = Some(0);
        for (index, edit) in edits.iter().enumerate() {
            if index % 4 == 3 {
                log.roll(10 + index as u64, &states[index]).unwrap();
            }
            log.append(edit).unwrap();
            *acked.lock().unwrap() = Some(index + 1);
        }
        sim.clear_on_event();
        check(&sim.crash(1), &states, Some(edits.len()));
    }
    assert!(taken.load(Ordering::Relaxed) > 4_000);
}

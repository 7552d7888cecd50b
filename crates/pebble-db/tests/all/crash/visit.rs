//! What every image must stand: it opens, holds the commits that it may, takes writes, and is crashed again while it
//! recovers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use pebble_db::{Db, WriteOptions};
use pebble_vfs::SimFs;
use pebble_vfs::sim::CrashImage;

use super::images::{images, some_images};
use super::scripted::{COUNTER, History, KEYS};
use super::scripts::key;
use super::tally::Tally;
use crate::support::{Config, attempt, check_reads, message, mix};

/// How closely a moment is looked at.
#[derive(Clone, Copy)]
pub struct Depth {
    /// Images of one moment at most, the kill among them.
    pub images: usize,
    /// One image in so many is crashed again while it recovers.
    pub again: u64,
    /// After a failure nothing more is looked at.
    pub to_the_first: bool,
}

/// For the scripts: all images that differ, but for the last of very many.
pub const CLOSE: Depth = Depth { images: 18, again: 10, to_the_first: false };

/// Takes the images of this moment and visits each.
pub fn look(
    fs: &SimFs,
    event: u64,
    script: &str,
    depth: Depth,
    config: &Config,
    history: &History,
    tally: &mut Tally,
) {
    for (what, kill, image) in images(fs, event, depth.images) {
        if depth.to_the_first && !tally.failures.is_empty() {
            return;
        }
        let floor = if kill { history.acknowledged } else { history.durable };
        tally.images += 1;
        let recover_again = mix(tally.images).is_multiple_of(depth.again);
        let way = usize::try_from((event + tally.images) % 3).unwrap();
        let recoveries = &mut tally.recoveries;
        let name = || format!("{script:?}, {:?}, event {event}, image {what}, floor {floor}", config.log_io);
        attempt(&mut tally.failures, name, || {
            if recover_again {
                *recoveries += crash_recovery(&image.kill(), history, floor, config, event);
            }
            // What only a kill leaves, the kernel's unsynced pages, is looked at in all ways.
            let ways = if kill { &AFTERWARDS[..] } else { &AFTERWARDS[way..=way] };
            for then in ways {
                visit(&image.kill(), history, floor, config, *then);
            }
        });
    }
}

/// How a recovered database ends again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Close,
    Kill,
    PowerCut,
}

const AFTERWARDS: [Then; 3] = [Then::Close, Then::Kill, Then::PowerCut];

/// All that an image must stand: it opens, holds a prefix, takes a synced write, and has all of that the next time.
fn visit(image: &SimFs, history: &History, floor: usize, config: &Config, then: Then) {
    image.set_capacity(None);
    let db = config.sim(image.clone()).open().unwrap();
    let found = check_image(&db, history, floor);
    let mut state = history.states[found].clone();
    db.put_with(b"after", b"1", &WriteOptions::sync()).unwrap();
    state.entry("default".into()).or_default().insert(b"after".to_vec(), b"1".to_vec());
    let again = match then {
        Then::Close => {
            db.close().unwrap();
            image.clone()
        }
        Then::Kill => image.kill(),
        Then::PowerCut => image.crash_with(CrashImage::NothingUnsynced),
    };
    drop(db);
    let db = config.sim(again).open().unwrap_or_else(|error| panic!("reopened after {then:?}: {error}"));
    let reads = catch_unwind(AssertUnwindSafe(|| check_reads(&db, &state, &[b"absent"]).unwrap()));
    reads.unwrap_or_else(|panic| panic!("reopened after {then:?}: {}", message(&*panic)));
    assert_eq!(db.recovery().clean, then == Then::Close);
}

/// Opens an image and holds it against the history: the commits it has are at least `floor`, at most all, and
/// make exactly what they should. Gives the number of commits back.
fn check_image(db: &Db, history: &History, floor: usize) -> usize {
    let counter = db.get(COUNTER).unwrap();
    let found = counter.map_or(0, |value| u64::from_be_bytes((*value).try_into().unwrap()));
    let found = usize::try_from(found).unwrap();
    let last = history.states.len() - 1;
    assert!((floor..=last).contains(&found), "recovered {found} commits of {floor}..={last}");
    let mut absent = vec![b"absent".to_vec()];
    absent.extend((0..KEYS).map(key));
    let absent: Vec<&[u8]> = absent.iter().map(Vec::as_slice).collect();
    check_reads(db, &history.states[found], &absent).unwrap();
    let names = db.keyspaces();
    assert!(names.iter().all(|name| history.asked.contains(name)), "keyspaces {names:?}");
    if found > 0 || floor > 0 {
        assert!(history.keyspaces.iter().all(|name| names.contains(name)), "keyspaces {names:?}");
    }
    found
}

/// Crashes the recovery of an image at every event of its own, and recovers from that. Gives the number of images.
fn crash_recovery(image: &SimFs, history: &History, floor: usize, config: &Config, seed: u64) -> u64 {
    image.set_capacity(None);
    let taken: Arc<Mutex<Vec<(String, bool, SimFs)>>> = Arc::default();
    let sink = Arc::clone(&taken);
    image.on_event(move |fs, event| sink.lock().unwrap().extend(some_images(fs, mix(seed) ^ event)));
    drop(config.sim(image.clone()).open().unwrap());
    image.clear_on_event();
    let taken = std::mem::take(&mut *taken.lock().unwrap());
    let count = taken.len() as u64;
    for (what, kill, image) in taken {
        // Recovery from a kill may itself lose power, and what was only buffered with it.
        let floor = if kill { floor } else { floor.min(history.durable) };
        let db = config.sim(image).open().unwrap_or_else(|error| panic!("{what} in recovery: {error}"));
        check_image(&db, history, floor);
    }
    count
}

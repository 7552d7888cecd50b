//! The images of one moment: what a kill leaves of the disk, and what each of many power cuts does.

use pebble_vfs::SimFs;
use pebble_vfs::sim::CrashImage;

use crate::support::Rng;

/// Images of one moment of a recovery.
const IMAGES_IN_RECOVERY: usize = 3;

/// Ways in which the power may fail now, the plainest first; `seed` draws the random ones.
fn cuts(fs: &SimFs, seed: u64) -> Vec<CrashImage> {
    let mut cuts = vec![
        CrashImage::NothingUnsynced,
        CrashImage::EverythingUnsynced,
        CrashImage::NamesOnly,
        CrashImage::DataOnly,
        CrashImage::ZeroedTail,
    ];
    // Of many things, those that come last are the ones that the others build on.
    let things = fs.unsynced();
    for thing in things.saturating_sub(6)..things {
        cuts.extend([CrashImage::AllBut(thing), CrashImage::Only(thing)]);
    }
    cuts.extend((0..4).map(|n| CrashImage::TornTail(seed + (n << 32))));
    cuts.extend((0..8).map(|n| CrashImage::Random(seed + (n << 32))));
    cuts
}

/// The images of one moment: the process dies, or the power fails in one of several ways that differ.
pub fn images(fs: &SimFs, event: u64, most: usize) -> Vec<(String, bool, SimFs)> {
    let mut images = vec![("kill".to_owned(), true, fs.kill())];
    let mut seen = Vec::new();
    let mut cuts = cuts(fs, event);
    if most < cuts.len() {
        // Never the same ones at every moment.
        let by = Rng(event).below(cuts.len());
        cuts.rotate_left(by);
    }
    for cut in cuts {
        if images.len() >= most {
            break;
        }
        let image = fs.crash_with(cut);
        let contents = image.contents();
        if !seen.contains(&contents) {
            seen.push(contents);
            images.push((format!("{cut:?}"), false, image));
        }
    }
    images
}

/// As [`images`], for the moments of a recovery: the kill, and some of the others.
pub fn some_images(fs: &SimFs, seed: u64) -> Vec<(String, bool, SimFs)> {
    let mut images = vec![("kill".to_owned(), true, fs.kill())];
    let mut cuts = cuts(fs, seed);
    let mut rng = Rng(seed);
    while images.len() < IMAGES_IN_RECOVERY {
        let cut = cuts.swap_remove(rng.below(cuts.len()));
        images.push((format!("{cut:?}"), false, fs.crash_with(cut)));
    }
    images
}

//! Random operations on the simulated disk against a naive model that says which outcomes are legal.
//!
//! The model keeps, per name, every state since the last directory sync, and per file the durable and the
//! live bytes. An image is legal if each name shows one of its states, no file shows under two names, and
//! each sector of a file is the durable or the live one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use pebble_vfs::sim::{CrashImage, SimFs};
use pebble_vfs::{File, Fs, Open};

const NAMES: [&str; 3] = ["a", "b", "c"];
const SECTOR: usize = 512;

struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(bound).unwrap()).unwrap()
    }
}

#[derive(Default)]
struct FileModel {
    durable: Vec<u8>,
    live: Vec<u8>,
    handle: Option<Arc<dyn File>>,
}

#[derive(Default)]
struct Model {
    files: Vec<FileModel>,
    live: BTreeMap<&'static str, usize>,
    /// Per name, what it stood for since the last sync of the directory, the present state last.
    states: BTreeMap<&'static str, Vec<Option<usize>>>,
}

fn read(fs: &SimFs, name: &str) -> Option<Vec<u8>> {
    let file = fs.open(Path::new(name), Open::Read).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

/// A sector of an image, with zeros where the image does not reach.
fn byte(image: &[u8], at: usize) -> u8 {
    image.get(at).copied().unwrap_or(0)
}

impl FileModel {
    fn allows(&self, image: &[u8]) -> bool {
        let (low, high) = (self.durable.len().min(self.live.len()), self.durable.len().max(self.live.len()));
        let from = |source: &[u8], range: std::ops::Range<usize>| {
            range.into_iter().all(|at| image[at] == byte(source, at))
        };
        (low..=high).contains(&image.len())
            && (0..image.len().div_ceil(SECTOR)).all(|index| {
                let range = index * SECTOR..image.len().min((index + 1) * SECTOR);
                from(&self.durable, range.clone()) || from(&self.live, range)
            })
    }
}

impl Model {
    fn set(&mut self, name: &'static str, file: Option<usize>) {
        match file {
            Some(file) => self.live.insert(name, file),
            None => self.live.remove(name),
        };
        self.states.entry(name).or_insert_with(|| vec![None]).push(file);
    }

    /// One random operation on both.
    fn step(&mut self, fs: &SimFs, rng: &mut Rng) {
        let name = NAMES[rng.below(NAMES.len())];
        let path = Path::new(name);
        let Some(&id) = self.live.get(name) else {
            let handle = fs.open(path, Open::CreateNew).unwrap();
            self.files.push(FileModel { handle: Some(handle), ..FileModel::default() });
            self.set(name, Some(self.files.len() - 1));
            return;
        };
        let file = &mut self.files[id];
        let handle = file.handle.clone().unwrap();
        match rng.below(12) {
            0 => {
                fs.remove(path).unwrap();
                self.set(name, None);
            }
            1 => {
                let to = NAMES[rng.below(NAMES.len())];
                fs.rename(path, Path::new(to)).unwrap();
                if to != name {
                    self.set(name, None);
                    self.set(to, Some(id));
                }
            }
            2 => {
                fs.sync_dir(Path::new("/")).unwrap();
                for (name, states) in &mut self.states {
                    *states = vec![self.live.get(name).copied()];
                }
            }
            3 | 4 => {
                handle.sync_data().unwrap();
                file.durable.clone_from(&file.live);
            }
            5 => {
                let len = rng.below(5 * SECTOR);
                handle.truncate(u64::try_from(len).unwrap()).unwrap();
                file.live.resize(len, 0);
            }
            6 | 7 if !file.live.is_empty() => {
                handle.allocate(u64::try_from(file.live.len()).unwrap()).unwrap();
                let map = handle.map_mut().unwrap();
                let at = rng.below(map.len());
                let new = u8::try_from(rng.below(256)).unwrap();
                // SAFETY: within the map, and this is the only thread.
                unsafe { map.base().add(at).write(new) };
                file.live[at] = new;
            }
            _ => {
                let at = rng.below(4 * SECTOR);
                let bytes = vec![u8::try_from(rng.below(256)).unwrap(); 1 + rng.below(2 * SECTOR)];
                handle.write_at(&bytes, u64::try_from(at).unwrap()).unwrap();
                file.live.resize(file.live.len().max(at + bytes.len()), 0);
                file.live[at..at + bytes.len()].copy_from_slice(&bytes);
            }
        }
    }

    /// Whether an image shows only what is legal: some assignment of files to names explains all of it.
    fn check(&self, image: &SimFs) {
        let mut choices: Vec<BTreeSet<usize>> = vec![BTreeSet::new()];
        for name in NAMES {
            let never = [None];
            let states = self.states.get(name).map_or(&never[..], Vec::as_slice);
            let shown = read(image, name);
            let explains = |state: &&Option<usize>| match (&shown, state) {
                (None, None) => true,
                (Some(bytes), Some(file)) => self.files[*file].allows(bytes),
                _ => false,
            };
            let explained: Vec<_> = states.iter().filter(explains).collect();
            assert!(!explained.is_empty(), "{name} shows {:?}", shown.map(|bytes| bytes.len()));
            choices = choices
                .iter()
                .flat_map(|taken| explained.iter().map(move |state| (taken.clone(), **state)))
                .filter_map(|(mut taken, state)| state.is_none_or(|file| taken.insert(file)).then_some(taken))
                .collect();
        }
        assert!(!choices.is_empty(), "one file under two names");
    }

    fn check_live(&self, fs: &SimFs) {
        for name in NAMES {
            assert_eq!(read(fs, name), self.live.get(name).map(|id| self.files[*id].live.clone()));
        }
    }
}

#[test]
fn every_image_of_random_histories_is_legal() {
    for seed in 0..150 {
        let fs = SimFs::new(seed);
        let (mut model, mut rng) = (Model::default(), Rng(seed));
        for _ in 0..60 {
            model.step(&fs, &mut rng);
            let kind = u64::try_from(rng.below(1 << 20)).unwrap();
            model.check(&fs.crash(kind));
            model.check(&fs.crash_with(CrashImage::TornTail(kind)));
            model.check(&fs.kill().crash(kind));
        }
        for image in [
            CrashImage::NothingUnsynced,
            CrashImage::EverythingUnsynced,
            CrashImage::NamesOnly,
            CrashImage::DataOnly,
            CrashImage::ZeroedTail,
        ] {
            model.check(&fs.crash_with(image));
        }
        for number in 0..fs.unsynced() {
            model.check(&fs.crash_with(CrashImage::AllBut(number)));
            model.check(&fs.crash_with(CrashImage::Only(number)));
        }
        model.check_live(&fs);
        model.check_live(&fs.kill());
    }
}

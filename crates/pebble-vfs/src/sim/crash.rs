//! What a power cut may leave: which unsynced sectors, lengths and names are kept.
//!
//! Pure choices, drawn from a seed; the images are built where the state is (`inode`, `tree`).
//!
//! A sector is kept in its latest state or not at all: an image in which one sector kept an older
//! unsynced state than its last is only seen by crashing earlier, at the event between the two writes.

use super::inode::SECTOR;

/// Which legal image of the disk a crash leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CrashImage {
    /// Only what was synced.
    NothingUnsynced,
    /// All that was done: the cache was written out just in time.
    EverythingUnsynced,
    /// Every creation, rename and removal, but no unsynced byte or length.
    NamesOnly,
    /// Every byte and length, but no unsynced creation, rename or removal.
    DataOnly,
    /// Every name and length, but no unsynced byte: the tails of grown files are zeros.
    ZeroedTail,
    /// Every name; in each file the dirty sectors up to a random one, and a length that fits them or runs
    /// ahead of them.
    TornTail(u64),
    /// Each sector, length and change of a directory by itself.
    Random(u64),
    /// Everything but one thing, by its number below [`SimFs::unsynced`](super::SimFs::unsynced): a file's bytes and
    /// length, or a change of a directory and with it the later ones of the same names.
    AllBut(u64),
    /// One thing, by its number, and nothing else but the earlier changes of the same names.
    Only(u64),
}

/// A small generator (splitmix64, Steele et al. 2014): every seed is a good one.
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    /// A generator for one of many things that share a seed.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = Self(seed ^ stream.wrapping_mul(0xd6e8_feb8_6659_fd93));
        rng.next();
        rng
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..=last`.
    fn up_to(&mut self, last: usize) -> usize {
        let bound = u64::try_from(last).unwrap_or(u64::MAX).saturating_add(1);
        usize::try_from(self.next() % bound).unwrap_or(last)
    }

    fn coin(&mut self) -> bool {
        self.next() >> 63 == 1
    }
}

impl CrashImage {
    /// The same choice, drawn from the disk's seed as well as the image's.
    pub(super) fn on_disk(self, disk: u64) -> Self {
        match self {
            Self::TornTail(seed) => Self::TornTail(Rng::new(seed, disk).next()),
            Self::Random(seed) => Self::Random(Rng::new(seed, disk).next()),
            other => other,
        }
    }

    /// For [`CrashImage::AllBut`] and [`CrashImage::Only`], which thing it is; and whether it is the only one kept.
    pub(super) fn thing(self) -> Option<(u64, bool)> {
        match self {
            Self::AllBut(number) => Some((number, false)),
            Self::Only(number) => Some((number, true)),
            _ => None,
        }
    }

    /// The choices for the file `id`, whatever order files are visited in.
    pub(super) fn for_file(self, id: u64) -> FileChoice {
        let seed = match self {
            Self::TornTail(seed) | Self::Random(seed) => seed,
            _ => 0,
        };
        FileChoice { image: self, rng: Rng::new(seed, 2 * id) }
    }

    /// The choices for the directory `id`: one answer per change, in order.
    pub(super) fn for_dir(self, id: u64) -> impl FnMut() -> bool {
        let mut rng = match self {
            Self::Random(seed) => Rng::new(seed, 2 * id + 1),
            _ => Rng(0),
        };
        move || match self {
            Self::NothingUnsynced | Self::DataOnly | Self::Only(_) => false,
            Self::EverythingUnsynced
            | Self::NamesOnly
            | Self::ZeroedTail
            | Self::TornTail(_)
            | Self::AllBut(_) => true,
            Self::Random(_) => rng.coin(),
        }
    }
}

/// The choices for one file.
pub(super) struct FileChoice {
    image: CrashImage,
    rng: Rng,
}

impl FileChoice {
    /// Which of the dirty sectors are kept.
    pub(super) fn sectors(&mut self, dirty: &[usize]) -> Vec<usize> {
        match self.image {
            CrashImage::EverythingUnsynced | CrashImage::DataOnly | CrashImage::AllBut(_) => dirty.to_vec(),
            CrashImage::NothingUnsynced
            | CrashImage::NamesOnly
            | CrashImage::ZeroedTail
            | CrashImage::Only(_) => Vec::new(),
            CrashImage::TornTail(_) => dirty[..self.rng.up_to(dirty.len())].to_vec(),
            CrashImage::Random(_) => dirty.iter().copied().filter(|_| self.rng.coin()).collect(),
        }
    }

    /// The length, between the durable and the live one, given the sectors that were kept.
    pub(super) fn len(&mut self, durable: usize, live: usize, kept: &[usize]) -> usize {
        let (low, high) = (durable.min(live), durable.max(live));
        match self.image {
            CrashImage::NothingUnsynced | CrashImage::NamesOnly | CrashImage::Only(_) => durable,
            CrashImage::EverythingUnsynced
            | CrashImage::DataOnly
            | CrashImage::ZeroedTail
            | CrashImage::AllBut(_) => live,
            CrashImage::TornTail(_) if self.rng.coin() => live,
            CrashImage::TornTail(_) => kept.last().map_or(low, |last| (last + 1) * SECTOR).clamp(low, high),
            CrashImage::Random(_) => match self.rng.up_to(3) {
                0 => durable,
                1 => live,
                _ => {
                    ((low / SECTOR + self.rng.up_to((high - low).div_ceil(SECTOR))) * SECTOR).clamp(low, high)
                }
            },
        }
    }
}

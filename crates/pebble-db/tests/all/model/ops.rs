//! The operations, and how a seed makes them.
//!
//! Most keys are numbers out of a small dense range, so that a range of them covers many, and ranges meet: each seed
//! remembers the last ranges and makes others that touch, cross or lie within them. The rest are edges: the empty key,
//! zeros and 0xff, prefixes of each other, keys of full length.

use std::ops::Bound;

use crate::support::{Rng, bytes, short};

/// The keyspaces that are written to. The first always exists, the others are made when they are first used.
pub const NAMES: [&str; 3] = ["default", "users", "\u{fc}nicode \u{2713}"];

pub type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// One change. `space` is an index into [`NAMES`].
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    Put { space: usize, key: Vec<u8>, value: Vec<u8> },
    Delete { space: usize, key: Vec<u8> },
    DeleteRange { space: usize, bounds: Bounds },
    DeletePrefix { space: usize, prefix: Vec<u8> },
}

impl Write {
    pub fn space(&self) -> usize {
        match self {
            Self::Put { space, .. }
            | Self::Delete { space, .. }
            | Self::DeleteRange { space, .. }
            | Self::DeletePrefix { space, .. } => *space,
        }
    }

    /// A key that it changes, or one at the border of those.
    fn meets(&self) -> Option<Vec<u8>> {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } | Self::DeletePrefix { prefix: key, .. } => {
                Some(key.clone())
            }
            Self::DeleteRange { bounds: (Bound::Included(key) | Bound::Excluded(key), _), .. } => {
                Some(key.clone())
            }
            Self::DeleteRange { .. } => None,
        }
    }
}

/// A step of an iterator.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Next,
    NextBack,
    Seek(Vec<u8>),
    SeekForPrev(Vec<u8>),
}

/// `snapshot` is one of those that are held, by its place modulo their number; `None` is the present.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    Write {
        write: Write,
        sync: bool,
    },
    Batch {
        writes: Vec<Write>,
        sync: bool,
    },
    Clear {
        space: usize,
    },
    DropSpace {
        space: usize,
    },
    /// Reads, and tries to write, through a handle of a keyspace that was dropped.
    Past {
        which: usize,
        key: Vec<u8>,
        snapshot: Option<usize>,
    },
    Get {
        space: usize,
        key: Vec<u8>,
        snapshot: Option<usize>,
    },
    Scan {
        space: usize,
        bounds: Bounds,
        snapshot: Option<usize>,
        backward: bool,
    },
    Prefix {
        space: usize,
        prefix: Vec<u8>,
        snapshot: Option<usize>,
        backward: bool,
    },
    Walk {
        space: usize,
        bounds: Bounds,
        snapshot: Option<usize>,
        steps: Vec<Step>,
    },
    Estimate {
        space: usize,
        bounds: Bounds,
    },
    Snapshot,
    DropSnapshot(usize),
    OpenIter {
        space: usize,
        bounds: Bounds,
        snapshot: Option<usize>,
    },
    StepIter {
        iter: usize,
        back: bool,
        count: usize,
    },
    HoldValue {
        space: usize,
        key: Vec<u8>,
    },
    CheckHeld,
    Flush,
    /// Of one keyspace's range or of everything; given up when it is asked for the n-th time, if it says so.
    Compact {
        part: Option<(usize, Bounds)>,
        breaks: Option<usize>,
    },
    Persist,
    Verify,
    /// Long enough without a write for merges of an idle tree, where threads do them.
    Rest,
    /// With other options, drawn from the seed for each configuration.
    Reopen {
        seed: u64,
        end: End,
    },
}

/// How a database ends before it is opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Close,
    Drop,
    /// The process is killed, where the disk is simulated; elsewhere as [`End::Drop`].
    Kill,
}

/// Makes operations of a seed.
pub struct Maker {
    rng: Rng,
    /// Dense keys are the numbers below this.
    dense: usize,
    /// How often, of 1000 operations, a flush and a merge are asked for.
    flushes: usize,
    /// The last ranges of dense keys.
    recent: [(usize, usize); 4],
}

impl Maker {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let dense = rng.pick(&[12, 60, 250, 900]);
        let flushes = rng.pick(&[5, 15, 40, 100]);
        Self { rng, dense, flushes, recent: [(0, 1); 4] }
    }

    pub fn ops(&mut self, count: usize) -> Vec<Op> {
        (0..count).map(|_| self.op()).collect()
    }

    fn number(n: usize) -> Vec<u8> {
        format!("k{n:03}").into_bytes()
    }

    fn small(&mut self, alphabet: &[u8]) -> Vec<u8> {
        let len = self.rng.below(5);
        (0..len).map(|_| self.rng.pick(alphabet)).collect()
    }

    fn key(&mut self) -> Vec<u8> {
        match self.rng.below(512) {
            0..360 => Self::number(self.rng.below(self.dense)),
            360..400 => {
                // Right behind a number: before the next one, and where an included end has its border.
                let mut key = Self::number(self.rng.below(self.dense));
                key.push(self.rng.pick(&[0, b'x', 0xff]));
                key
            }
            400..440 => self.small(b"abk"),
            440..470 => self.small(&[0, 0xfe, 0xff]),
            470..500 => [vec![b'p'; 200], self.small(b"xyz")].concat(),
            500..505 => Vec::new(),
            505..510 => vec![0xff; self.rng.below(64)],
            _ => {
                let mut key = vec![self.rng.pick(b"ak\xff"); 65_535];
                *key.last_mut().unwrap() = self.rng.pick(b"12\xff");
                key
            }
        }
    }

    fn value(&mut self) -> Vec<u8> {
        let seed = self.rng.next();
        match self.rng.below(256) {
            0..24 => Vec::new(),
            24..180 => bytes(seed, 1 + self.rng.below(24)),
            180..240 => bytes(seed, 50 + self.rng.below(200)),
            240..252 => vec![b'r'; 300 + self.rng.below(2000)],
            252..255 => bytes(seed, 2000 + self.rng.below(4000)),
            _ => bytes(seed, 10_000 + self.rng.below(30_000)),
        }
    }

    fn bound(&mut self) -> Bound<Vec<u8>> {
        match self.rng.below(5) {
            0 => Bound::Unbounded,
            1 => Bound::Excluded(self.key()),
            _ => Bound::Included(self.key()),
        }
    }

    /// To read: often everything, or bounds of any kind, crossed ones too.
    fn bounds(&mut self) -> Bounds {
        match self.rng.below(4) {
            0 => (Bound::Unbounded, Bound::Unbounded),
            1 => self.dense_range(),
            _ => (self.bound(), self.bound()),
        }
    }

    /// A range of dense keys, mostly short, with something in common with an earlier one as often as not.
    fn dense_range(&mut self) -> Bounds {
        let len = match self.rng.below(8) {
            0..4 => 1 + self.rng.below(4),
            4..7 => 1 + self.rng.below(self.dense / 4),
            _ => 1 + self.rng.below(self.dense),
        };
        let (start, end) = self.rng.pick(&self.recent);
        let (start, end) = match self.rng.below(12) {
            // Right behind it, right before it, across its end, around it, within it, the same.
            0 => (end, end + len),
            1 => (start.saturating_sub(len), start),
            2 => (end.saturating_sub(len.div_ceil(2)), end + len),
            3 => (start.saturating_sub(1), end + 1),
            4 if start + 2 < end => (start + 1, end - 1),
            5 => (start, end),
            _ => {
                let start = self.rng.below(self.dense);
                (start, start + len)
            }
        };
        let place = self.rng.below(self.recent.len());
        self.recent[place] = (start, end.min(self.dense));
        let (start, end) = (Self::number(start), Self::number(end));
        match self.rng.below(4) {
            0 => (Bound::Included(start), Bound::Included(end)),
            1 => (Bound::Excluded(start), Bound::Excluded(end)),
            _ => (Bound::Included(start), Bound::Excluded(end)),
        }
    }

    /// To delete: seldom everything, so that something is left.
    fn deleted(&mut self) -> Bounds {
        if self.rng.one_in(6) { (self.bound(), self.bound()) } else { self.dense_range() }
    }

    fn prefix(&mut self) -> Vec<u8> {
        let mut prefix = self.key();
        prefix.truncate(if self.rng.one_in(12) { 0 } else { 1 + self.rng.below(4) });
        prefix
    }

    fn space(&mut self) -> usize {
        self.rng.pick(&[0, 0, 0, 1, 1, 2])
    }

    fn write(&mut self) -> Write {
        let space = self.space();
        match self.rng.below(100) {
            0..66 => Write::Put { space, key: self.key(), value: self.value() },
            66..88 => Write::Delete { space, key: self.key() },
            88..98 => Write::DeleteRange { space, bounds: self.deleted() },
            _ => Write::DeletePrefix { space, prefix: self.prefix() },
        }
    }

    /// Neighbours, all at once: what range deletes cover.
    fn row(&mut self) -> Vec<Write> {
        let (space, start, step) = (self.space(), self.rng.below(self.dense), 1 + self.rng.below(2));
        let len = 4 + self.rng.below(26 + self.dense / 8);
        let keys = (start..self.dense).step_by(step).take(len);
        keys.map(|n| Write::Put { space, key: Self::number(n), value: bytes(self.rng.next(), 3 + n % 30) })
            .collect()
    }

    fn batch(&mut self) -> Vec<Write> {
        match self.rng.below(400) {
            0..100 => self.row(),
            // More range deletes than one memtable is to hold.
            100 => {
                let space = self.space();
                let one = |n| (Bound::Included(Self::number(n)), Bound::Excluded(Self::number(n + 1)));
                let range = |n: usize| Write::DeleteRange { space, bounds: one(n * 3 % self.dense) };
                (0..1_100).map(range).collect()
            }
            _ => {
                let mut writes: Vec<Write> = (0..self.rng.below(8)).map(|_| self.write()).collect();
                // Keys that the batch has met already: the later write wins, also over a range delete.
                for at in 1..writes.len() {
                    let met = self.rng.below(at);
                    let space = writes[met].space();
                    let Some(key) = writes[met].meets().filter(|_| self.rng.one_in(2)) else { continue };
                    writes[at] = match self.rng.below(4) {
                        0 => Write::Delete { space, key },
                        _ => Write::Put { space, key, value: self.value() },
                    };
                }
                writes
            }
        }
    }

    /// Steps from one end or from both. Seeks are mixed with steps of their own end alone: what a seek behind the
    /// other end gives is not promised.
    fn steps(&mut self) -> Vec<Step> {
        let shape = self.rng.below(3);
        let count = 1 + self.rng.below(24);
        let step = |maker: &mut Self| match (shape, maker.rng.below(3)) {
            (0, 0) => Step::Seek(maker.key()),
            (0, _) => Step::Next,
            (1, 0) => Step::SeekForPrev(maker.key()),
            (1, _) => Step::NextBack,
            (_, 0) => Step::NextBack,
            (_, _) => Step::Next,
        };
        (0..count).map(|_| step(self)).collect()
    }

    fn op(&mut self) -> Op {
        let space = self.space();
        let snapshot = if self.rng.one_in(3) { Some(self.rng.below(8)) } else { None };
        let sync = self.rng.one_in(12);
        match self.rng.below(1000) {
            n if n < self.flushes => return Op::Flush,
            n if n >= 1000 - self.flushes / 4 => return self.compaction(),
            _ => {}
        }
        match self.rng.below(1000) {
            0..400 => Op::Write { write: self.write(), sync },
            400..490 => Op::Batch { writes: self.batch(), sync },
            490..493 => Op::Clear { space },
            493..496 => Op::DropSpace { space },
            496..500 => Op::Past { which: self.rng.below(4), key: self.key(), snapshot },
            500..650 => Op::Get { space, key: self.key(), snapshot },
            650..700 => Op::Scan { space, bounds: self.bounds(), snapshot, backward: self.rng.one_in(2) },
            700..720 => Op::Prefix { space, prefix: self.prefix(), snapshot, backward: self.rng.one_in(2) },
            720..800 => Op::Walk { space, bounds: self.bounds(), snapshot, steps: self.steps() },
            800..815 => Op::Estimate { space, bounds: self.bounds() },
            815..845 => Op::Snapshot,
            845..875 => Op::DropSnapshot(self.rng.below(8)),
            875..890 => Op::OpenIter { space, bounds: self.bounds(), snapshot },
            890..945 => {
                let count = 1 + self.rng.below(4);
                Op::StepIter { iter: self.rng.below(4), back: self.rng.one_in(3), count }
            }
            945..962 => Op::HoldValue { space, key: self.key() },
            962..970 => Op::CheckHeld,
            970..980 => Op::Persist,
            980..984 => Op::Verify,
            984..990 => Op::Rest,
            _ => {
                Op::Reopen { seed: self.rng.next(), end: self.rng.pick(&[End::Close, End::Drop, End::Kill]) }
            }
        }
    }

    fn compaction(&mut self) -> Op {
        let breaks = if self.rng.one_in(4) { Some(self.rng.below(6)) } else { None };
        let part = if self.rng.one_in(2) {
            None
        } else {
            let space = self.space();
            Some((space, if self.rng.one_in(2) { self.dense_range() } else { self.bounds() }))
        };
        Op::Compact { part, breaks }
    }
}

/// What an operation prints as: bytes as text, and of long ones the beginning.
pub fn tell(op: &Op) -> String {
    let mut told = String::new();
    let debug = format!("{op:?}");
    let mut rest = debug.as_str();
    while let Some((before, list)) = rest.split_once('[') {
        let numbers = list.split_once(']').and_then(|(numbers, behind)| {
            let bytes = numbers.split(", ").map(str::parse::<u8>).collect::<Result<Vec<u8>, _>>();
            Some((bytes.ok()?, behind))
        });
        told.push_str(before);
        match numbers {
            Some((bytes, behind)) => {
                told.push_str(&format!("b\"{}\"", short(&bytes)));
                rest = behind;
            }
            None => {
                told.push('[');
                rest = list;
            }
        }
    }
    told.push_str(rest);
    match told.char_indices().nth(1_000) {
        Some((at, _)) => format!("{}.. ({} bytes)", &told[..at], told.len()),
        None => told,
    }
}

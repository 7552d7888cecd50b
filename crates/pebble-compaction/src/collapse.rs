//! Which versions of a key a merge keeps: the one place with the edge rules.
//!
//! ```text
//!   snapshots      5        9                     a reader sees the newest version at or below its number
//!   stripes   ..=5 │ 6..=9  │ 10..                versions in one stripe are the same to every reader but for the
//! newest   versions  3  4 │ 7  8   │ 10  12
//!   kept         4 │    8   │     12
//! ```
//!
//! Of each stripe the newest version stays. A tombstone may go as well when nothing is left for it to hide: at the
//! bottom (no older run may hold the key), and in the oldest stripe, where every older version goes with it.
//!
//! Threading: plain data.

use pebble_format::{RecordRef, Seqno};

/// Decides record by record, newest version of a key first.
#[derive(Debug)]
pub struct Collapse<'a> {
    snapshots: &'a [Seqno],
    bottom: bool,
    /// The stripe of the current key's last version, by the number of snapshots below it.
    stripe: Option<usize>,
}

impl<'a> Collapse<'a> {
    /// For readers at the numbers `snapshots` (ascending) and at any number from the newest record's on. `bottom`
    /// says that no run older than the merge's inputs may hold a version of its keys.
    pub fn new(snapshots: &'a [Seqno], bottom: bool) -> Self {
        debug_assert!(snapshots.is_sorted());
        Self { snapshots, bottom, stripe: None }
    }

    /// The versions that follow are another key's.
    #[inline]
    pub fn next_key(&mut self) {
        self.stripe = None;
    }

    /// Whether this version of the current key stays. To be asked for every version, newest first.
    #[inline]
    pub fn keeps(&mut self, record: RecordRef<'_>) -> bool {
        let seqno = record.seqno();
        let stripe = self.snapshots.partition_point(|snapshot| *snapshot < seqno);
        if self.stripe == Some(stripe) {
            return false;
        }
        self.stripe = Some(stripe);
        !(record.is_tombstone() && self.bottom && stripe == 0)
    }
}

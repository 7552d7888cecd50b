//! Which records a merge keeps: the one place with the edge rules.
//!
//! ```text
//!   snapshots      5        9                     a reader sees the newest version at or below its number
//!   stripes   ..=5 │ 6..=9  │ 10..                versions in one stripe are the same to every reader but for the
//! newest   versions  3  4 │ 7  8   │ 10  12
//!   kept         4 │    8   │     12
//! ```
//!
//! - Of each stripe the newest version of a key stays.
//! - A range delete hides what is older in its own stripe: to a reader who sees one of both, it is gone. Across a
//!   snapshot it hides nothing here, for that snapshot's reader sees the one and not the other.
//! - A tombstone, of a key or of a range, may go as well when nothing is left for it to hide: at the bottom (no
//!   older run may hold the key), and in the oldest stripe, where every older version goes with it.
//!
//! Threading: plain data.

use pebble_cursor::{RangeDelete, RangeDeletes, WholeBlock};
use pebble_format::{InternalKey, RecordRef, Seqno};

/// Decides record by record, newest version of a key first; range deletes are decided apart, by
/// [`Collapse::range_deletes`].
#[derive(Debug)]
pub struct Collapse<'a> {
    snapshots: &'a [Seqno],
    deletes: &'a RangeDeletes,
    bottom: bool,
    /// The stripe of the current key's last version, by the number of snapshots below it.
    stripe: Option<usize>,
}

impl<'a> Collapse<'a> {
    /// For readers at the numbers `snapshots` (ascending) and at any number from the newest record's on. `deletes`
    /// are those of the inputs. `bottom` says that no run older than the merge's inputs may hold a version of its
    /// keys.
    pub fn new(snapshots: &'a [Seqno], deletes: &'a RangeDeletes, bottom: bool) -> Self {
        debug_assert!(snapshots.is_sorted());
        Self { snapshots, deletes, bottom, stripe: None }
    }

    /// The versions that follow are another key's.
    #[inline]
    pub fn next_key(&mut self) {
        self.stripe = None;
    }

    /// Whether this version of the current key stays. To be asked for every version, newest first, but for range
    /// deletes.
    #[inline]
    pub fn keeps(&mut self, record: RecordRef<'_>) -> bool {
        let seqno = record.seqno();
        let stripe = self.stripe_of(seqno);
        if self.stripe == Some(stripe) {
            return false;
        }
        self.stripe = Some(stripe);
        if record.is_tombstone() && self.bottom && stripe == 0 {
            return false;
        }
        self.deletes.is_empty() || !self.is_hidden(record, stripe)
    }

    /// Whether every record of a block that begins with a key's newest version stays, as far as can be told without a
    /// look at each: its records are of one key each, so that only what deletes is left to tell.
    pub fn keeps_all(&self, block: &WholeBlock<'_>, first: InternalKey<'_>) -> bool {
        if block.tombstones > 0 && self.bottom {
            return false;
        }
        let (spans, last) = (self.deletes.spans(), block.last.internal_key());
        let behind = spans.get(self.deletes.span_at(first.keyspace, first.user_key));
        behind.is_none_or(|span| (span.keyspace, &*span.start) > (last.keyspace, last.user_key))
    }

    #[inline]
    fn stripe_of(&self, seqno: Seqno) -> usize {
        self.snapshots.partition_point(|snapshot| *snapshot < seqno)
    }

    fn is_hidden(&self, record: RecordRef<'_>, stripe: usize) -> bool {
        // The last reader of the stripe: the snapshot that ends it, or the present.
        let last = self.snapshots.get(stripe).copied().unwrap_or(Seqno::MAX);
        let found = self.deletes.covering(record.keyspace(), record.key(), last);
        found.is_some_and(|delete| delete.seqno > record.seqno())
    }

    /// The range deletes that stay, by key and then newest first: of each stripe the newest at each key, side by
    /// side.
    pub fn range_deletes(&self) -> Vec<RangeDelete> {
        let mut stripes: Vec<(usize, Vec<RangeDelete>)> = Vec::new();
        for delete in self.deletes.iter() {
            let stripe = self.stripe_of(delete.seqno);
            match stripes.last_mut() {
                Some((last, deletes)) if *last == stripe => deletes.push(delete.clone()),
                _ => stripes.push((stripe, vec![delete.clone()])),
            }
        }
        let kept = stripes.into_iter().filter(|(stripe, _)| !(self.bottom && *stripe == 0));
        let mut kept: Vec<_> =
            kept.flat_map(|(_, deletes)| RangeDeletes::new(deletes).spans().to_vec()).collect();
        kept.sort_by(|a, b| {
            let by_key = a.keyspace.cmp(&b.keyspace).then_with(|| a.start.cmp(&b.start));
            by_key.then_with(|| b.seqno.cmp(&a.seqno))
        });
        kept
    }
}

//! What range deletes hide from a walk, and how far it may jump over what they hide.
//!
//! ```text
//!   layer 0  memtable    [c ───────────── p)#90          a veil over the layers
//!   layer 1  run 8        d#71  f#65  m#80               older layers hold nothing newer at any key, so once a few
//!   layer 2  run 3      b#12  e#7  k#9  … q#4            records were hidden, layers 1 and 2 jump to p
//! ```
//!
//! A record is hidden by comparing sequence numbers, whatever layer it lies in; only the jump relies on the order of
//! the layers. Threading: plain data, one walk's own.

use std::sync::Arc;

use pebble_format::{KeyspaceId, RecordRef, Seqno};

use crate::ranges::{RangeDelete, RangeDeletes, ends_behind};

/// After so many records hidden by one range delete the walk jumps: a seek in each layer costs about as much.
const HIDDEN_BEFORE_JUMP: u32 = 8;

/// Spans that a walk passes one by one before it searches.
const SPANS_BEFORE_SEARCH: usize = 4;

/// The range deletes of one layer, see [`Layers`](crate::Layers).
#[derive(Clone, Debug)]
pub struct Veil {
    /// The range deletes. They may hold some that are too new for the walk.
    pub deletes: Arc<RangeDeletes>,
    /// The layer that they lie in.
    pub layer: usize,
    /// Whether nothing newer than its ranges lies under them in its own layer either, so that this one jumps too.
    pub whole: bool,
}

impl Veil {
    /// The newest layer that may jump.
    fn jumps_from(&self) -> usize {
        if self.whole { self.layer } else { self.layer + 1 }
    }
}

/// All veils over a walk within one keyspace, and where in each of them the walk is.
#[derive(Debug)]
pub(crate) struct Veils {
    keyspace: KeyspaceId,
    /// The newest layer first. With each veil, the first of its spans that ends behind the last key asked for.
    veils: Vec<(Veil, usize)>,
    /// Records hidden in a row by one span.
    hidden: u32,
    /// The veil and the span that hid the last one.
    by: Option<(usize, usize)>,
}

/// Whether a record is hidden.
pub(crate) enum Hides {
    /// It is not.
    No,
    /// It is.
    Yes,
    /// It is, and so are many: the layers from this one on may jump over this range.
    Jump(usize, RangeDelete),
}

impl Veils {
    /// Without those that a reader at `seqno` does not see.
    pub(crate) fn new(veils: Vec<Veil>, keyspace: KeyspaceId, seqno: Seqno) -> Self {
        let seen = veils.into_iter().filter_map(|veil| {
            let too_new = veil.deletes.seqno_max()? > seqno;
            let deletes = if too_new { Arc::new(veil.deletes.as_of(seqno)) } else { veil.deletes };
            (!deletes.is_empty()).then_some((Veil { deletes, ..veil }, 0))
        });
        let mut veils: Vec<_> = seen.collect();
        veils.sort_by_key(|(veil, _)| veil.layer);
        Self { keyspace, veils, hidden: 0, by: None }
    }

    /// Where a walk forward may begin instead of at a key: behind a range that no layer has anything to show from.
    pub(crate) fn leap_forward(&self, key: &[u8]) -> Option<Arc<[u8]>> {
        self.bare_span(key).map(|span| Arc::clone(&span.end))
    }

    /// The range around a key that no layer has anything to show from, if there is one.
    fn bare_span(&self, key: &[u8]) -> Option<&RangeDelete> {
        let mut bare = self.veils.iter().filter(|(veil, _)| veil.whole && veil.layer == 0);
        bare.find_map(|(veil, _)| veil.deletes.span(self.keyspace, key))
    }

    /// Whether nothing is hidden, wherever the walk goes.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.veils.is_empty()
    }

    /// Begins to count anew: the layers may have moved by other means.
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.hidden = 0;
        self.by = None;
    }

    /// Whether a record of the walk's keyspace is hidden. Cost without veils: nothing.
    #[inline]
    pub(crate) fn hides(&mut self, record: RecordRef<'_>) -> Hides {
        if self.veils.is_empty() { Hides::No } else { self.look(record.key(), record.seqno()) }
    }

    fn look(&mut self, key: &[u8], seqno: Seqno) -> Hides {
        let keyspace = self.keyspace;
        for (number, (veil, at)) in self.veils.iter_mut().enumerate() {
            *at = locate(&veil.deletes, *at, keyspace, key);
            let span = veil.deletes.spans().get(*at);
            let Some(span) = span.filter(|span| span.covers(keyspace, key) && span.seqno > seqno) else {
                continue;
            };
            let by = Some((number, *at));
            self.hidden = if self.by == by { self.hidden.saturating_add(1) } else { 1 };
            self.by = by;
            // Equal, not more: what a jump leaves behind lies in newer layers, and would not move the next time
            // either.
            let before_jump = if veil.whole { 1 } else { HIDDEN_BEFORE_JUMP };
            return if self.hidden == before_jump {
                Hides::Jump(veil.jumps_from(), span.clone())
            } else {
                Hides::Yes
            };
        }
        Hides::No
    }
}

/// The first span that ends behind the key, found from where the walk was.
fn locate(deletes: &RangeDeletes, from: usize, keyspace: KeyspaceId, key: &[u8]) -> usize {
    let spans = deletes.spans();
    let is_before = |span: &RangeDelete| {
        span.keyspace < keyspace || span.keyspace == keyspace && !ends_behind(&span.end, key)
    };
    let first_kept = from == 0 || spans.get(from - 1).is_some_and(is_before);
    let near = spans.get(from..).unwrap_or_default().iter().take(SPANS_BEFORE_SEARCH);
    let steps = near.clone().take_while(|span| is_before(span)).count();
    if first_kept && steps < SPANS_BEFORE_SEARCH.min(near.len() + 1) {
        from + steps
    } else {
        deletes.span_at(keyspace, key)
    }
}

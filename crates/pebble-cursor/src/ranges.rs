//! Range deletes: which keys they hide, at which sequence number, and up to where.
//!
//! ```text
//!   all      #3 [a ─────────── m)      #5 [f ────── t)      #9 [h ─ k)         in the order of time
//!   newest   [a ─ f)#3 [f ─ h)#5 [h ─ k)#9 [k ─ t)#5                           at each key the newest, side by side
//! ```
//!
//! A reader of the present asks `newest`: one binary search. A reader at an older number, for whom what it finds there
//! is too new, goes through `all` from its number down.
//!
//! Threading: plain data, immutable but for [`RangeDeletes::push`].

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fmt;
use std::sync::Arc;

use pebble_format::{KeyspaceId, RecordRef, Seqno};

/// Hides every record of one keyspace whose key lies in a range and whose sequence number is smaller. Cloning counts
/// two references.
#[derive(Clone, PartialEq, Eq)]
pub struct RangeDelete {
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The first key that is hidden.
    pub start: Arc<[u8]>,
    /// The first key behind the range; empty where the range reaches to the end of the keyspace.
    pub end: Arc<[u8]>,
    /// When the range was deleted.
    pub seqno: Seqno,
}

impl RangeDelete {
    /// What a record says; `None` unless it deletes a range, and one that holds a key.
    pub fn of(record: RecordRef<'_>) -> Option<Self> {
        let (start, end) = (record.key(), record.value());
        let holds = record.is_range_delete() && ends_behind(end, start);
        holds.then(|| Self {
            keyspace: record.keyspace(),
            start: start.into(),
            end: end.into(),
            seqno: record.seqno(),
        })
    }

    /// Whether the key lies in the range.
    #[inline]
    pub fn covers(&self, keyspace: KeyspaceId, key: &[u8]) -> bool {
        keyspace == self.keyspace && *key >= *self.start && ends_behind(&self.end, key)
    }

    /// Where the range lies, seen from the key.
    #[inline]
    fn place(&self, keyspace: KeyspaceId, key: &[u8]) -> Ordering {
        match self.keyspace.cmp(&keyspace) {
            Ordering::Equal if !ends_behind(&self.end, key) => Ordering::Less,
            Ordering::Equal if *key < *self.start => Ordering::Greater,
            order => order,
        }
    }

    fn order(&self) -> (KeyspaceId, &[u8]) {
        (self.keyspace, &self.start)
    }
}

/// Prints lengths, not bytes: a key must not stand in a log or an error.
impl fmt::Debug for RangeDelete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, end) = (self.start.len(), self.end.len());
        write!(f, "{}:[{start} B .. {end} B)#{}", self.keyspace.0, self.seqno)
    }
}

/// Whether a range that ends at `end` goes on behind `key`: the one place that knows what an empty end means.
#[inline]
pub fn ends_behind(end: &[u8], key: &[u8]) -> bool {
    end.is_empty() || *key < *end
}

/// The order of the ends of ranges within one keyspace.
pub fn cmp_ends(a: &[u8], b: &[u8]) -> Ordering {
    a.is_empty().cmp(&b.is_empty()).then_with(|| a.cmp(b))
}

/// The range deletes of one place of the tree, to be asked by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeDeletes {
    /// Ascending by sequence number.
    all: Vec<RangeDelete>,
    /// Ascending by key, without overlap: at each key the newest.
    newest: Vec<RangeDelete>,
}

impl RangeDeletes {
    /// These, in any order. Cost: O(n log n).
    pub fn new(mut all: Vec<RangeDelete>) -> Self {
        all.sort_by_key(|delete| delete.seqno);
        let newest = newest(&all);
        Self { all, newest }
    }

    /// Adds one that is newer than all others. Cost: a binary search and a move of what lies behind it.
    pub fn push(&mut self, delete: RangeDelete) {
        let from = self.newest.partition_point(|other| {
            other.keyspace < delete.keyspace
                || other.keyspace == delete.keyspace && !ends_behind(&other.end, &delete.start)
        });
        let behind = self.newest.get(from..).unwrap_or_default();
        let len = behind.partition_point(|other| {
            other.keyspace == delete.keyspace && ends_behind(&delete.end, &other.start)
        });
        let before = behind.first().filter(|first| len > 0 && *first.start < *delete.start);
        let before = before.map(|first| RangeDelete { end: Arc::clone(&delete.start), ..first.clone() });
        let after = len.checked_sub(1).and_then(|last| behind.get(last));
        let after = after.filter(|last| cmp_ends(&last.end, &delete.end).is_gt());
        let after = after.map(|last| RangeDelete { start: Arc::clone(&delete.end), ..last.clone() });
        self.all.push(delete.clone());
        self.newest.splice(from..from + len, before.into_iter().chain([delete]).chain(after));
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &RangeDelete> + ExactSizeIterator + Clone {
        self.all.iter()
    }

    /// The newest at each key, ascending and without overlap.
    pub fn spans(&self) -> &[RangeDelete] {
        &self.newest
    }

    /// The largest sequence number among them.
    pub fn seqno_max(&self) -> Option<Seqno> {
        self.all.last().map(|delete| delete.seqno)
    }

    /// Those that a reader at `seqno` sees. Cost: O(n log n).
    pub fn as_of(&self, seqno: Seqno) -> Self {
        let seen = self.all.partition_point(|delete| delete.seqno <= seqno);
        let all: Vec<_> = self.all.get(..seen).unwrap_or_default().to_vec();
        let newest = newest(&all);
        Self { all, newest }
    }

    /// The newest at or before `seqno` that covers the key. Cost: a binary search; for a `seqno` before the newest that
    /// covers the key, a look at all that are as old.
    #[inline]
    pub fn covering(&self, keyspace: KeyspaceId, key: &[u8], seqno: Seqno) -> Option<&RangeDelete> {
        let found = self.span(keyspace, key)?;
        if found.seqno <= seqno { Some(found) } else { self.older(keyspace, key, seqno) }
    }

    #[cold]
    fn older(&self, keyspace: KeyspaceId, key: &[u8], seqno: Seqno) -> Option<&RangeDelete> {
        let seen = self.all.partition_point(|delete| delete.seqno <= seqno);
        self.all.get(..seen)?.iter().rev().find(|delete| delete.covers(keyspace, key))
    }

    /// The newest that covers the key.
    #[inline]
    pub fn span(&self, keyspace: KeyspaceId, key: &[u8]) -> Option<&RangeDelete> {
        let index = self.span_at(keyspace, key);
        self.newest.get(index).filter(|span| span.covers(keyspace, key))
    }

    /// The index in [`RangeDeletes::spans`] of the first one that ends behind the key.
    pub fn span_at(&self, keyspace: KeyspaceId, key: &[u8]) -> usize {
        self.newest.partition_point(|span| span.place(keyspace, key).is_lt())
    }

    /// Whether every key from `first` to `last`, both included, is covered by one newer than `seqno`.
    pub fn covers_all(&self, keyspace: KeyspaceId, first: &[u8], last: &[u8], seqno: Seqno) -> bool {
        let mut reached: Option<&[u8]> = None;
        let spans = self.newest.get(self.span_at(keyspace, first)..).unwrap_or_default();
        for span in spans {
            let follows = match reached {
                None => span.covers(keyspace, first),
                Some(end) => span.keyspace == keyspace && *span.start == *end,
            };
            if !follows || span.seqno <= seqno {
                return false;
            }
            if ends_behind(&span.end, last) {
                return true;
            }
            reached = Some(&span.end);
        }
        false
    }

    /// Bytes of memory, roughly.
    pub fn memory(&self) -> usize {
        let keys: usize = self.all.iter().map(|delete| delete.start.len() + delete.end.len() + 32).sum();
        (self.all.capacity() + self.newest.capacity()) * size_of::<RangeDelete>() + keys
    }
}

impl FromIterator<RangeDelete> for RangeDeletes {
    fn from_iter<I: IntoIterator<Item = RangeDelete>>(deletes: I) -> Self {
        Self::new(deletes.into_iter().collect())
    }
}

/// One that is open at the sweep's place, ordered by its sequence number.
struct Open<'a>(&'a RangeDelete);

impl Ord for Open<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.seqno.cmp(&other.0.seqno)
    }
}

impl PartialOrd for Open<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Open<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Open<'_> {}

/// At each key the newest, side by side: a sweep over the starts, with a heap of those that are open.
fn newest(all: &[RangeDelete]) -> Vec<RangeDelete> {
    let mut starts: Vec<&RangeDelete> = all.iter().collect();
    starts.sort_by_key(|delete| (delete.order(), Reverse(delete.seqno)));
    let mut starts = starts.into_iter().peekable();
    let mut spans: Vec<RangeDelete> = Vec::new();
    while let Some(first) = starts.next() {
        let keyspace = first.keyspace;
        let mut open = BinaryHeap::from([Open(first)]);
        let mut place = Arc::clone(&first.start);
        loop {
            while let Some(next) = starts.next_if(|next| next.keyspace == keyspace && *next.start <= *place) {
                open.push(Open(next));
            }
            while open.peek().is_some_and(|top| !ends_behind(&top.0.end, &place)) {
                open.pop();
            }
            let Some(Open(top)) = open.peek() else { break };
            let next =
                starts.peek().filter(|next| next.keyspace == keyspace && ends_behind(&top.end, &next.start));
            let stop = next.map_or(&top.end, |next| &next.start);
            match spans.last_mut() {
                Some(last) if last.seqno == top.seqno && last.keyspace == keyspace && last.end == place => {
                    last.end = Arc::clone(stop);
                }
                _ => spans.push(RangeDelete { start: place, end: Arc::clone(stop), ..(*top).clone() }),
            }
            if stop.is_empty() {
                break;
            }
            place = Arc::clone(stop);
        }
    }
    spans
}

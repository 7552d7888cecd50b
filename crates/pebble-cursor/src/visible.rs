//! What a reader at one sequence number sees: the newest version of each key that is not newer than it, unless that
//! is a tombstone, or a range delete hides it.
//!
//! ```text
//!   reader at 5:    a#7 put   a#4 put   a#2 put   b#5 delete   b#1 put   c#3 put
//!                     ·        seen        ·          ·           ·       seen
//! ```
//!
//! Forward, the inner cursor stands on the record that is shown. Backward, the versions of a key come oldest first,
//! so the newest visible one is known only once the inner cursor has passed it: it is pinned, and shown from there.
//!
//! Threading: as every [`Cursor`](crate::Cursor).

use std::ops::Bound;

use pebble_format::{InternalKey, KeyspaceId, PinnedRecord, RecordRef, Result, Seqno, Trailer};

use crate::sticky::Sticky;
use crate::veil::{Hides, Veil, Veils};
use crate::{Direction, Layers, Stretch};

/// After so many steps over versions of one key a seek is cheaper than going on.
const STEPS_BEFORE_SEEK: u32 = 16;

/// So many records passed in one movement make a hole that is worth to be known.
const HOLE_MIN: u32 = 32;

/// A long row of records that one movement passed unseen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Where it begins. Forward, every key from here to the one that is shown is deleted for this reader; backward, a
    /// key near the hole's far end.
    pub start: Bound<Box<[u8]>>,
    /// Records passed.
    pub passed: u32,
}

/// Where the record shown stands.
#[derive(Debug)]
enum Place {
    /// Nowhere.
    Off,
    /// Under the inner cursor.
    Under,
    /// Here; the inner cursor stands before every version of its key, or on nothing.
    Held(PinnedRecord),
}

/// A walk over the visible keys of one keyspace within bounds. It keeps the rules C2 to C6 of a
/// [`Cursor`](crate::Cursor); its order is that of user keys, each at most once.
///
/// Cost: forward, a step copies the key into a buffer that is reused, so that its older versions can be told;
/// backward, it counts one reference per record. Records that are passed unseen are counted in [`Visible::skipped`].
#[derive(Debug)]
pub struct Visible<C: Layers> {
    cursor: C,
    veils: Veils,
    keyspace: KeyspaceId,
    lo: Bound<Box<[u8]>>,
    hi: Bound<Box<[u8]>>,
    seqno: Seqno,
    place: Place,
    /// The key whose versions are being passed; meaningful within one call only.
    key: Vec<u8>,
    skipped: u64,
    /// Records passed in this movement.
    passed: u32,
    /// Where this movement began, going forward: here, unless it is `key`.
    from: Bound<Vec<u8>>,
    from_key: bool,
    hole: Option<Bound<Box<[u8]>>>,
    sticky: Sticky,
}

impl<C: Layers> Visible<C> {
    /// What a reader at `seqno` sees through `cursor`, of the keys of `keyspace` from `lo` to `hi`. At no position.
    pub fn new(
        cursor: C,
        keyspace: KeyspaceId,
        lo: Bound<Box<[u8]>>,
        hi: Bound<Box<[u8]>>,
        seqno: Seqno,
    ) -> Self {
        Self {
            cursor,
            veils: Veils::new(Vec::new(), keyspace, seqno),
            keyspace,
            lo,
            hi,
            seqno,
            place: Place::Off,
            key: Vec::new(),
            skipped: 0,
            passed: 0,
            from: Bound::Unbounded,
            from_key: false,
            hole: None,
            sticky: Sticky::default(),
        }
    }

    /// The same walk below the range deletes of its layers. Cost: a reference count each; O(n log n) for one that
    /// holds some too new for the reader.
    #[must_use]
    pub fn below(self, veils: Vec<Veil>) -> Self {
        Self { veils: Veils::new(veils, self.keyspace, self.seqno), ..self }
    }

    /// Moves to the first visible key.
    pub fn first(&mut self) -> Result<()> {
        self.run(Self::enter_first)
    }

    /// Moves to the last visible key.
    pub fn last(&mut self) -> Result<()> {
        self.run(Self::enter_last)
    }

    /// Moves to the first visible key at or after `user_key`.
    pub fn seek(&mut self, user_key: &[u8]) -> Result<()> {
        self.run(|this| {
            if !above(&this.lo, user_key) {
                return this.enter_first();
            }
            this.begin_from(user_key);
            this.begin_at(user_key)
        })
    }

    /// Moves to the last visible key at or before `user_key`.
    pub fn seek_for_prev(&mut self, user_key: &[u8]) -> Result<()> {
        self.run(|this| {
            if !below(&this.hi, user_key) {
                return this.enter_last();
            }
            this.cursor.seek_before(behind(this.keyspace, user_key))?;
            this.settle_backward()
        })
    }

    /// Moves to the next visible key.
    #[expect(clippy::should_implement_trait, reason = "the cursor's verb; an Iterator cannot lend")]
    #[inline]
    pub fn next(&mut self) -> Result<()> {
        self.run(|this| match std::mem::replace(&mut this.place, Place::Off) {
            Place::Off => Ok(()),
            Place::Under => {
                this.remember();
                this.from_key = true;
                this.cursor.next()?;
                this.settle_forward(true)
            }
            Place::Held(record) => {
                this.from = Bound::Excluded(record.record().key().to_vec());
                this.cursor.seek(behind(this.keyspace, record.record().key()))?;
                this.settle_forward(false)
            }
        })
    }

    /// Moves to the previous visible key.
    #[inline]
    pub fn prev(&mut self) -> Result<()> {
        self.run(|this| match std::mem::replace(&mut this.place, Place::Off) {
            Place::Off => Ok(()),
            Place::Under => {
                this.remember();
                this.cursor.seek_before(ahead(this.keyspace, &this.key))?;
                this.settle_backward()
            }
            Place::Held(_) => this.settle_backward(),
        })
    }

    /// The record under the cursor: never a tombstone.
    #[inline]
    pub fn record(&self) -> Option<RecordRef<'_>> {
        match &self.place {
            Place::Off => None,
            Place::Under => self.cursor.record(),
            Place::Held(record) => Some(record.record()),
        }
    }

    /// The record under the cursor, pinned. Cost: a reference count.
    pub fn pinned(&self) -> Option<PinnedRecord> {
        match &self.place {
            Place::Off => None,
            Place::Under => self.cursor.pinned(),
            Place::Held(record) => Some(record.clone()),
        }
    }

    /// The records that come next in the direction of the last step, as far as they lie in one block and all of them
    /// are shown, so that a walk may take them without asking here: then [`Visible::pass`], and on with steps. `None`
    /// says nothing but that steps are to be taken. Cost: a reference count, and a search where a bound or another
    /// layer comes in between.
    pub fn stretch(&self) -> Option<Stretch> {
        if !self.veils.is_empty() {
            return None;
        }
        let stretch = match &self.place {
            Place::Off => return None,
            Place::Under => {
                let mut stretch = self.cursor.stretch(Direction::Forward)?.without_next();
                if !self.holds_all(&stretch, &self.hi) {
                    stretch.keep_while(|key| key.keyspace == self.keyspace && below(&self.hi, key.user_key));
                }
                stretch
            }
            Place::Held(_) => {
                let mut stretch = self.cursor.stretch(Direction::Backward)?;
                if !self.holds_all(&stretch, &self.lo) {
                    stretch.keep_while(|key| key.keyspace == self.keyspace && above(&self.lo, key.user_key));
                }
                stretch
            }
        };
        (stretch.newest() <= self.seqno && !stretch.is_empty()).then_some(stretch)
    }

    /// Whether a stretch lies within a bound, as far as can be told without a look at its far end, which a short walk
    /// would never come to.
    fn holds_all(&self, stretch: &Stretch, bound: &Bound<Box<[u8]>>) -> bool {
        stretch.keyspace() == Some(self.keyspace) && matches!(bound, Bound::Unbounded)
    }

    /// Moves to the record that was taken last of a stretch that began here.
    pub fn pass(&mut self, stretch: &Stretch) -> Result<()> {
        let Some(shown) = stretch.pinned() else { return Ok(()) };
        self.run(|this| match stretch.direction() {
            Direction::Forward => this.cursor.pass(stretch.taken(), Direction::Forward),
            Direction::Backward => {
                this.place = Place::Held(shown);
                this.cursor.pass(stretch.taken() - 1, Direction::Backward)?;
                this.cursor.prev()
            }
        })
    }

    /// How many records were passed without being shown, since the cursor was made: versions too new, versions
    /// shadowed, tombstones. Of a long row of versions of one key only the first few are counted, for the rest is
    /// jumped. A large number against the keys shown says that a compaction would pay.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The long row of records that the last movement passed unseen, if it did: there a compaction would pay. It ends
    /// at the record that is shown, or at the bound where there is none; there is none of a movement that failed. Asked
    /// once, it is forgotten.
    #[inline]
    pub fn take_hole(&mut self) -> Option<Hole> {
        self.hole.take().map(|start| Hole { start, passed: self.passed })
    }

    /// Counts a record that is passed unseen on the way forward.
    #[inline]
    fn pass_forward(&mut self) {
        self.skipped += 1;
        self.passed += 1;
        if self.passed == HOLE_MIN {
            self.note_hole();
        }
    }

    #[cold]
    fn note_hole(&mut self) {
        self.hole = Some(if self.from_key {
            Bound::Excluded(self.key.as_slice().into())
        } else {
            self.from.as_ref().map(|key| key.as_slice().into())
        });
    }

    /// Counts a record that is passed unseen on the way backward.
    #[inline]
    fn pass_backward(&mut self) {
        self.skipped += 1;
        self.passed += 1;
        if self.passed == HOLE_MIN {
            self.hole = self.cursor.record().map(|record| Bound::Included(record.key().into()));
        }
    }

    #[inline]
    fn run(&mut self, movement: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.sticky.check()?;
        self.passed = 0;
        self.from_key = false;
        let done = movement(self);
        if done.is_err() {
            self.place = Place::Off;
            // Where it ends is not known: what could not be read may be shown.
            self.hole = None;
        }
        self.sticky.keep(done)
    }

    /// Notes where this movement begins, in memory that is used again.
    fn begin_from(&mut self, key: &[u8]) {
        let mut from = match std::mem::replace(&mut self.from, Bound::Unbounded) {
            Bound::Included(from) | Bound::Excluded(from) => from,
            Bound::Unbounded => Vec::new(),
        };
        from.clear();
        from.extend_from_slice(key);
        self.from = Bound::Included(from);
    }

    fn enter_first(&mut self) -> Result<()> {
        let lo = self.lo.clone();
        self.from = lo.clone().map(Vec::from);
        match lo {
            Bound::Unbounded => self.begin_at(b""),
            Bound::Included(key) => self.begin_at(&key),
            Bound::Excluded(key) => {
                self.cursor.seek(behind(self.keyspace, &key))?;
                self.settle_forward(false)
            }
        }
    }

    /// Goes to the first record that is shown at or after a key.
    fn begin_at(&mut self, key: &[u8]) -> Result<()> {
        let leap = self.veils.leap_forward(key);
        match leap.as_deref() {
            None => self.cursor.seek(InternalKey::lookup(self.keyspace, key, self.seqno))?,
            // All of the rest of the keyspace is bare.
            Some([]) => {
                self.place = Place::Off;
                return Ok(());
            }
            Some(end) => self.cursor.seek(ahead(self.keyspace, end))?,
        }
        self.settle_forward(false)
    }

    fn enter_last(&mut self) -> Result<()> {
        match &self.hi {
            Bound::Included(key) => self.cursor.seek_before(behind(self.keyspace, key))?,
            Bound::Excluded(key) => self.cursor.seek_before(ahead(self.keyspace, key))?,
            Bound::Unbounded => match self.keyspace.0.checked_add(1) {
                Some(following) => self.cursor.seek_before(ahead(KeyspaceId(following), b""))?,
                None => self.cursor.last()?,
            },
        }
        self.settle_backward()
    }

    /// Copies the key under the inner cursor, which is passed; the one that was shown before becomes where this
    /// movement began.
    #[inline]
    fn remember_passed(&mut self) {
        if self.from_key {
            self.from_key = false;
            let shown = std::mem::take(&mut self.key);
            if let Bound::Excluded(from) = std::mem::replace(&mut self.from, Bound::Excluded(shown)) {
                self.key = from;
            }
        }
        self.remember();
    }

    /// Copies the key under the inner cursor.
    #[inline]
    fn remember(&mut self) {
        if let Some(record) = self.cursor.record() {
            self.key.clear();
            self.key.extend_from_slice(record.key());
        }
    }

    /// Goes forward to the first record that is shown, from the inner cursor's record on. With `passing`, versions of
    /// `self.key` are not.
    fn settle_forward(&mut self, mut passing: bool) -> Result<()> {
        self.place = Place::Off;
        self.veils.begin();
        let mut steps = 0;
        loop {
            let Some(record) = self.cursor.record() else { return Ok(()) };
            if record.keyspace() != self.keyspace || !below(&self.hi, record.key()) {
                return Ok(());
            }
            let shadowed = passing && record.key() == &*self.key;
            if !shadowed && record.seqno() <= self.seqno {
                let hides = self.veils.hides(record);
                if matches!(hides, Hides::No) && !record.is_tombstone() {
                    self.place = Place::Under;
                    return Ok(());
                }
                passing = true;
                steps = 0;
                self.remember_passed();
                if let Hides::Jump(layer, range) = hides
                    && let Some(target) = end_of(self.keyspace, &range.end)
                {
                    self.pass_forward();
                    self.cursor.next()?;
                    self.cursor.skip_forward(layer, target)?;
                    if layer > 0 && self.hole.is_none() {
                        // What lets this layer jump is known to it alone; the newest would spare the way here too.
                        self.note_hole();
                    }
                    continue;
                }
            } else if shadowed && steps >= STEPS_BEFORE_SEEK {
                self.pass_forward();
                self.cursor.seek(behind(self.keyspace, &self.key))?;
                continue;
            } else if !shadowed {
                passing = false;
                // Too new. If it was a version of this very key some steps ago too, there may be many more.
                if steps >= STEPS_BEFORE_SEEK && record.key() == &*self.key {
                    self.pass_forward();
                    self.cursor.seek(InternalKey::lookup(self.keyspace, &self.key, self.seqno))?;
                    steps = 0;
                    continue;
                }
                if steps == 0 || steps >= STEPS_BEFORE_SEEK {
                    self.remember_passed();
                    steps = 0;
                }
            }
            steps += 1;
            self.pass_forward();
            self.cursor.next()?;
        }
    }

    /// Goes backward to the first key that is shown, from the inner cursor's record on, which is the oldest version
    /// of its key.
    fn settle_backward(&mut self) -> Result<()> {
        self.place = Place::Off;
        self.veils.begin();
        let mut newest: Option<PinnedRecord> = None;
        let mut steps = 0;
        loop {
            let record = self
                .cursor
                .record()
                .filter(|record| record.keyspace() == self.keyspace && above(&self.lo, record.key()));
            let other_key = match (&newest, &record) {
                (Some(newest), Some(record)) => newest.record().key() != record.key(),
                (_, None) => true,
                (None, Some(_)) => false,
            };
            if other_key && let Some(newest) = newest.take() {
                let hides = self.veils.hides(newest.record());
                if matches!(hides, Hides::No) && !newest.record().is_tombstone() {
                    self.place = Place::Held(newest);
                    return Ok(());
                }
                self.pass_backward();
                steps = 0;
                if let Hides::Jump(layer, range) = hides {
                    self.cursor.skip_backward(layer, ahead(self.keyspace, &range.start))?;
                }
                continue;
            }
            let Some(seqno) = record.map(|record| record.seqno()) else { return Ok(()) };
            let too_new = seqno > self.seqno;
            if too_new || newest.is_some() {
                self.pass_backward();
            }
            if !too_new {
                newest = self.cursor.pinned();
            }
            steps = if newest.is_some() { steps + 1 } else { 0 };
            match &newest {
                Some(older) if steps > STEPS_BEFORE_SEEK => {
                    let key = older.record();
                    self.cursor.seek(InternalKey::lookup(self.keyspace, key.key(), self.seqno))?;
                    let found = self.cursor.pinned();
                    self.cursor.seek_before(ahead(self.keyspace, key.key()))?;
                    newest = found;
                    steps = 0;
                }
                _ => self.cursor.prev()?,
            }
        }
    }
}

/// Before every version of the key.
fn ahead(keyspace: KeyspaceId, user_key: &[u8]) -> InternalKey<'_> {
    InternalKey::lookup(keyspace, user_key, Seqno::MAX)
}

/// Behind every version of the key.
fn behind(keyspace: KeyspaceId, user_key: &[u8]) -> InternalKey<'_> {
    InternalKey { keyspace, user_key, trailer: Trailer::OLDEST }
}

/// The position behind a range with this end; `None` behind the last keyspace of all.
fn end_of(keyspace: KeyspaceId, end: &[u8]) -> Option<InternalKey<'_>> {
    if end.is_empty() {
        return Some(ahead(KeyspaceId(keyspace.0.checked_add(1)?), end));
    }
    Some(ahead(keyspace, end))
}

/// Whether the key is within a lower bound.
#[inline]
fn above(lo: &Bound<Box<[u8]>>, user_key: &[u8]) -> bool {
    match lo {
        Bound::Unbounded => true,
        Bound::Included(lo) => user_key >= &**lo,
        Bound::Excluded(lo) => user_key > &**lo,
    }
}

/// Whether the key is within an upper bound.
#[inline]
fn below(hi: &Bound<Box<[u8]>>, user_key: &[u8]) -> bool {
    match hi {
        Bound::Unbounded => true,
        Bound::Included(hi) => user_key <= &**hi,
        Bound::Excluded(hi) => user_key < &**hi,
    }
}

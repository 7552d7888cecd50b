//! How the tree grows: insert and split, at the writer's finger.
//!
//! ```text
//!   finger:  way ─► leaf, and the heads that surely belong there
//! ```
//!
//! The finger is where the last record went. A record whose head lies strictly between the heads of the leaf's two
//! separators goes there too, without a descent: so ascending keys, and many versions of one key, cost one leaf
//! each. A split keeps the finger true, so neighbours never need another descent.
//!
//! A node that a run of neighbours fills is not halved: an ascending run leaves it full and begins a new one behind
//! it, a descending run (new versions of one key) before it.
//!
//! Threading: a [`Finger`] is the right to change one [`Tree`], and unique. The protocol towards readers, and its
//! proof, stand in `tree.rs`.

use std::borrow::Cow;

use pebble_format::{Error, HeadPrefix, Result};

use crate::arena::{Arena, Bump};
use crate::heads::{Skip, are_alike};
use crate::node::{Entry, Inner, Leaf};
use crate::sync::{AtomicU64, FAN, Ordering};
use crate::tree::{Root, Target, Tree};
use crate::way::{Stamp, Way};
use crate::windows::Windows;

/// See the [module](self).
pub struct Finger {
    leaf_bump: Bump,
    inner_bump: Bump,
    /// The state of the tree.
    stamp: Stamp,
    /// Where the last record went.
    way: Way,
    /// The heads of the separators around the leaf, once two records in a row went there.
    fences: Option<Fences>,
    /// Where in the leaf the last record went; `None` when the finger has moved since.
    rank: Option<usize>,
    /// Records of leaves that were read because heads were equal, since the writer last set it back.
    pub(crate) reads: usize,
}

/// The heads of a leaf's two separators by the memtable's prefix; `None` at an end of the tree.
struct Fences {
    lower: Option<u64>,
    upper: Option<u64>,
}

impl Fences {
    /// Whether a key with this head surely lies between.
    #[inline]
    fn hold(&self, head: u64) -> bool {
        self.lower.is_none_or(|lower| lower < head) & self.upper.is_none_or(|upper| head < upper)
    }
}

/// What the last inserts have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    Ascending,
    Descending,
    None,
}

impl Finger {
    /// A tree of one empty leaf, and the finger on it.
    pub fn plant(prefix: HeadPrefix) -> (Tree, Self) {
        let ((leaves, mut leaf_bump), (inners, inner_bump)) = (Arena::<Leaf>::new(), Arena::<Inner>::new());
        let leaf = match leaves.reserve(&mut leaf_bump, 1) {
            Ok(()) => leaves.alloc(&mut leaf_bump),
            Err(_) => unreachable!("an empty arena has room"),
        };
        let root = AtomicU64::new(Root { height: 0, handle: leaf }.word());
        let tree = Tree { prefix, windows: Windows::new(), leaves, inners, root };
        let stamp = Stamp::first();
        let way = Way::to_root(stamp, leaf);
        let finger = Self { leaf_bump, inner_bump, stamp, way, fences: None, rank: None, reads: 0 };
        (tree, finger)
    }

    /// The way to the leaf of `target`, which is asked for.
    #[inline]
    pub fn approach(&self, tree: &Tree, target: &Target<'_>) -> Way {
        if self.fences.as_ref().is_some_and(|fences| fences.hold(target.head)) {
            return self.way;
        }
        let root = tree.root();
        let mut way = Way::to_root(self.stamp, root.handle);
        for _ in 0..root.height {
            let inner = tree.inners.get(way.leaf);
            way.push(way.leaf);
            way.leaf = inner.child(inner.order(), child_of(tree, inner, target));
        }
        tree.leaves.get(way.leaf).prefetch();
        way
    }

    /// Whether a way is one of this tree, in whatever state.
    #[inline]
    pub fn is_on(&self, way: &Way) -> bool {
        way.stamp.is_of_tree(self.stamp)
    }

    /// Adds the record at `position`, whose key is `target`. `way` is of this tree, and may be out of date.
    ///
    /// Errors, after which nothing has changed: `InvalidArgument` when the key is there already or no handle is left.
    #[inline]
    pub fn insert(&mut self, tree: &Tree, target: &Target<'_>, way: &Way, position: u32) -> Result<()> {
        self.go(tree, target, way);
        let leaf = tree.leaves.get(self.way.leaf);
        let order = leaf.order();
        let head = target.head_in(leaf.skip());
        let (rank, found) = leaf.rank(order, head, |other| {
            self.reads += 1;
            tree.side(other, target)
        });
        if found {
            return Err(Error::invalid("a record with this key and sequence number is indexed already"));
        }
        let entry = Entry { head, position };
        if order.is_full() {
            return self.split(tree, target, rank, entry);
        }
        leaf.insert(rank, entry);
        self.rank = Some(rank);
        Ok(())
    }

    /// Moves to the leaf of `target`, by a way that may be out of date. That it is the same leaf again is a sign of a
    /// run: then its fences are looked up, which spares the next descents. (Looking them up in each descent costs a
    /// random insert a mispredicted branch or two.)
    #[inline]
    fn go(&mut self, tree: &Tree, target: &Target<'_>, way: &Way) {
        let is_same =
            if way.stamp == self.stamp { self.go_by(way) } else { self.go_by(&self.approach(tree, target)) };
        if is_same && self.fences.is_none() {
            self.fences = Some(self.look_up_fences(tree, target));
        }
    }

    /// Moves by a way of the present state. Says whether its leaf is where the finger was.
    #[inline]
    fn go_by(&mut self, way: &Way) -> bool {
        let is_same = self.way.leaf == way.leaf;
        if !is_same {
            (self.way, self.rank, self.fences) = (*way, None, None);
        }
        is_same
    }

    /// The fences of the finger's leaf, to which `target` belongs.
    #[cold]
    fn look_up_fences(&self, tree: &Tree, target: &Target<'_>) -> Fences {
        let range = range_below(tree, self.way.inners(), target);
        let head = |position: Option<u32>| position.map(|position| tree.target_at(position).head);
        Fences { lower: head(range.lower), upper: head(range.upper) }
    }

    /// A leaf of these entries, whose heads are of the skip `from`, for a range of its own.
    fn new_leaf(&mut self, tree: &Tree, from: Skip, entries: &[Entry], range: Range) -> u32 {
        let (skip, entries) = reheaded(tree, from, entries, range);
        let handle = tree.leaves.alloc(&mut self.leaf_bump);
        tree.leaves.get(handle).fill(skip, &entries);
        handle
    }

    /// Splits the finger's leaf, which is full, with a new record behind `rank` others.
    #[cold]
    fn split(&mut self, tree: &Tree, target: &Target<'_>, rank: usize, entry: Entry) -> Result<()> {
        let run = match self.rank {
            Some(last) if rank == FAN && last + 1 == FAN => Run::Ascending,
            Some(0) if rank == 0 => Run::Descending,
            _ => Run::None,
        };
        let parent = self.parent_with_room(tree, target, run)?;
        let leaf = tree.leaves.get(self.way.leaf);
        let (skip, entries) = (leaf.skip(), leaf.with(rank, entry));
        let at = match run {
            Run::Ascending => FAN,
            Run::Descending => 1,
            Run::None => FAN.div_ceil(2),
        };
        let (below, above) = entries.split_at(at);
        let separator = entries[at];
        let range = match are_alike(below) || are_alike(above) {
            true => range_below(tree, self.way.inners(), target),
            false => Range::default(),
        };
        let (below_range, above_range) = range.split(separator.position);
        let old = self.way.leaf;
        let low = if run == Run::Ascending { old } else { self.new_leaf(tree, skip, below, below_range) };
        let high = if run == Run::Descending { old } else { self.new_leaf(tree, skip, above, above_range) };
        publish(tree, tree.inners.get(parent), target, (low, (skip, separator), high));
        let is_low = rank < at;
        (self.way.leaf, self.rank) = if is_low { (low, Some(rank)) } else { (high, Some(rank - at)) };
        if let Some(fences) = &mut self.fences {
            let head = tree.target_at(separator.position).head;
            *(if is_low { &mut fences.upper } else { &mut fences.lower }) = Some(head);
        }
        Ok(())
    }

    /// The parent of the finger's leaf, after room was made in it. All nodes for the split of the leaf are reserved
    /// before anything changes.
    fn parent_with_room(&mut self, tree: &Tree, target: &Target<'_>, run: Run) -> Result<u32> {
        let is_full = |handle: &&u32| tree.inners.get(**handle).order().is_full();
        let inners = self.way.inners();
        let full = inners.iter().rev().take_while(is_full).count();
        let mut level = inners.len() - full;
        let nodes = 2 * full + usize::from(level == 0);
        tree.inners.reserve(&mut self.inner_bump, u32::try_from(nodes).unwrap_or(u32::MAX))?;
        tree.leaves.reserve(&mut self.leaf_bump, 2)?;
        if level == 0 {
            self.way.check_room()?;
            let root = tree.inners.alloc(&mut self.inner_bump);
            tree.inners.get(root).begin(tree.root().handle);
            self.way.put_root(root);
            let height = tree.root().height + 1;
            tree.root.store(Root { height, handle: root }.word(), Ordering::Release);
            level = 1;
        }
        self.stamp = self.stamp.next();
        self.way.stamp = self.stamp;
        let mut parent = self.way.inners()[level - 1];
        for level in level..self.way.inners().len() {
            parent = self.split_inner(tree, target, level, run);
            self.way.put(level, parent);
        }
        Ok(parent)
    }

    /// Splits the full inner node at a level of the path, below a parent with room, and gives the half that `target`
    /// belongs to.
    fn split_inner(&mut self, tree: &Tree, target: &Target<'_>, level: usize, run: Run) -> u32 {
        let (above, handle) = (&self.way.inners()[..level], self.way.inners()[level]);
        let inner = tree.inners.get(handle);
        let nth = child_of(tree, inner, target);
        let up = match run {
            Run::Ascending if nth == FAN => FAN,
            Run::Descending if nth == 0 => 1,
            _ => FAN.div_ceil(2),
        };
        let separator = inner.separator(inner.order(), up);
        let (low_range, high_range) = range_below(tree, above, target).split(separator.position);
        let mut half = |first: usize, nths, range| {
            let separators: Vec<Entry> = inner.separators(nths).collect();
            let (skip, separators) = reheaded(tree, inner.skip(), &separators, range);
            let handle = tree.inners.alloc(&mut self.inner_bump);
            tree.inners.get(handle).fill(inner, first, skip, &separators);
            handle
        };
        let (low, high) = (half(0, 1..=up - 1, low_range), half(up, up + 1..=FAN, high_range));
        let separator = (inner.skip(), separator);
        publish(tree, tree.inners.get(self.way.inners()[level - 1]), target, (low, separator, high));
        if nth < up { low } else { high }
    }
}

/// What a node may hold: from one record on, up to another; `None` at an end of the tree, or where nobody asked.
#[derive(Clone, Copy, Default)]
struct Range {
    lower: Option<u32>,
    upper: Option<u32>,
}

impl Range {
    /// Both sides of a record within it.
    fn split(self, at: u32) -> (Self, Self) {
        (Self { upper: Some(at), ..self }, Self { lower: Some(at), ..self })
    }
}

/// The range of the node below the last one of a path, in the direction of `target`.
fn range_below(tree: &Tree, path: &[u32], target: &Target<'_>) -> Range {
    let mut range = Range::default();
    for inner in path.iter().rev().map(|handle| tree.inners.get(*handle)) {
        let (order, nth) = (inner.order(), child_of(tree, inner, target));
        if nth > 0 && range.lower.is_none() {
            range.lower = Some(inner.separator(order, nth).position);
        }
        if nth < order.len() && range.upper.is_none() {
            range.upper = Some(inner.separator(order, nth + 1).position);
        }
        if range.lower.is_some() && range.upper.is_some() {
            break;
        }
    }
    range
}

/// Entries of a node with the skip `from`, for a node of that range, with the skip that is best for it. Where heads are
/// alike this reads the records: of the two ends, and if more is shared than was, all.
fn reheaded<'a>(tree: &Tree, from: Skip, entries: &'a [Entry], range: Range) -> (Skip, Cow<'a, [Entry]>) {
    if let (Some(lower), Some(upper)) = (range.lower, range.upper)
        && are_alike(entries)
    {
        let skip = Skip::between(tree.target_at(lower).key, tree.target_at(upper).key);
        if skip > from {
            let reheaded = |entry: &Entry| entry_at(tree, skip, entry.position);
            return (skip, entries.iter().map(reheaded).collect());
        }
    }
    (from, Cow::Borrowed(entries))
}

/// The record at a position as an entry of a node with that skip.
fn entry_at(tree: &Tree, skip: Skip, position: u32) -> Entry {
    Entry { head: tree.target_at(position).head_in(skip), position }
}

/// The child of `inner` whose range holds `target`, as the writer sees it.
#[inline]
fn child_of(tree: &Tree, inner: &Inner, target: &Target<'_>) -> usize {
    let head = target.head_in(inner.skip());
    let (rank, found) = inner.rank(inner.order(), head, |other| tree.side(other, target));
    rank + usize::from(found)
}

/// Steps 2 and 3 of a split, in this order, in the parent's child that holds `target`. The separator comes with the
/// skip that its head is of.
fn publish(
    tree: &Tree,
    parent: &Inner,
    target: &Target<'_>,
    (low, (skip, separator), high): (u32, (Skip, Entry), u32),
) {
    let nth = child_of(tree, parent, target);
    let own = parent.skip();
    let separator = if skip == own { separator } else { entry_at(tree, own, separator.position) };
    parent.insert(nth, separator, high);
    parent.replace(nth, low);
}

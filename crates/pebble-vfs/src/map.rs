//! Files as memory: [`Map`] to read, [`MapMut`] to write through.
//!
//! Both own their memory and keep it alive, whatever becomes of the file. The address never moves, so
//! either may be handed across threads and put behind an `Arc`.
//!
//! ```text
//!     Map     base ── len bytes, lent as &[u8]       (tables, sealed log segments)
//!     MapMut  base ── len bytes, never lent as slice (the log decides who may write where)
//! ```

use std::fmt;
use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};

use crate::sim::Memory;

/// How a map is about to be read; a hint to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Advice {
    /// Here and there: no read-ahead.
    Random,
    /// From front to back: much read-ahead.
    Sequential,
    /// All of it, soon: start reading now.
    WillNeed,
    /// Often: back it by huge pages where the file system can.
    HugePage,
    /// All of it, now: read what is not in memory, and return when it is.
    Populate,
}

/// What keeps the memory of a map alive.
enum Owner {
    /// Nothing to own: the map is empty.
    Empty,
    /// A mapping of the kernel's.
    Os(MmapRaw),
    /// The bytes of a simulated file.
    Sim { _memory: Arc<Memory> },
}

/// Address, length and owner: what both kinds of map are made of.
///
/// Invariant: `len` bytes from `base` are mapped, initialized and stay where they are for as long as
/// `owner` lives.
struct Region {
    base: NonNull<u8>,
    len: usize,
    owner: Owner,
}

// SAFETY: a region is an address of memory that it owns; the owners are themselves `Send`, and no method
// depends on the thread that made it.
unsafe impl Send for Region {}
// SAFETY: through `&Region` only the address, the length and `advise` (thread-safe in the kernel) are
// reachable; what may be read or written at the address is the business of `Map` and `MapMut`.
unsafe impl Sync for Region {}

impl Region {
    fn empty() -> Self {
        Self { base: NonNull::dangling(), len: 0, owner: Owner::Empty }
    }

    fn from_os(raw: MmapRaw) -> Self {
        match NonNull::new(raw.as_mut_ptr()) {
            Some(base) => Self { base, len: raw.len(), owner: Owner::Os(raw) },
            None => Self::empty(),
        }
    }

    fn from_memory(memory: Arc<Memory>, len: usize) -> Self {
        let len = len.min(memory.capacity());
        Self { base: memory.base(), len, owner: Owner::Sim { _memory: memory } }
    }

    fn advise(&self, advice: Advice) -> io::Result<()> {
        let Owner::Os(raw) = &self.owner else { return Ok(()) };
        match advice {
            Advice::Random => raw.advise(memmap2::Advice::Random),
            Advice::Sequential => raw.advise(memmap2::Advice::Sequential),
            Advice::WillNeed => raw.advise(memmap2::Advice::WillNeed),
            #[cfg(target_os = "linux")]
            Advice::HugePage => raw.advise(memmap2::Advice::HugePage),
            #[cfg(target_os = "linux")]
            Advice::Populate => populate(raw),
            #[cfg(not(target_os = "linux"))]
            Advice::HugePage | Advice::Populate => Ok(()),
        }
    }
}

/// Reads in pages as large as can be, and maps them so: a random read then finds its page in one of few entries, where
/// a gigabyte of small ones overflows every table that the processor has for them. What is given up later and asked for
/// again comes as large; to take the hint back after the reading cost all that it had brought (measured, not
/// understood).
#[cfg(target_os = "linux")]
fn populate(raw: &MmapRaw) -> io::Result<()> {
    // A kernel, or a file system, without large pages reads small ones.
    raw.advise(memmap2::Advice::HugePage).ok();
    raw.advise(memmap2::Advice::PopulateRead)
}

impl Region {
    #[cfg(target_os = "linux")]
    fn populate(&self, offset: usize, len: usize) -> io::Result<()> {
        let Owner::Os(raw) = &self.owner else { return Ok(()) };
        raw.advise_range(memmap2::Advice::PopulateWrite, offset, len)
    }

    #[cfg(not(target_os = "linux"))]
    fn populate(&self, _offset: usize, _len: usize) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {:p}", self.len, self.base)
    }
}

/// A whole file, mapped for reading; dereferences to its bytes.
///
/// See [`File::map`](crate::File::map) for what the caller promises. Resident memory is the kernel's
/// business: pages come and go with demand. An I/O error behind a page is a SIGBUS.
#[derive(Debug)]
pub struct Map(Region);

impl Map {
    /// A map of no bytes.
    pub(crate) fn empty() -> Self {
        Self(Region::empty())
    }

    /// Maps the whole of an open file that is not empty.
    pub(crate) fn of_file(file: &std::fs::File) -> io::Result<Self> {
        Ok(Self(Region::from_os(MmapOptions::new().map_raw_read_only(file)?)))
    }

    /// The first `len` bytes of a simulated file's memory.
    pub(crate) fn of_memory(memory: Arc<Memory>, len: usize) -> Self {
        Self(Region::from_memory(memory, len))
    }

    /// Tells the kernel how the bytes will be read. A hint; an error means that it was not taken.
    pub fn advise(&self, advice: Advice) -> io::Result<()> {
        self.0.advise(advice)
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: by the invariant of `Region` the bytes are mapped and initialized for as long as `self`
        // is, which the returned borrow cannot outlive; `File::map` states that nobody changes a byte
        // while it is borrowed. An empty region has a dangling, aligned base, as a slice may.
        unsafe { slice::from_raw_parts(self.0.base.as_ptr(), self.0.len) }
    }
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// A whole file, mapped for reading and writing.
///
/// It gives out an address, not a slice: which bytes may be read and which written, by whom and when, is
/// known to the owner alone (the log), and it is there that the `unsafe` of touching them stands. The
/// memory is valid for reads and writes of `len` bytes, page aligned, for as long as the `MapMut` lives.
/// A store is in the kernel's hands at once: it survives the death of the process, and is durable after
/// [`File::sync_data`](crate::File::sync_data).
#[derive(Debug)]
pub struct MapMut(Region);

impl MapMut {
    /// A map of no bytes.
    pub(crate) fn empty() -> Self {
        Self(Region::empty())
    }

    /// Maps the whole of an open file that is not empty.
    pub(crate) fn of_file(file: &std::fs::File) -> io::Result<Self> {
        Ok(Self(Region::from_os(MmapOptions::new().map_raw(file)?)))
    }

    /// The first `len` bytes of a simulated file's memory.
    pub(crate) fn of_memory(memory: Arc<Memory>, len: usize) -> Self {
        Self(Region::from_memory(memory, len))
    }

    /// The address of the first byte; dangling if the map is empty.
    pub fn base(&self) -> NonNull<u8> {
        self.0.base
    }

    /// Sees to it that the first stores to `len` bytes from `offset` on find their pages, as the stores themselves
    /// would. The pages count as written to. A hint; an error means that it was not taken.
    pub fn populate(&self, offset: usize, len: usize) -> io::Result<()> {
        self.0.populate(offset, len)
    }

    /// Bytes in the map.
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Whether the map has no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }
}

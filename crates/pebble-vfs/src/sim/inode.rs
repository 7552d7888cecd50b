//! One simulated file: its live image, its durable image, and which sectors lie between them.
//!
//! ```text
//!     live      what reads and maps see               Memory, shared with the maps
//!     clean     what the page cache takes for synced  differs from durable only after a failed sync
//!     durable   what a power cut leaves for certain   Arc, shared with the crash images taken of it
//! ```
//!
//! A sector is dirty where live differs from clean. A sync copies the dirty sectors to durable; a failed
//! one copies them to clean alone, so that nothing will ever write them again unless they are rewritten.
//! Each inode has one lock, taken after the tree's and never the other way round.

use std::io;
use std::sync::Arc;

use super::crash::FileChoice;
use super::memory::Memory;
use super::relock;
use crate::sync::{Mutex, MutexGuard};

/// What a device writes as a whole.
pub(super) const SECTOR: usize = 512;

/// The largest simulated file, so that an absurd length is a full disk and not an exhausted machine.
const MAX_LEN: u64 = 1 << 32;

/// A file, whatever its names.
#[derive(Debug)]
pub(super) struct Inode {
    /// Unique on its disk, and kept by the images taken of it.
    pub(super) id: u64,
    content: Mutex<Content>,
}

/// The images of a file. See the module's drawing.
#[derive(Debug, Default)]
pub(super) struct Content {
    durable: Arc<Vec<u8>>,
    /// `None`: as `durable`.
    clean: Option<Vec<u8>>,
    /// `None`: as `durable`, and nothing is dirty or mapped.
    live: Option<Live>,
    /// Written since the last sync, other than through a map.
    written: bool,
    /// The first byte that may have no block behind it, live and durable.
    backed: usize,
    durable_backed: usize,
}

/// Invariant: the memory past `len` is zero.
struct Live {
    memory: Arc<Memory>,
    len: usize,
    /// There may be a writable map.
    mapped_mut: bool,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.len)
    }
}

impl Inode {
    pub(super) fn new(id: u64) -> Arc<Self> {
        Arc::new(Self { id, content: Mutex::default() })
    }

    pub(super) fn content(&self) -> MutexGuard<'_, Content> {
        relock(&self.content)
    }

    /// The same file on another disk, unsynced state and all.
    pub(super) fn duplicate(&self) -> Arc<Self> {
        Arc::new(Self { id: self.id, content: Mutex::new(self.content().duplicate()) })
    }

    /// The file as a power cut leaves it.
    pub(super) fn after_crash(&self, choice: FileChoice) -> Arc<Self> {
        Arc::new(Self { id: self.id, content: Mutex::new(self.content().after_crash(choice)) })
    }
}

/// Sector `index` of an image, as long as the image reaches.
fn sector(image: &[u8], index: usize) -> &[u8] {
    let start = image.len().min(index * SECTOR);
    &image[start..image.len().min(start + SECTOR)]
}

/// A full sector: what the image holds of it, then zeros.
fn padded(image: &[u8], index: usize) -> [u8; SECTOR] {
    let mut full = [0; SECTOR];
    let part = sector(image, index);
    full[..part.len()].copy_from_slice(part);
    full
}

impl Live {
    /// Whether sector `index` of `image` holds the same, the ends of both padded with zeros.
    fn matches(&self, image: &[u8], index: usize) -> bool {
        let other = sector(image, index);
        if other.len() == SECTOR && index * SECTOR < self.memory.capacity() {
            return self.memory.matches(index * SECTOR, other);
        }
        self.sector(index) == padded(image, index)
    }

    fn sector(&self, index: usize) -> [u8; SECTOR] {
        let mut full = [0; SECTOR];
        let start = index * SECTOR;
        if start < self.memory.capacity() {
            self.memory.load(start, &mut full);
        }
        full
    }

    fn is_mapped(&self) -> bool {
        Arc::strong_count(&self.memory) > 1
    }
}

impl Content {
    pub(super) fn len(&self) -> usize {
        self.live.as_ref().map_or(self.durable.len(), |live| live.len)
    }

    /// Whether someone holds a map of it.
    pub(super) fn is_mapped(&self) -> bool {
        self.live.as_ref().is_some_and(Live::is_mapped)
    }

    /// Whether some sector may be dirty.
    pub(super) fn may_be_dirty(&self) -> bool {
        self.written || self.live.as_ref().is_some_and(|live| live.mapped_mut)
    }

    /// All of its bytes; shared with the disk's own where nothing is unsynced.
    pub(super) fn bytes(&self) -> Arc<Vec<u8>> {
        if self.live.is_none() {
            return Arc::clone(&self.durable);
        }
        let mut bytes = vec![0; self.len()];
        self.read(&mut bytes, 0);
        Arc::new(bytes)
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let len = self.len();
        let Some(start) = usize::try_from(offset).ok().filter(|start| *start < len) else { return 0 };
        let count = buf.len().min(len - start);
        match &self.live {
            Some(live) => live.memory.load(start, &mut buf[..count]),
            None => buf[..count].copy_from_slice(&self.durable[start..start + count]),
        }
        count
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = offset.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        let (start, end) = (position(offset)?, position(end)?);
        if end > self.len() {
            self.set_len(end)?;
        }
        self.live_mut(end)?.memory.store(start, bytes);
        if start <= self.backed {
            self.backed = self.backed.max(end);
        }
        self.redirty(start, end);
        Ok(())
    }

    pub(super) fn allocate(&mut self, len: u64) -> io::Result<()> {
        let len = position(len)?;
        if len > self.len() {
            self.set_len(len)?;
        }
        self.backed = self.backed.max(len);
        self.written = true;
        Ok(())
    }

    pub(super) fn truncate(&mut self, len: u64) -> io::Result<()> {
        let len = position(len)?;
        self.set_len(len)?;
        self.backed = self.backed.min(len);
        Ok(())
    }

    pub(super) fn sync(&mut self) {
        if !self.may_be_dirty() {
            return;
        }
        if let Some(live) = &mut self.live {
            let durable = Arc::make_mut(&mut self.durable);
            let reference_len = self.clean.as_ref().map_or(durable.len(), Vec::len);
            durable.resize(live.len, 0);
            if let Some(clean) = &mut self.clean {
                clean.resize(live.len, 0);
            }
            for index in 0..live.len.max(reference_len).div_ceil(SECTOR) {
                if live.matches(self.clean.as_ref().unwrap_or(durable), index) {
                    continue;
                }
                let new = live.sector(index);
                for image in [Some(&mut *durable), self.clean.as_mut()].into_iter().flatten() {
                    let end = image.len().min((index + 1) * SECTOR);
                    if let Some(old) = image.get_mut(index * SECTOR..end) {
                        old.copy_from_slice(&new[..old.len()]);
                    }
                }
            }
            live.mapped_mut &= live.is_mapped();
        }
        self.durable_backed = self.backed;
        self.written = false;
    }

    /// What a failed sync leaves: the dirty sectors are taken for written and will not be written again.
    pub(super) fn drop_dirty(&mut self) {
        if !self.may_be_dirty() {
            return;
        }
        let mut seen = vec![0; self.len()];
        self.read(&mut seen, 0);
        self.clean = Some(seen).filter(|seen| *seen != *self.durable);
        self.written = self.durable.len() != self.len();
    }

    /// The memory and the length for a map.
    pub(super) fn map(&mut self) -> io::Result<(Arc<Memory>, usize)> {
        let len = self.len();
        Ok((Arc::clone(&self.live_mut(len)?.memory), len))
    }

    /// As [`Content::map`], to be stored through.
    pub(super) fn map_mut(&mut self) -> io::Result<(Arc<Memory>, usize)> {
        let len = self.len();
        if self.backed < len {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a writable map needs blocks behind all of the file: allocate it first",
            ));
        }
        self.live_mut(len)?.mapped_mut = true;
        self.map()
    }

    /// The live image, made if there is none, with room for `capacity` bytes.
    fn live_mut(&mut self, capacity: usize) -> io::Result<&mut Live> {
        let len = self.len();
        let fits = self.live.as_ref().is_some_and(|live| live.memory.capacity() >= capacity);
        if !fits {
            // Doubling keeps a file that grows by appends linear in its length.
            let room = if self.live.is_some() { capacity.max(2 * len) } else { capacity.max(len) };
            let memory = Memory::zeroed(room)?;
            let mut seen = vec![0; len];
            self.read(&mut seen, 0);
            memory.store(0, &seen);
            self.live = Some(Live { memory: Arc::new(memory), len, mapped_mut: false });
        }
        self.live.as_mut().ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn set_len(&mut self, len: usize) -> io::Result<()> {
        let old = self.len();
        if len == old {
            return Ok(());
        }
        if self.is_mapped() {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "the length of a mapped file changes"));
        }
        let live = self.live_mut(len.max(old))?;
        if len < old {
            live.memory.clear(len, old - len);
        }
        live.len = len;
        self.redirty(len.min(old), len.max(old));
        Ok(())
    }

    /// Notes that bytes were written: the sectors they touch are the page cache's to write again, even if
    /// an earlier sync of them failed.
    fn redirty(&mut self, start: usize, end: usize) {
        self.written = true;
        let Some(clean) = &mut self.clean else { return };
        for index in start / SECTOR..end.div_ceil(SECTOR) {
            let from = clean.len().min(index * SECTOR);
            let to = clean.len().min(from + SECTOR);
            let durable = padded(&self.durable, index);
            clean[from..to].copy_from_slice(&durable[..to - from]);
        }
    }

    fn duplicate(&self) -> Self {
        let live = self.live.as_ref().map(|live| Live {
            memory: Arc::new(live.memory.duplicate()),
            len: live.len,
            mapped_mut: false,
        });
        Self {
            durable: Arc::clone(&self.durable),
            clean: self.clean.clone(),
            live,
            written: self.may_be_dirty(),
            backed: self.backed,
            durable_backed: self.durable_backed,
        }
    }

    fn after_crash(&self, mut choice: FileChoice) -> Self {
        let durable = match &self.live {
            Some(live) if self.may_be_dirty() => Arc::new(self.crash_image(live, &mut choice)),
            _ => Arc::clone(&self.durable),
        };
        let backed = self.durable_backed.min(durable.len());
        Self { durable, backed, durable_backed: backed, ..Self::default() }
    }

    /// Durable content with some of the dirty sectors, and a length between the durable and the live one.
    fn crash_image(&self, live: &Live, choice: &mut FileChoice) -> Vec<u8> {
        let clean = self.clean.as_ref().unwrap_or(&self.durable);
        let longest = live.len.max(self.durable.len()).max(clean.len());
        let dirty: Vec<usize> =
            (0..longest.div_ceil(SECTOR)).filter(|index| !live.matches(clean, *index)).collect();
        let kept = choice.sectors(&dirty);
        let mut image = Vec::with_capacity(longest.next_multiple_of(SECTOR));
        image.extend_from_slice(&self.durable);
        image.resize(longest.next_multiple_of(SECTOR), 0);
        for index in &kept {
            image[index * SECTOR..(index + 1) * SECTOR].copy_from_slice(&live.sector(*index));
        }
        image.truncate(choice.len(self.durable.len(), live.len, &kept));
        image
    }
}

/// A length or offset in memory; beyond what a simulated file may hold, the disk is full.
fn position(value: u64) -> io::Result<usize> {
    let fits = usize::try_from(value).ok().filter(|_| value <= MAX_LEN);
    fits.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOSPC))
}

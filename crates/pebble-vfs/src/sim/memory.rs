//! The bytes of a simulated file: memory at a fixed, page-aligned address that files and maps share.
//!
//! The words are atomics, so the file's own reads and writes need no `unsafe` and race with nothing; a
//! map's owner stores through the bare address, as into a real mapping. A racing store is seen old or
//! new, word by word, which is also all that a power cut would promise.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const PAGE: usize = 4096;
const WORD: usize = size_of::<u64>();
const WORDS: usize = PAGE / WORD;

#[repr(C, align(4096))]
struct Page([AtomicU64; WORDS]);

/// Zeroed memory of a fixed size, shared by a file and its maps.
pub(crate) struct Memory {
    pages: Vec<Page>,
}

impl Memory {
    /// At least `capacity` bytes of zeros; `OutOfMemory` if there are not so many.
    pub(crate) fn zeroed(capacity: usize) -> io::Result<Self> {
        let count = capacity.div_ceil(PAGE);
        let mut pages = Vec::new();
        pages.try_reserve_exact(count)?;
        pages.resize_with(count, || Page([const { AtomicU64::new(0) }; WORDS]));
        Ok(Self { pages })
    }

    /// Bytes that fit.
    pub(crate) fn capacity(&self) -> usize {
        self.pages.len() * PAGE
    }

    /// The address of the first byte; dangling if the capacity is 0. Stores through it are allowed for as
    /// long as `self` lives: every byte is inside an atomic.
    pub(crate) fn base(&self) -> NonNull<u8> {
        NonNull::from(self.pages.as_slice()).cast()
    }

    /// The words that bytes `offset..offset + len` touch, each with the part of it that is meant: the
    /// word, the first byte inside it, and the range of the caller's bytes.
    fn words(
        &self,
        offset: usize,
        len: usize,
    ) -> impl Iterator<Item = (&AtomicU64, usize, std::ops::Range<usize>)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            if done == len {
                return None;
            }
            let at = offset + done;
            let word = &self.pages[at / PAGE].0[at % PAGE / WORD];
            let part = done..len.min(done + WORD - at % WORD);
            done = part.end;
            Some((word, at % WORD, part))
        })
    }

    /// Copies bytes out. Panics if the range exceeds the capacity.
    pub(crate) fn load(&self, offset: usize, out: &mut [u8]) {
        for (word, from, part) in self.words(offset, out.len()) {
            let bytes = word.load(Relaxed).to_ne_bytes();
            let to = &mut out[part];
            to.copy_from_slice(&bytes[from..from + to.len()]);
        }
    }

    /// Copies bytes in. Panics if the range exceeds the capacity.
    pub(crate) fn store(&self, offset: usize, bytes: &[u8]) {
        for (word, at, part) in self.words(offset, bytes.len()) {
            let bytes = &bytes[part];
            match <[u8; WORD]>::try_from(bytes) {
                Ok(whole) => word.store(u64::from_ne_bytes(whole), Relaxed),
                // A neighbour's mapped store into the same word is never undone: the exchange sees it.
                Err(_) => {
                    _ = word.fetch_update(Relaxed, Relaxed, |old| {
                        let mut new = old.to_ne_bytes();
                        new[at..at + bytes.len()].copy_from_slice(bytes);
                        Some(u64::from_ne_bytes(new))
                    })
                }
            }
        }
    }

    /// Whether the bytes at `offset` equal `bytes`. Panics if the range exceeds the capacity.
    pub(crate) fn matches(&self, offset: usize, bytes: &[u8]) -> bool {
        self.words(offset, bytes.len()).all(|(word, from, part)| {
            let bytes = &bytes[part];
            word.load(Relaxed).to_ne_bytes()[from..from + bytes.len()] == *bytes
        })
    }

    /// Sets bytes to zero. Panics if the range exceeds the capacity.
    pub(crate) fn clear(&self, offset: usize, len: usize) {
        let zeros = [0; PAGE];
        for at in (offset..offset + len).step_by(PAGE) {
            self.store(at, &zeros[..PAGE.min(offset + len - at)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unaligned_ranges_across_pages_are_exact() {
        let memory = Memory::zeroed(3 * PAGE - 5).unwrap();
        assert_eq!(memory.capacity(), 3 * PAGE);
        assert_eq!(memory.base().as_ptr().addr() % PAGE, 0);
        let bytes: Vec<u8> = (0..=255).cycle().take(PAGE + 29).collect();
        for offset in [0, 1, 7, 8, 13, PAGE - 3] {
            memory.store(offset, &bytes);
            assert!(memory.matches(offset, &bytes));
            let mut out = vec![9; bytes.len() + 2];
            memory.load(offset, &mut out[1..=bytes.len()]);
            assert_eq!(out[1..=bytes.len()], bytes);
            assert_eq!((out[0], out[bytes.len() + 1]), (9, 9));
            memory.store(offset + 100, &[bytes[100] ^ 1]);
            assert!(!memory.matches(offset, &bytes));
            memory.clear(offset, bytes.len());
            assert!(memory.matches(0, &vec![0; 3 * PAGE]));
        }
    }

    #[test]
    fn stores_through_the_address_are_seen() {
        let memory = Memory::zeroed(10).unwrap();
        // SAFETY: inside the memory, which lives, and not shared with another thread.
        unsafe { memory.base().add(9).write(7) };
        assert!(memory.matches(8, &[0, 7]));
    }

    #[test]
    fn absurd_sizes_are_an_error() {
        let error = Memory::zeroed(usize::MAX - PAGE).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
    }
}

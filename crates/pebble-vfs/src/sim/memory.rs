//! The bytes of a simulated file: memory at a fixed, page-aligned address that files and maps share.
//!
//! The words are atomics, so the file's own reads and writes need no `unsafe` and race with nothing; a
//! map's owner stores through the bare address, as into a real mapping. A racing store is seen old or
//! new, word by word, which is also all that a power cut would promise.

use std::io;
use std::ops::Range;
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

/// A piece of a range: either whole words, or a part of one.
struct Run<'m> {
    words: &'m [AtomicU64],
    /// Bytes of the first word that are not meant.
    skip: usize,
    /// Which of the caller's bytes.
    part: Range<usize>,
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

    /// The same bytes at another address.
    pub(crate) fn duplicate(&self) -> Self {
        let page =
            |page: &Page| Page(std::array::from_fn(|index| AtomicU64::new(page.0[index].load(Relaxed))));
        Self { pages: self.pages.iter().map(page).collect() }
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

    /// Cuts bytes `offset..offset + len` into runs of whole words of one page, and parts of single words.
    fn runs(&self, offset: usize, len: usize) -> impl Iterator<Item = Run<'_>> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let (at, left) = (offset + done, len - done);
            if left == 0 {
                return None;
            }
            let (first, skip) = (at % PAGE / WORD, at % WORD);
            let whole = if skip == 0 { (left / WORD).min(WORDS - first) } else { 0 };
            let words = &self.pages[at / PAGE].0[first..first + whole.max(1)];
            let count = if whole > 0 { whole * WORD } else { left.min(WORD - skip) };
            done += count;
            Some(Run { words, skip, part: done - count..done })
        })
    }

    /// Copies bytes out. Panics if the range exceeds the capacity.
    pub(crate) fn load(&self, offset: usize, out: &mut [u8]) {
        for Run { words, skip, part } in self.runs(offset, out.len()) {
            let (whole, rest) = out[part].as_chunks_mut::<WORD>();
            for (word, to) in words.iter().zip(whole) {
                *to = word.load(Relaxed).to_ne_bytes();
            }
            if !rest.is_empty() {
                rest.copy_from_slice(&words[0].load(Relaxed).to_ne_bytes()[skip..skip + rest.len()]);
            }
        }
    }

    /// Copies bytes in. Panics if the range exceeds the capacity.
    pub(crate) fn store(&self, offset: usize, bytes: &[u8]) {
        for Run { words, skip, part } in self.runs(offset, bytes.len()) {
            let (whole, rest) = bytes[part].as_chunks::<WORD>();
            for (word, from) in words.iter().zip(whole) {
                word.store(u64::from_ne_bytes(*from), Relaxed);
            }
            if !rest.is_empty() {
                // A neighbour's mapped store into the same word is never undone: the exchange sees it.
                _ = words[0].fetch_update(Relaxed, Relaxed, |old| {
                    let mut new = old.to_ne_bytes();
                    new[skip..skip + rest.len()].copy_from_slice(rest);
                    Some(u64::from_ne_bytes(new))
                });
            }
        }
    }

    /// Whether the bytes at `offset` equal `bytes`. Panics if the range exceeds the capacity.
    pub(crate) fn matches(&self, offset: usize, bytes: &[u8]) -> bool {
        self.runs(offset, bytes.len()).all(|Run { words, skip, part }| {
            let (whole, rest) = bytes[part].as_chunks::<WORD>();
            let same =
                |(word, other): (&AtomicU64, &[u8; WORD])| word.load(Relaxed) == u64::from_ne_bytes(*other);
            words.iter().zip(whole).all(same)
                && (rest.is_empty() || words[0].load(Relaxed).to_ne_bytes()[skip..skip + rest.len()] == *rest)
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
            for at in [0, 100, bytes.len() - 1] {
                memory.store(offset + at, &[bytes[at] ^ 1]);
                assert!(!memory.matches(offset, &bytes));
                memory.store(offset + at, &bytes[at..=at]);
            }
            memory.clear(offset, bytes.len());
            assert!(memory.matches(0, &vec![0; 3 * PAGE]));
        }
    }

    #[test]
    #[allow(unsafe_code, reason = "what the owner of a map does")]
    fn stores_through_the_address_are_seen() {
        let memory = Memory::zeroed(10).unwrap();
        // SAFETY: inside the memory, which lives, and not shared with another thread.
        unsafe { memory.base().add(9).write(7) };
        assert!(memory.matches(8, &[0, 7]));
    }

    #[test]
    fn a_duplicate_is_apart() {
        let memory = Memory::zeroed(PAGE + 1).unwrap();
        memory.store(PAGE - 1, b"ab");
        let other = memory.duplicate();
        memory.store(PAGE - 1, b"xy");
        assert!(other.matches(PAGE - 2, b"\0ab\0"));
        assert_eq!(other.capacity(), memory.capacity());
    }

    #[test]
    fn absurd_sizes_are_an_error() {
        let error = Memory::zeroed(usize::MAX - PAGE).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
    }
}

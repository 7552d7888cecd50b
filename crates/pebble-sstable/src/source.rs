//! Where a table's bytes come from, and which of them were found right.
//!
//! Threading: immutable but for the bits, see [`Bits`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pebble_format::{Corruption, Error, Pinned, Result};
use pebble_vfs::File;

/// The one place where a map and a file differ.
#[derive(Debug)]
pub(crate) enum Source {
    /// The whole file in memory or mapped.
    Place(Pinned),
    /// A file that is read by positioned reads.
    File(Arc<dyn File>),
}

/// Facts about bytes that never change, each noted once: a bit goes from 0 to 1 and guards nothing that was
/// written, so relaxed order is enough. Two threads may do the same check twice.
#[derive(Debug)]
pub(crate) struct Bits(Box<[AtomicU64]>);

impl Bits {
    /// `count` bits, all 0.
    pub(crate) fn new(count: usize) -> Self {
        Self((0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| word.load(Ordering::Relaxed) >> (index % 64) & 1 == 1)
    }

    pub(crate) fn set(&self, index: usize) {
        if let Some(word) = self.0.get(index / 64) {
            word.fetch_or(1 << (index % 64), Ordering::Relaxed);
        }
    }

    /// Whether there is none.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are 1.
    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }

    /// The places of those that are 1, ascending.
    pub(crate) fn ones(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(index, word)| {
            let word = word.load(Ordering::Relaxed);
            let bits = std::iter::successors(Some(word), |left| Some(left & left.wrapping_sub(1)));
            let bits = bits.take_while(|left| *left != 0);
            bits.map(move |left| index * 64 + left.trailing_zeros() as usize)
        })
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        size_of_val(&*self.0)
    }
}

impl Source {
    /// Bytes of the file.
    pub(crate) fn len(&self) -> Result<u64> {
        match self {
            Self::Place(whole) => Ok(whole.len() as u64),
            Self::File(file) => Ok(file.len()?),
        }
    }

    /// A part of the file, which the caller has found to lie within it.
    pub(crate) fn read(&self, offset: u64, len: usize) -> Result<Pinned> {
        match self {
            Self::Place(whole) => {
                let start = usize_of(offset);
                let inside = start.checked_add(len).is_some_and(|end| end <= whole.len());
                if inside {
                    Ok(whole.slice(start..start + len))
                } else {
                    Err(Corruption::new("table length", offset, len as u64, whole.len() as u64).into())
                }
            }
            Self::File(file) => {
                let mut bytes = vec![0; len];
                file.read_exact_at(&mut bytes, offset).map_err(|error| short_read(error, offset, len))?;
                Ok(Pinned::new(Arc::new(bytes), |bytes| bytes))
            }
        }
    }
}

/// A file that ends before its own length is damaged, not unreadable.
fn short_read(error: std::io::Error, offset: u64, len: usize) -> Error {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        return Corruption::new("table length", offset, len as u64, 0).into();
    }
    error.into()
}

/// An offset or length within a file that is in memory, or a number of things in it; beyond memory it finds
/// nothing.
#[inline]
pub(crate) fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_that_are_set_are_told() {
        let bits = Bits::new(200);
        let set = [0, 1, 63, 64, 130, 191];
        set.iter().for_each(|at| bits.set(*at));
        assert_eq!(bits.ones().collect::<Vec<_>>(), set);
        assert_eq!((bits.count(), bits.get(130), bits.get(131)), (6, true, false));
    }
}

//! Memory that may go to and from a device past the page cache: it begins and ends at a multiple of [`DIRECT_ALIGN`].
//!
//! Threading: plain memory.

use std::io;

use memmap2::MmapMut;

/// What the offset, the length and the memory of a transfer past the page cache are multiples of: the page of the
/// systems that there are, and more than the sector of any device.
pub const DIRECT_ALIGN: usize = 4096;

/// Bytes of a huge page.
#[cfg(target_os = "linux")]
const HUGE: usize = 2 << 20;

/// A buffer of fixed length at an aligned address, in huge pages where it is long enough: the kernel looks at each page
/// of a transfer.
#[derive(Debug)]
pub struct DirectBuffer {
    memory: MmapMut,
}

impl DirectBuffer {
    /// `len` zeros, rounded up to a multiple of [`DIRECT_ALIGN`]. Errors: the system's, when it has no memory.
    pub fn new(len: usize) -> io::Result<Self> {
        let memory = MmapMut::map_anon(len.next_multiple_of(DIRECT_ALIGN).max(DIRECT_ALIGN))?;
        #[cfg(target_os = "linux")]
        if memory.len().is_multiple_of(HUGE) {
            // A hint.
            memory.advise(memmap2::Advice::HugePage).ok();
        }
        Ok(Self { memory })
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.memory
    }

    /// The bytes, to be written to.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }
}

/// Whether such a transfer may go past the cache.
pub(crate) fn is_aligned(bytes: &[u8], offset: u64) -> bool {
    let whole = |number: usize| number.is_multiple_of(DIRECT_ALIGN);
    whole(bytes.as_ptr().addr()) && whole(bytes.len()) && offset.is_multiple_of(DIRECT_ALIGN as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_and_whole() {
        for len in [1, 4095, 4096, 4097, 1 << 20] {
            let mut buffer = DirectBuffer::new(len).unwrap();
            assert_eq!(buffer.bytes().len(), len.next_multiple_of(DIRECT_ALIGN));
            assert!(is_aligned(buffer.bytes(), 8192));
            assert!(!is_aligned(buffer.bytes(), 512));
            assert!(!is_aligned(&buffer.bytes()[1..], 0));
            buffer.bytes_mut().fill(7);
        }
    }
}

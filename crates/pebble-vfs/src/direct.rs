//! Memory that may go to and from a device past the page cache: it begins and ends at a multiple of [`DIRECT_ALIGN`].
//!
//! Threading: plain memory.

/// What the offset, the length and the memory of a transfer past the page cache are multiples of: the page of the
/// systems that there are, and more than the sector of any device.
pub const DIRECT_ALIGN: usize = 4096;

/// A buffer of fixed length at an aligned address.
#[derive(Debug)]
pub struct DirectBuffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl DirectBuffer {
    /// `len` zeros, rounded up to a multiple of [`DIRECT_ALIGN`].
    pub fn new(len: usize) -> Self {
        let len = len.next_multiple_of(DIRECT_ALIGN);
        let memory = vec![0; len + DIRECT_ALIGN];
        // Where the address cannot be told, the buffer is one like any other, and transfers go through the cache.
        let start = memory.as_ptr().align_offset(DIRECT_ALIGN).min(DIRECT_ALIGN);
        Self { memory, start, len }
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..self.start + self.len).unwrap_or_default()
    }

    /// The bytes, to be written to.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start..self.start + self.len).unwrap_or_default()
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
            let mut buffer = DirectBuffer::new(len);
            assert_eq!(buffer.bytes().len(), len.next_multiple_of(DIRECT_ALIGN));
            assert!(is_aligned(buffer.bytes(), 8192));
            assert!(!is_aligned(buffer.bytes(), 512));
            assert!(!is_aligned(&buffer.bytes()[1..], 0));
            buffer.bytes_mut().fill(7);
        }
    }
}

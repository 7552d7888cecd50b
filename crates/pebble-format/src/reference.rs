//! A reference: where the value of a record lies, if not in the record itself.
//!
//! ```text
//!   table 12    … [k7 #40 reference ─┐] …            a short record moves with every merge,
//!                                    │
//!   table 9     … [k7 #40 put, 16 KiB of value] …    the value stays where it was written: docs/design/values.md
//! ```
//!
//! The table that is referred to holds the whole record, of the same key and number, so it can be told from any other.
//!
//! Threading: plain data.

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::Corruption;
use crate::limits::{RECORD_ALIGN, VALUE_LEN_MAX};

/// The value of a record of kind [`Reference`](crate::Kind::Reference).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Reference {
    /// The number of the table that holds the record with the value.
    pub table: U64,
    /// Where its block begins in that file, in units of [`RECORD_ALIGN`]; it is the block's only record.
    pub place: U32,
    /// Bytes of the value; not 0.
    pub value_len: U32,
}

/// Bytes of a [`Reference`].
pub const REFERENCE_LEN: usize = size_of::<Reference>();

impl Reference {
    /// The reference that is the value of a record. Errors: [`Corruption`] with an offset relative to the value.
    pub fn read(value: &[u8]) -> Result<&Self, Corruption> {
        let Ok(found) = Self::ref_from_bytes(value) else {
            return Err(Corruption::new(
                "length of a reference",
                0,
                REFERENCE_LEN as u64,
                value.len() as u64,
            ));
        };
        let len = found.value_len.get();
        if len == 0 || len as usize > VALUE_LEN_MAX {
            return Err(Corruption::new("value length of a reference", 12, VALUE_LEN_MAX as u64, len.into()));
        }
        Ok(found)
    }

    /// A reference to the record in the block that begins at `offset`; `None` where that is not aligned, beyond 16 GiB,
    /// or the value too long.
    pub fn new(table: u64, offset: u64, value_len: usize) -> Option<Self> {
        let aligned = offset.is_multiple_of(RECORD_ALIGN as u64) && value_len <= VALUE_LEN_MAX;
        let place = u32::try_from(offset / RECORD_ALIGN as u64).ok().filter(|_| aligned)?;
        Some(Self {
            table: table.into(),
            place: place.into(),
            value_len: u32::try_from(value_len).ok()?.into(),
        })
    }

    /// Where its block begins in that file.
    #[inline]
    pub fn offset(&self) -> u64 {
        u64::from(self.place.get()) * RECORD_ALIGN as u64
    }

    /// The bytes of a record's value.
    pub fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_read_back_and_nothing_else_is_one() {
        let made = Reference::new(7, 36, 4096).unwrap();
        assert_eq!((made.place.get(), made.offset()), (9, 36));
        let most = u64::from(u32::MAX) * 4;
        assert_eq!(Reference::new(7, most, 1).unwrap().offset(), most);
        for (offset, len) in [(35, 1), (most + 4, 1), (0, VALUE_LEN_MAX + 1)] {
            assert_eq!(Reference::new(7, offset, len), None);
        }
        assert_eq!(Reference::read(made.bytes()).unwrap(), &made);
        for len in (0..REFERENCE_LEN).chain([REFERENCE_LEN + 1]) {
            assert_eq!(Reference::read(&vec![1; len]).unwrap_err().what, "length of a reference");
        }
        for len in [0, u32::MAX] {
            let bad = Reference { value_len: len.into(), ..made };
            assert_eq!(Reference::read(bad.bytes()).unwrap_err().what, "value length of a reference");
        }
    }
}

//! The blocks of a table, for tools: where they lie and how they are stored.
//!
//! Threading: plain data.

use pebble_format::table::Codec;

use crate::table::Table;

/// One data block, for tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockFacts {
    /// Its number, from 0.
    pub number: u32,
    /// Where it starts in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub stored_len: u64,
    /// Bytes uncompressed.
    pub raw_len: u64,
    /// Records.
    pub count: u16,
    /// How it is stored.
    pub codec: Codec,
    /// CRC-32C of what is stored.
    pub crc: u32,
}

impl Table {
    /// The data blocks in order.
    pub fn blocks(&self) -> impl Iterator<Item = BlockFacts> + '_ {
        (0..self.info().blocks).filter_map(|number| {
            let place = self.meta().block(number).ok()?;
            Some(BlockFacts {
                number,
                offset: place.offset,
                stored_len: place.stored_len as u64,
                raw_len: place.raw_len as u64,
                count: place.count,
                codec: place.codec,
                crc: place.crc,
            })
        })
    }
}

//! What goes through the pipes between the demo and the process that it kills.
//!
//! ```text
//!   demo ── stdin ──►  number u32, items u32, then for each item key_len u32, value_len u32, key, value
//!   demo ◄─ stdout ──  number of a batch that was acknowledged, LF: one write, so never half of a number
//! ```
//!
//! Integers are little-endian.

use std::io::{self, Read, Write};

use super::corpus::Item;

/// A batch as it arrives.
pub struct Batch {
    /// Its number.
    pub number: u32,
    /// Keys and contents.
    pub records: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Sends one batch.
pub fn send(out: &mut impl Write, number: u32, items: &[Item]) -> io::Result<()> {
    let word = |n: usize| u32::try_from(n).map(u32::to_le_bytes).map_err(io::Error::other);
    out.write_all(&number.to_le_bytes())?;
    out.write_all(&word(items.len())?)?;
    for item in items {
        out.write_all(&word(item.key.len())?)?;
        out.write_all(&word(item.value.len())?)?;
        out.write_all(&item.key)?;
        out.write_all(&item.value)?;
    }
    out.flush()
}

/// Receives one batch; an error at the end.
pub fn receive(input: &mut impl Read) -> io::Result<Batch> {
    let number = word(input)?;
    let count = word(input)?;
    let record = |_| {
        let (key, value) = (word(input)?, word(input)?);
        Ok((bytes(input, key)?, bytes(input, value)?))
    };
    Ok(Batch { number, records: (0..count).map(record).collect::<io::Result<_>>()? })
}

fn word(input: &mut impl Read) -> io::Result<u32> {
    let mut word = [0; 4];
    input.read_exact(&mut word)?;
    Ok(u32::from_le_bytes(word))
}

fn bytes(input: &mut impl Read, len: u32) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match input.take(u64::from(len)).read_to_end(&mut bytes)? as u64 == u64::from(len) {
        true => Ok(bytes),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

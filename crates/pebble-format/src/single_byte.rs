//! Which one byte, were it another, would make a checksum right.
//!
//! ```text
//!   crc(a) ^ crc(b) depends on a ^ b alone: for one differing byte, on its difference and its distance from the end
//!   so: syndrome ─ one byte back ─► … ─ one byte back ─►    a row of the byte table? then this byte, by that much
//! ```
//!
//! This is for naming what damage may have hit, and for the few bytes of metadata that other checksums vouch for once
//! they are put right. It is no licence to serve what it finds: for damage of more than one byte it names, by chance,
//! a wrong place in about one of 2³² / (255 × length) cases.
//!
//! Threading: plain functions.

use crate::checksum::crc32c;

/// One byte that may have been changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SingleByte {
    /// Where it is in the bytes that the checksum covers.
    pub at: usize,
    /// What it is to be xored with.
    pub delta: u8,
}

/// Every way to make `len` bytes, whose checksum is `got`, have the checksum `expected` by changing one of them.
/// Usually none or one. Cost: about 2 ns a byte.
pub fn single_byte_errors(len: usize, expected: u32, got: u32) -> Vec<SingleByte> {
    let mut rows = [(0_u32, 0_u8); 256];
    for index in 0..=u8::MAX {
        let row = row(index);
        // The upper bytes of the rows are all different.
        if let Some(slot) = rows.get_mut(usize::from(row.to_be_bytes()[0])) {
            *slot = (row, index);
        }
    }
    let mut found = Vec::new();
    let mut syndrome = expected ^ got;
    if syndrome == 0 {
        return found;
    }
    for at in (0..len).rev() {
        let Some((row, index)) = rows.get(usize::from(syndrome.to_be_bytes()[0])) else { break };
        let rest = syndrome ^ row;
        if rest == 0 {
            found.push(SingleByte { at, delta: *index });
        }
        syndrome = rest << 8 | u32::from(*index);
    }
    found
}

/// What a byte that differs by `index`, at the very end, changes in the checksum.
fn row(index: u8) -> u32 {
    crc32c(0, &[index]) ^ crc32c(0, &[0])
}

/// Whether two checksums differ in one byte, so that it may be the stored one that is damaged.
pub fn differ_in_one_byte(a: u32, b: u32) -> bool {
    (a ^ b).to_le_bytes().iter().filter(|byte| **byte != 0).count() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_byte_is_found() {
        for len in [1_usize, 2, 5, 64, 300, 5_000] {
            let bytes: Vec<u8> = (0..len).map(|n| (n * 31 % 251) as u8).collect();
            let expected = crc32c(7, &bytes);
            for at in (0..len).step_by(1 + len / 60) {
                for delta in [1, 0x80, 0x5a, 0xff] {
                    let mut damaged = bytes.clone();
                    damaged[at] ^= delta;
                    let found = single_byte_errors(len, expected, crc32c(7, &damaged));
                    assert!(found.contains(&SingleByte { at, delta }), "{delta:#x} at {at} of {len}");
                    for other in &found {
                        let mut healed = damaged.clone();
                        healed[other.at] ^= other.delta;
                        assert_eq!(crc32c(7, &healed), expected);
                    }
                }
            }
        }
    }

    #[test]
    fn right_bytes_need_no_change() {
        assert_eq!(single_byte_errors(10, 5, 5), []);
        assert!(differ_in_one_byte(0x0100, 0x0300));
        assert!(!differ_in_one_byte(0x0101, 0x0300) && !differ_in_one_byte(1, 1));
    }
}

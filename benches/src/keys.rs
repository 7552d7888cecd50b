//! Keys that look random, the same in every run.

/// splitmix64: a bijection, so distinct counters make distinct keys.
pub fn mix(n: u64) -> u64 {
    let n = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// Sixteen bytes that differ in the first eight, so that those alone tell where a key lies.
pub fn spread_key(n: u64) -> [u8; 16] {
    let mut key = *b"........12345678";
    key[..8].copy_from_slice(&mix(n).to_be_bytes());
    key
}

/// Sixteen bytes that look random throughout.
pub fn random_key(n: u64) -> [u8; 16] {
    (u128::from(mix(n)) << 64 | u128::from(mix(!n))).to_be_bytes()
}

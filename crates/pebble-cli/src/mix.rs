//! Numbers that look random and are the same every time, and a hash that is the same everywhere.

/// A bijection that scatters its argument over all of `u64`: the finalizer of SplitMix64 (Steele, Lea, Flood 2014).
pub fn scatter(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The inverse of [`scatter`]: the shifts undone by repeating them, the products by the inverses of their factors.
pub fn gather(n: u64) -> u64 {
    let z = n ^ (n >> 31) ^ (n >> 62);
    let z = z.wrapping_mul(0x3196_42b2_d24d_8ec3);
    let z = z ^ (z >> 27) ^ (z >> 54);
    let z = z.wrapping_mul(0x96de_1b17_3f11_9089);
    let z = z ^ (z >> 30) ^ (z >> 60);
    z.wrapping_sub(0x9e37_79b9_7f4a_7c15)
}

/// SplitMix64: a sequence from a seed.
#[derive(Clone, Debug)]
pub struct Sequence(u64);

impl Sequence {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number below `end`, which is not zero. The bias is below `end / 2^64`.
    pub fn below(&mut self, end: u64) -> u64 {
        let next = scatter(self.0);
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let scaled = (u128::from(next) * u128::from(end)) >> 64;
        u64::try_from(scaled).unwrap_or(0)
    }
}

/// FNV-1a with 64 bits (Fowler, Noll, Vo): enough to tell files apart that nobody made collide.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        assert_eq!(scatter(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
        for n in [0, 1, 42, u64::MAX, 0x0123_4567_89ab_cdef] {
            assert_eq!(gather(scatter(n)), n);
        }
        let mut sequence = Sequence::new(7);
        assert!((0..1_000).all(|_| sequence.below(10) < 10));
    }
}

//! Counts of durations, in buckets narrower than one percent.
//!
//! ```text
//!   nanoseconds   0 .. 255    256 .. 511    512 .. 1023   ...
//!   buckets       256 of 1    128 of 2      128 of 4      ...
//! ```

/// Buckets per power of two.
const STEPS: usize = 128;

/// A histogram of nanoseconds.
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Histogram {
    /// An empty one.
    pub fn new() -> Self {
        Self { counts: vec![0; bucket(u64::MAX) + 1], total: 0, max: 0 }
    }

    /// Counts one duration.
    pub fn add(&mut self, nanos: u64) {
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
        self.max = self.max.max(nanos);
    }

    /// The longest, exactly.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The duration that `part` (0 to 1) of all do not exceed, at most one percent too long; 0 of none.
    pub fn quantile(&self, part: f64) -> u64 {
        let rank = ((self.total as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return last_of(index).min(self.max);
            }
        }
        self.max
    }
}

fn bucket(nanos: u64) -> usize {
    let power = (64 - nanos.leading_zeros() as usize).saturating_sub(8);
    // Below 256 after the shift.
    power * STEPS + (nanos >> power) as usize
}

/// The longest duration in a bucket.
fn last_of(bucket: usize) -> u64 {
    let power = (bucket / STEPS).saturating_sub(1);
    let first = (bucket - power * STEPS) as u64;
    // The last bucket ends where a u64 does.
    ((u128::from(first + 1) << power) - 1).try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::mix;

    #[test]
    fn buckets_are_narrow_and_in_order() {
        let numbers = (0..64).flat_map(|shift| (0..1000).map(move |i| mix(i) >> shift));
        for nanos in numbers.chain([0, 127, 128, 255, 256, 511, 512, u64::MAX]) {
            let last = last_of(bucket(nanos));
            assert!(last >= nanos && last - nanos <= nanos / STEPS as u64, "{nanos} {last}");
            assert_eq!(bucket(last), bucket(nanos));
            assert!(last == u64::MAX || bucket(last + 1) == bucket(nanos) + 1, "{nanos}");
        }
    }

    #[test]
    fn quantiles_agree_with_a_sorted_list() {
        let mut list: Vec<u64> = (0..10_001).map(|i| mix(i) >> (20 + i % 40)).collect();
        let mut histogram = Histogram::new();
        list.iter().for_each(|nanos| histogram.add(*nanos));
        list.sort_unstable();
        for part in [0.0, 0.01, 0.5, 0.99, 0.999, 1.0] {
            let rank = ((list.len() as f64 * part).ceil() as usize).max(1);
            let (exact, found) = (list[rank - 1], histogram.quantile(part));
            assert!(found >= exact && found - exact <= exact / 100, "{part}: {exact} {found}");
        }
        assert_eq!(histogram.max(), list[list.len() - 1]);
        assert_eq!(Histogram::new().quantile(0.5), 0);
    }
}

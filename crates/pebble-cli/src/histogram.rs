//! Latencies, counted in buckets whose width grows with the value: any percentile within about three per cent, in
//! 15 KiB, after the idea of HdrHistogram.
//!
//! Threading: each thread records into its own; they are added up at the end.

use std::time::Duration;

/// Buckets for each power of two.
const STEPS: u64 = 1 << STEP_BITS;
const STEP_BITS: u32 = 5;
/// Values below [`STEPS`] have a bucket each; then [`STEPS`] for each further bit of a `u64`.
const BUCKETS: usize = (STEPS as usize) * (64 - STEP_BITS as usize + 1);

/// Counts of nanoseconds.
#[derive(Clone)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    /// Nothing recorded.
    pub fn new() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, max: 0 }
    }

    /// Counts one value.
    #[inline]
    pub fn record(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get_mut(bucket(nanos)) {
            *bucket += 1;
        }
        self.count += 1;
        self.max = self.max.max(nanos);
    }

    /// Adds the counts of another.
    pub fn add(&mut self, other: &Histogram) {
        for (own, others) in self.buckets.iter_mut().zip(&other.buckets) {
            *own += others;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// A value that is not below `share` (0 to 1) of all, and above it by at most a bucket's width. Zero when empty.
    pub fn quantile(&self, share: f64) -> Duration {
        let wanted = (share * self.count as f64).ceil().max(1.0);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen as f64 >= wanted {
                return Duration::from_nanos(last_of(index).min(self.max));
            }
        }
        Duration::from_nanos(self.max)
    }

    /// How many values were recorded.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The largest value.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }
}

#[inline]
fn bucket(nanos: u64) -> usize {
    let exponent = (u64::BITS - nanos.leading_zeros()).saturating_sub(STEP_BITS + 1);
    let index = u64::from(exponent) * STEPS + (nanos >> exponent);
    usize::try_from(index).unwrap_or(BUCKETS - 1)
}

/// The largest value of a bucket.
fn last_of(index: usize) -> u64 {
    let index = index as u64;
    let exponent = (index / STEPS).saturating_sub(1);
    let first = index - exponent * STEPS;
    ((first + 1) << exponent).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_without_gap_or_overlap() {
        let mut next = 0;
        for index in 0..BUCKETS {
            let last = last_of(index);
            assert_eq!((bucket(next), bucket(last)), (index, index));
            assert!(last - next <= next / STEPS);
            next = last.wrapping_add(1);
        }
        assert_eq!(next, 0, "the last bucket ends with the largest u64");
    }

    #[test]
    fn quantiles_are_within_a_bucket() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile(0.5), Duration::ZERO);
        let mut other = Histogram::new();
        for n in 1..=10_000_u64 {
            let half = if n % 2 == 0 { &mut histogram } else { &mut other };
            half.record(Duration::from_nanos(n * 100));
        }
        histogram.add(&other);
        for share in [0.001, 0.5, 0.99, 0.999] {
            let (exact, got) = (share * 1e6, histogram.quantile(share).as_nanos() as f64);
            assert!(got >= exact && got <= exact * 1.04, "{share}: {got} for {exact}");
        }
        assert_eq!(histogram.quantile(1.0), Duration::from_nanos(1_000_000));
        assert_eq!(histogram.max(), Duration::from_nanos(1_000_000));
    }
}

//! Time, as something that a test can hold in its hand.
//!
//! Only durations since a start: no wall clock, so a clock that jumps by years changes nothing.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::sync::thread;

/// A monotonic clock.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Time since the clock's start; never less than an earlier answer to any thread.
    fn now(&self) -> Duration;

    /// Returns when at least `duration` has passed.
    fn sleep(&self, duration: Duration);
}

/// The system's monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock that starts now.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        thread::sleep(duration);
    }
}

/// A clock that moves only when told to: by [`ManualClock::advance`], or by a sleeper, who moves it to the
/// end of its sleep and goes on at once. So nothing that sleeps can hang, and a test takes no time.
///
/// Nanoseconds in 64 bits: it stands still after 584 years.
#[derive(Debug, Default)]
pub struct ManualClock {
    nanos: AtomicU64,
}

impl ManualClock {
    /// A clock at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock on.
    pub fn advance(&self, duration: Duration) {
        let step = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        // The closure always has a next value, so the update cannot fail.
        _ = self.nanos.fetch_update(SeqCst, SeqCst, |nanos| Some(nanos.saturating_add(step)));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(SeqCst))
    }

    fn sleep(&self, duration: Duration) {
        self.advance(duration);
        thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_clock_moves_when_told() {
        let clock = ManualClock::new();
        assert_eq!(clock.now(), Duration::ZERO);
        clock.advance(Duration::from_secs(2));
        clock.sleep(Duration::from_millis(500));
        assert_eq!(clock.now(), Duration::from_millis(2500));
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn the_system_clock_never_goes_back() {
        let clock = SystemClock::new();
        let before = clock.now();
        clock.sleep(Duration::from_nanos(1));
        assert!(clock.now() > before);
    }
}

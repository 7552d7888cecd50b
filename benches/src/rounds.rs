//! Interleaved rounds: every contestant runs once per round, so that a busy minute of the machine hits all of
//! them.

use std::time::{Duration, Instant};

/// Something to time: a name, and work that says how many operations it did.
pub struct Contestant<'a> {
    /// Printed name.
    pub name: &'a str,
    /// Does the work once and returns the number of operations.
    pub run: Box<dyn FnMut() -> u64 + 'a>,
}

impl<'a> Contestant<'a> {
    /// A contestant.
    pub fn new(name: &'a str, run: impl FnMut() -> u64 + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }
}

/// Nanoseconds per operation over all rounds.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Half of the rounds were faster.
    pub median: f64,
    /// The fastest round.
    pub min: f64,
    /// The slowest round.
    pub max: f64,
}

impl Figure {
    /// Of measured rounds; there must be one.
    pub fn of(mut rounds: Vec<f64>) -> Self {
        rounds.sort_by(f64::total_cmp);
        let at = |index: usize| rounds.get(index).copied().unwrap_or(f64::NAN);
        Self { median: at(rounds.len() / 2), min: at(0), max: at(rounds.len().saturating_sub(1)) }
    }
}

/// Runs `rounds` rounds and one before them that is not counted. Prints a line for each contestant: median,
/// spread, and the median (and spread) of its ratio to the first contestant within the same round.
pub fn interleaved(title: &str, rounds: usize, contestants: &mut [Contestant<'_>]) -> Vec<Figure> {
    let begun = Instant::now();
    interleaved_by(&|| begun.elapsed(), title, rounds, contestants)
}

/// As [`interleaved`], in processor time of the calling thread, which does not run while others have the core: for work
/// that waits for nothing, on a machine that others use. Wall time where there is no such clock.
pub fn interleaved_on_cpu(title: &str, rounds: usize, contestants: &mut [Contestant<'_>]) -> Vec<Figure> {
    if on_cpu().is_none() {
        return interleaved(title, rounds, contestants);
    }
    interleaved_by(&|| on_cpu().unwrap_or_default(), &format!("{title}, processor time"), rounds, contestants)
}

/// How long the calling thread was on a processor so far. Linux only.
fn on_cpu() -> Option<Duration> {
    // Giving way for a moment makes the scheduler bring its account up to now; else it is of the last tick.
    std::thread::yield_now();
    let account = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    account.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

fn interleaved_by(
    clock: &dyn Fn() -> Duration,
    title: &str,
    rounds: usize,
    contestants: &mut [Contestant<'_>],
) -> Vec<Figure> {
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); contestants.len()];
    for round in 0..=rounds {
        for (contestant, times) in contestants.iter_mut().zip(&mut times) {
            let start = clock();
            let operations = (contestant.run)().max(1);
            if round > 0 {
                times.push(clock().saturating_sub(start).as_secs_f64() * 1e9 / operations as f64);
            }
        }
    }
    println!("{title}: ns per operation, median of {rounds} interleaved rounds");
    let base = times.first().cloned().unwrap_or_default();
    let mut figures = Vec::new();
    for (contestant, times) in contestants.iter().zip(times) {
        let ratio = Figure::of(times.iter().zip(&base).map(|(own, base)| own / base).collect());
        let figure = Figure::of(times);
        println!(
            "  {:<34} {:8.1}  [{:.1} .. {:.1}]   ratio {:5.2}  [{:.2} .. {:.2}]",
            contestant.name, figure.median, figure.min, figure.max, ratio.median, ratio.min, ratio.max
        );
        figures.push(figure);
    }
    figures
}

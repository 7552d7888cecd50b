//! Interleaved rounds: every contestant runs once per round, so that a busy minute of the machine hits all of
//! them.

use std::time::Instant;

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
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); contestants.len()];
    for round in 0..=rounds {
        for (contestant, times) in contestants.iter_mut().zip(&mut times) {
            let start = Instant::now();
            let operations = (contestant.run)().max(1);
            if round > 0 {
                times.push(start.elapsed().as_secs_f64() * 1e9 / operations as f64);
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

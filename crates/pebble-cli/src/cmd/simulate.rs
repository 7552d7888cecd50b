//! `pebble simulate`: what policies of compaction cost, told before a byte is written.

use clap::Args;
use pebble_compaction::Policy;
use pebble_compaction::simulate::{Comparison, Keys, Report, Step, Workload, compare};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::human;
use crate::output::Output;

/// Drive the planner with a described workload, and print what policies cost, side by side
///
/// The real planner decides; only records are missing, so a petabyte takes seconds. Write amplification counts flushes
/// and merges for each byte written, space the bytes of the tree for each live byte, runs what a lookup has to probe.
#[derive(Args)]
pub struct Simulate {
    /// Bytes of all keys with one value each: 2GiB, 1TiB, 1PiB
    #[arg(long, value_name = "BYTES", default_value = "2GiB", value_parser = size)]
    live: u64,
    /// Bytes that are written [default: ten times as many]
    #[arg(long, value_name = "BYTES", value_parser = size)]
    total: Option<u64>,
    /// Bytes of one flush
    #[arg(long, value_name = "BYTES", default_value = "64MiB", value_parser = size)]
    flush: u64,
    /// Bytes of a record
    #[arg(long, value_name = "BYTES", default_value = "144", value_parser = size)]
    record: u64,
    /// Which keys are written: uniform, rising, or hot:KEYS:WRITES, a percentage of the keys with one of the writes
    #[arg(long, default_value = "uniform", value_parser = keys)]
    keys: Keys,
    /// Deletes among the writes, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=100))]
    deletes: u32,
    /// Begin with an empty tree, and not with all keys loaded
    #[arg(long)]
    empty: bool,
    /// A policy: lazy, leveled, or tiered:RUNS; may be given several times [default: lazy, leveled and tiered:8]
    #[arg(long = "policy", value_name = "POLICY", value_parser = policy)]
    policies: Vec<(String, Policy)>,
    /// Print the shape of each tree step by step, so many steps
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Print the figures, and the steps if asked for, as an object a policy
    #[arg(long)]
    json: bool,
}

/// A size with a unit up to EiB: [`human::parse_bytes`] knows those of a disk.
fn size(text: &str) -> std::result::Result<u64, String> {
    for (unit, shift) in [("EiB", 60), ("PiB", 50), ("TiB", 40)] {
        if let Some(number) = text.strip_suffix(unit) {
            let number: u64 = number.trim().parse().map_err(|_| format!("{text:?} is no size"))?;
            return number.checked_mul(1 << shift).ok_or_else(|| format!("{text} is too large"));
        }
    }
    human::parse_bytes(text)
}

fn keys(text: &str) -> std::result::Result<Keys, String> {
    let percent = |text: &str| text.parse::<u32>().ok().filter(|percent| (1..=100).contains(percent));
    match text.split(':').collect::<Vec<_>>().as_slice() {
        ["uniform"] => Ok(Keys::Uniform),
        ["rising"] => Ok(Keys::Rising),
        ["hot", keys, writes] => match (percent(keys), percent(writes)) {
            (Some(keys_percent), Some(writes_percent)) => Ok(Keys::Hot { keys_percent, writes_percent }),
            _ => Err("percentages go from 1 to 100".into()),
        },
        _ => Err("uniform, rising, or hot:KEYS:WRITES".into()),
    }
}

fn policy(text: &str) -> std::result::Result<(String, Policy), String> {
    let policy = match text.split_once(':') {
        None if text == "lazy" => Policy::lazy(),
        None if text == "leveled" => Policy::leveled(),
        Some(("tiered", runs)) => match runs.parse() {
            Ok(runs @ 2..=64) => Policy::tiered(runs),
            _ => return Err("a tiered policy has 2 to 64 runs a level".into()),
        },
        _ => return Err("lazy, leveled, or tiered:RUNS".into()),
    };
    Ok((text.into(), policy))
}

#[derive(Serialize)]
struct Figures<'a> {
    policy: &'a str,
    write_amplification: f64,
    space_amplification_max: f64,
    space_amplification_at_rest: f64,
    runs_mean: f64,
    runs_max: usize,
    merges: u64,
    moves: u64,
    largest_merge_bytes: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    steps: Vec<StepFigures>,
}

#[derive(Serialize)]
struct StepFigures {
    written_bytes: u64,
    write_amplification: f64,
    space_amplification: f64,
    runs_mean: f64,
    runs_max: usize,
    levels: Vec<LevelFigures>,
}

#[derive(Serialize)]
struct LevelFigures {
    level: usize,
    runs: usize,
    bytes: u64,
}

impl Simulate {
    pub fn run(&self) -> Result<()> {
        if self.live == 0 || self.record == 0 || self.flush == 0 {
            return Err(Failure::Usage("sizes must not be 0".into()));
        }
        let workload = Workload {
            total_bytes: self.total.unwrap_or(self.live.saturating_mul(10)),
            flush_bytes: self.flush,
            record_bytes: self.record,
            keys: self.keys,
            delete_percent: self.deletes,
            loaded: !self.empty,
            ..Workload::overwrites(self.live)
        };
        let known = ["lazy", "leveled", "tiered:8"].map(policy);
        let policies = match self.policies.as_slice() {
            [] => known.into_iter().flatten().collect(),
            chosen => chosen.to_vec(),
        };
        let named: Vec<(&str, Policy)> = policies.iter().map(|(name, policy)| (&**name, *policy)).collect();
        let comparison = compare(&workload, &named);
        let mut output = Output::new();
        if self.json {
            for (name, report) in &comparison.reports {
                output.json(&self.figures(name, report))?;
            }
        } else {
            self.print(&mut output, &comparison)?;
        }
        output.flush()
    }

    fn print(&self, output: &mut Output, comparison: &Comparison) -> Result<()> {
        if self.steps.is_some() {
            for (name, report) in &comparison.reports {
                output.line(format!("{name}: written, then runs and bytes by level; write, space, runs"))?;
                for step in self.steps_of(report) {
                    output.line(format!("  {}", text(step)))?;
                }
            }
        }
        output.line(comparison.to_string().trim_end())
    }

    /// The steps to be shown, evenly chosen, the last one among them.
    fn steps_of<'a>(&self, report: &'a Report) -> impl Iterator<Item = &'a Step> {
        let (wanted, have) = (self.steps.unwrap_or_default(), report.steps.len());
        (1..=wanted.min(have)).filter_map(move |n| report.steps.get(n * have / wanted.min(have) - 1))
    }

    fn figures<'a>(&self, policy: &'a str, report: &Report) -> Figures<'a> {
        Figures {
            policy,
            write_amplification: report.write_amp,
            space_amplification_max: report.space_max,
            space_amplification_at_rest: report.rested.space,
            runs_mean: report.runs_mean,
            runs_max: report.runs_max,
            merges: report.merges,
            moves: report.moves,
            largest_merge_bytes: report.merge_bytes_max,
            steps: self.steps_of(report).map(StepFigures::new).collect(),
        }
    }
}

impl StepFigures {
    fn new(step: &Step) -> Self {
        let levels = step.shape.levels.iter().enumerate().filter(|(_, level)| level.runs > 0);
        Self {
            written_bytes: step.written_bytes,
            write_amplification: step.write_amp,
            space_amplification: step.shape.space,
            runs_mean: step.shape.runs_mean,
            runs_max: step.shape.runs_max,
            levels: levels
                .map(|(number, level)| LevelFigures { level: number, runs: level.runs, bytes: level.bytes })
                .collect(),
        }
    }
}

fn text(step: &Step) -> String {
    let levels = step.shape.levels.iter().enumerate().filter(|(_, level)| level.runs > 0);
    let levels: Vec<_> = levels
        .map(|(number, level)| format!("L{number} {} x {}", level.runs, human::bytes(level.bytes)))
        .collect();
    format!(
        "{:>10}   {:<60} {:5.2} {:5.2} {:5.1}",
        human::bytes(step.written_bytes),
        levels.join("  "),
        step.write_amp,
        step.shape.space,
        step.shape.runs_mean
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_workload_is_refused() {
        assert_eq!(size("3TiB"), Ok(3 << 40));
        assert!(size("99999999EiB").is_err() && size("xTiB").is_err());
        assert!(keys("hot:5:90").is_ok() && keys("hot:0:90").is_err() && keys("zipf").is_err());
        assert!(policy("tiered:4").is_ok() && policy("tiered:1").is_err() && policy("bold").is_err());
    }
}

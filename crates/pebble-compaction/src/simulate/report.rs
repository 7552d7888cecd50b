//! What a simulation says.
//!
//! Threading: plain data.

use std::fmt;

use pebble_format::manifest::LEVEL_COUNT;

use super::Workload;

/// What a workload cost under a policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Bytes that the tree wrote, flushes included and the log not, for each byte that was written to it.
    pub write_amp: f64,
    /// The most bytes of the tree at any moment, the output of a merge under way included, for each live byte.
    pub space_max: f64,
    /// Runs that may hold a key, over all keys and steps: what a lookup has to probe.
    pub runs_mean: f64,
    /// The most runs that may hold one key, at any step.
    pub runs_max: usize,
    /// The tree after all writes, when it has rested.
    pub rested: Shape,
    /// [`Report::write_amp`] with what the tree wrote while it came to rest.
    pub rested_write_amp: f64,
    /// Merges, and moves, each of any number of tables.
    pub merges: u64,
    /// See [`Report::merges`].
    pub moves: u64,
    /// The most bytes that one merge read.
    pub merge_bytes_max: u64,
    /// The most tables.
    pub tables_max: usize,
    /// The tree over time; at most some hundreds of steps of one length.
    pub steps: Vec<Step>,
    /// How the workload was scaled.
    pub scale: Scale,
}

/// The tree at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Step {
    /// Bytes written to it so far.
    pub written_bytes: u64,
    /// [`Report::write_amp`] so far.
    pub write_amp: f64,
    /// What it looks like.
    pub shape: Shape,
}

/// What a tree looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shape {
    /// By level.
    pub levels: [LevelShape; LEVEL_COUNT as usize],
    /// Bytes of the tree for each live byte.
    pub space: f64,
    /// Runs that may hold a key, over all keys.
    pub runs_mean: f64,
    /// The most runs that may hold one key.
    pub runs_max: usize,
}

/// What a level looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelShape {
    /// The most runs that may hold one key.
    pub runs: usize,
    /// Bytes of its tables.
    pub bytes: u64,
}

/// What was simulated in place of the workload itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scale {
    /// Bytes at which a table was ended.
    pub table_bytes: u64,
    /// Bytes of what arrived at the first level that was simulated.
    pub flush_bytes: u64,
    /// That level. Those above it only fill up and are emptied, in the same way however long it goes on.
    pub first_level: u8,
    /// How often they write each byte.
    pub elided_writes: f64,
    /// How many runs they hold on average.
    pub elided_runs: f64,
}

/// Policies side by side; its `Display` is a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// What was written.
    pub workload: Workload,
    /// Each policy's name, and what it cost.
    pub reports: Vec<(String, Report)>,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (live, total) = (Bytes(self.workload.live_bytes), Bytes(self.workload.total_bytes));
        let flush = Bytes(self.workload.flush_bytes);
        writeln!(f, "{total} written to {live}, {:?}, in flushes of {flush}", self.workload.keys)?;
        writeln!(
            f,
            "{:<14} write  space max  rested  runs mean  max  rested  largest merge  merges",
            "policy"
        )?;
        for (name, report) in &self.reports {
            let (rested, largest) = (&report.rested, Bytes(report.merge_bytes_max).to_string());
            writeln!(
                f,
                "{name:<14} {:>5.2}  {:>9.2}  {:>6.2}  {:>9.1}  {:>3}  {:>6.1}  {largest:>13}  {:>6}",
                report.write_amp,
                report.space_max,
                rested.space,
                report.runs_mean,
                report.runs_max,
                rested.runs_mean,
                report.merges,
            )?;
        }
        Ok(())
    }
}

/// Bytes for a reader: three digits and a unit.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let (mut value, mut unit) = (self.0 as f64, 0);
        while value >= 1024.0 && unit + 1 < units.len() {
            value /= 1024.0;
            unit += 1;
        }
        let digits = if value < 10.0 && unit > 0 { 1 } else { 0 };
        write!(f, "{value:.digits$} {}", units.get(unit).unwrap_or(&"B"))
    }
}

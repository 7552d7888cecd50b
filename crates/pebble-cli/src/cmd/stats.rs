//! `pebble stats`: every figure that the database keeps.

use clap::Args;
use pebble_db::{LevelStats, StallStats, Stats};
use serde::Serialize;

use crate::failure::Result;
use crate::human;
use crate::output::Output;
use crate::place::{Missing, Place};

/// Print what lies where and what it takes; counters begin when the database is opened
#[derive(Args)]
pub struct StatsOf {
    #[command(flatten)]
    place: Place,
    /// Print an object with a key for each figure
    #[arg(long)]
    json: bool,
}

impl StatsOf {
    pub fn run(&self) -> Result<()> {
        self.place.with(Missing::Refuse, |db| {
            let (stats, keyspaces) = (db.stats(), db.keyspaces());
            let mut output = Output::new();
            if self.json {
                output.json(&Figures::new(&stats, keyspaces))?;
            } else {
                output.line(table(&stats, &keyspaces))?;
            }
            output.flush()
        })
    }
}

/// [`Stats`] as JSON: the same names, with the unit where the type was it.
#[derive(Serialize)]
struct Figures {
    records_written: u64,
    record_bytes_written: u64,
    flushes: u64,
    flush_bytes_written: u64,
    compactions: u64,
    compaction_bytes_read: u64,
    compaction_bytes_written: u64,
    log_syncs: u64,
    covered_bytes_dropped: u64,
    stalls: Vec<Stall>,
    debt_bytes: u64,
    merges_running: usize,
    range_deletes: usize,
    memtable_records: usize,
    memtable_index_bytes: usize,
    sealed_memtables: usize,
    table_memory_bytes: usize,
    cache_bytes: u64,
    log_heap_bytes: u64,
    memory_bytes: u64,
    memory_budget: u64,
    log_mapped_bytes: u64,
    table_mapped_bytes: u64,
    log_disk_bytes: u64,
    levels: Vec<Level>,
    value_tables: usize,
    value_table_bytes: u64,
    value_bytes: u64,
    value_dead_bytes: u64,
    snapshots: usize,
    visible_seqno: u64,
    keyspaces: Vec<String>,
}

#[derive(Serialize)]
struct Stall {
    reason: String,
    count: u64,
    time_seconds: f64,
}

impl Stall {
    fn new(stall: &StallStats) -> Self {
        Self { reason: stall.reason.to_string(), count: stall.count, time_seconds: stall.time.as_secs_f64() }
    }
}

#[derive(Serialize)]
struct Level {
    level: u8,
    runs: usize,
    tables: usize,
    bytes: u64,
    records: u64,
}

impl Figures {
    fn new(stats: &Stats, keyspaces: Vec<String>) -> Self {
        Self {
            records_written: stats.records_written,
            record_bytes_written: stats.record_bytes_written,
            flushes: stats.flushes,
            flush_bytes_written: stats.flush_bytes_written,
            compactions: stats.compactions,
            compaction_bytes_read: stats.compaction_bytes_read,
            compaction_bytes_written: stats.compaction_bytes_written,
            log_syncs: stats.log_syncs,
            covered_bytes_dropped: stats.covered_bytes_dropped,
            stalls: stats.stalls.iter().map(Stall::new).collect(),
            debt_bytes: stats.debt_bytes,
            merges_running: stats.merges_running,
            range_deletes: stats.range_deletes,
            memtable_records: stats.memtable_records,
            memtable_index_bytes: stats.memtable_index_bytes,
            sealed_memtables: stats.sealed_memtables,
            table_memory_bytes: stats.table_memory_bytes,
            cache_bytes: stats.cache_bytes,
            log_heap_bytes: stats.log_heap_bytes,
            memory_bytes: stats.memory_bytes,
            memory_budget: stats.memory_budget,
            log_mapped_bytes: stats.log_mapped_bytes,
            table_mapped_bytes: stats.table_mapped_bytes,
            log_disk_bytes: stats.log_disk_bytes,
            levels: stats.levels.iter().map(Level::new).collect(),
            value_tables: stats.value_tables,
            value_table_bytes: stats.value_table_bytes,
            value_bytes: stats.value_bytes,
            value_dead_bytes: stats.value_dead_bytes,
            snapshots: stats.snapshots,
            visible_seqno: stats.visible_seqno,
            keyspaces,
        }
    }
}

impl Level {
    fn new(level: &LevelStats) -> Self {
        let LevelStats { level, runs, tables, bytes, records, .. } = *level;
        Self { level, runs, tables, bytes, records }
    }
}

fn stalls(stats: &Stats) -> String {
    let each = stats.stalls.iter();
    let texts = each.map(|stall| {
        format!("{} for {} because {}", human::count(stall.count), human::time(stall.time), stall.reason)
    });
    texts.collect::<Vec<_>>().join("; ")
}

fn table(stats: &Stats, keyspaces: &[String]) -> String {
    let (n, bytes) = (human::count, human::bytes);
    let size = |size: usize| human::bytes(size as u64);
    let rows = [
        ("keyspaces", keyspaces.join(", ")),
        ("last commit", format!("seqno {}", n(stats.visible_seqno))),
        ("written", format!("{} records, {}", n(stats.records_written), bytes(stats.record_bytes_written))),
        ("flushes", format!("{}, {} written", n(stats.flushes), bytes(stats.flush_bytes_written))),
        (
            "merges",
            format!(
                "{}, {} read, {} written",
                n(stats.compactions),
                bytes(stats.compaction_bytes_read),
                bytes(stats.compaction_bytes_written)
            ),
        ),
        ("log syncs", n(stats.log_syncs)),
        ("debt", format!("{}, {} merges running", bytes(stats.debt_bytes), stats.merges_running)),
        ("stalls", stalls(stats)),
        (
            "range deletes",
            format!(
                "{}, {} dropped under them unread",
                n(stats.range_deletes as u64),
                bytes(stats.covered_bytes_dropped)
            ),
        ),
        (
            "memtables",
            format!(
                "{} records, {} of index, {} sealed",
                n(stats.memtable_records as u64),
                size(stats.memtable_index_bytes),
                stats.sealed_memtables
            ),
        ),
        ("snapshots", n(stats.snapshots as u64)),
        (
            "memory",
            format!(
                "{} of {} (tables {}, cache {}, log {})",
                bytes(stats.memory_bytes),
                bytes(stats.memory_budget),
                size(stats.table_memory_bytes),
                bytes(stats.cache_bytes),
                bytes(stats.log_heap_bytes)
            ),
        ),
        (
            "mapped",
            format!("log {}, tables {}", bytes(stats.log_mapped_bytes), bytes(stats.table_mapped_bytes)),
        ),
        ("log on disk", bytes(stats.log_disk_bytes)),
    ];
    let mut lines: Vec<String> = rows.iter().map(|(name, text)| format!("{name:12} {text}")).collect();
    lines.extend(levels(stats));
    lines.join("\n")
}

/// The shape of the tree, a line for each level, and one for values that lie apart.
pub fn levels(stats: &Stats) -> Vec<String> {
    let level = |level: &LevelStats| {
        format!(
            "level {:<6} {} runs, {} tables, {}, {} records",
            level.level,
            level.runs,
            level.tables,
            human::bytes(level.bytes),
            human::count(level.records)
        )
    };
    let mut lines: Vec<String> = stats.levels.iter().map(level).collect();
    if lines.is_empty() {
        lines.push("levels       none: all records are in the log".to_owned());
    }
    if stats.value_tables > 0 {
        lines.push(format!(
            "values apart {} tables, {}; of {} of values {} are dead",
            stats.value_tables,
            human::bytes(stats.value_table_bytes),
            human::bytes(stats.value_bytes),
            human::bytes(stats.value_dead_bytes)
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of the fields that `{:#?}` prints first in line.
    fn fields(debug: &str) -> Vec<&str> {
        let own = debug.lines().filter_map(|line| line.strip_prefix("    "));
        own.filter(|line| !line.starts_with([' ', ']', '}']))
            .filter_map(|line| line.split(':').next())
            .collect()
    }

    #[test]
    fn every_figure_is_in_the_json() {
        let json = serde_json::to_string(&Figures::new(&Stats::default(), Vec::new())).unwrap();
        let debug = format!("{:#?}", Stats::default());
        assert!(fields(&debug).len() > 20);
        for field in fields(&debug) {
            let found = [format!("\"{field}\":"), format!("\"{field}_seconds\":")];
            assert!(found.iter().any(|name| json.contains(name)), "{field}");
        }
        let json = serde_json::to_string(&Level::new(&LevelStats::default())).unwrap();
        let debug = format!("{:#?}", LevelStats::default());
        for field in fields(&debug) {
            assert!(json.contains(&format!("\"{field}\":")), "{field}");
        }
    }
}

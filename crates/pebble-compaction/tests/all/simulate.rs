//! Figures that can be told by hand, figures that the default policy is held to, and what must not depend on chance.

use pebble_compaction::Policy;
use pebble_compaction::simulate::{Keys, Report, Workload, compare, simulate};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn near(value: f64, expected: f64, percent: f64) {
    assert!((value - expected).abs() <= expected * percent / 100.0, "{value}, not {expected}");
}

#[test]
fn rising_keys_are_written_once() {
    let load = Workload { keys: Keys::Rising, loaded: false, total_bytes: GIB, ..Workload::overwrites(GIB) };
    for policy in [Policy::lazy(), Policy::leveled(), Policy::tiered(4)] {
        let report = simulate(&load, &policy);
        near(report.write_amp, 1.0, 0.1);
        near(report.space_max, 1.0, 0.1);
        assert_eq!((report.merges, report.runs_max), (0, 1));
        assert_eq!(report.moves, 16);
        // Even a petabyte of them.
        let load = Workload { live_bytes: 1 << 50, total_bytes: 1 << 50, ..load };
        near(simulate(&load, &policy).write_amp, 1.0, 1.0);
    }
}

/// Each flush of a quarter of the tree hits 1 - e^(-1/4) of the keys, is written once, and rewrites all of them.
#[test]
fn without_tiers_every_flush_rewrites_the_last_level() {
    let policy = Policy { fan_out: [1; 6], last_percent: 0, ..Policy::lazy() };
    let workload = Workload { flush_bytes: 16 * MIB, cut_bytes_min: GIB, ..Workload::overwrites(64 * MIB) };
    let report = simulate(&workload, &policy);
    near(report.write_amp, 4.0 * (1.0 - (-0.25_f64).exp()) + 4.0, 2.0);
    assert_eq!((report.merges, report.moves), (40, 0));
    // The old one, the new one, and the flush.
    near(report.space_max, 2.22, 3.0);
    near(report.runs_mean, 1.0, 0.1);
}

/// 64 flushes are 16 merges of four into level 1 and 4 of those into level 2, that then merge into level 3. The last
/// level, of which each is a thousandth, is not touched until the tree rests.
#[test]
fn a_tiered_tree_writes_a_byte_once_a_level() {
    let live = 1000 * 64 * MIB;
    let workload = Workload { total_bytes: 64 * 64 * MIB, ..Workload::overwrites(live) };
    let report = simulate(&workload, &Policy { idle_factor: 0, ..Policy::tiered(4) });
    near(report.write_amp, 4.0, 4.0);
    assert_eq!(report.runs_max, 1 + 3 + 3 + 3);
    assert_eq!(report.rested.levels.map(|level| level.runs), [0, 0, 0, 1, 0, 0, 1]);
    near(report.rested.space, 1.06, 1.0);
}

/// Overwrites at `last_percent` cost one flush and `100 / last_percent`, less what the runs have in common.
#[test]
fn the_last_step_costs_what_the_formula_says() {
    for (percent, expected) in [(35, 3.86), (50, 3.0), (70, 2.43), (100, 2.0)] {
        let policy = Policy { fan_out: [64, 6, 6, 6, 6, 6], last_percent: percent, ..Policy::lazy() };
        let report = simulate(&Workload::overwrites(2 * GIB), &policy);
        near(report.write_amp, expected, 7.0);
    }
}

#[test]
fn the_default_policy_keeps_its_promise() {
    let report = simulate(&Workload::overwrites(2 * GIB), &Policy::default());
    assert!((2.3..3.0).contains(&report.write_amp), "{}", report.write_amp);
    assert!(report.space_max < 1.8, "{}", report.space_max);
    assert!(report.runs_max <= 21 && report.runs_mean < 11.0, "{} {}", report.runs_max, report.runs_mean);
    // Merges are spread: the tree never waits until all of it is due, nor is it ever merged whole.
    let above = report.steps.iter().skip(40).map(|step| step.shape.levels[0].bytes);
    assert!(above.clone().min() > Some(GIB / 4) && above.max() < Some(GIB), "{:?}", report.steps);
    let rested = &report.rested;
    assert!((rested.space - 1.0).abs() < 0.001 && rested.runs_max == 1, "{rested:?}");

    let deletes = Workload { delete_percent: 40, ..Workload::overwrites(2 * GIB) };
    let report = simulate(&deletes, &Policy::default());
    assert!(report.write_amp < 3.5 && report.space_max < 2.0, "{} {}", report.write_amp, report.space_max);
}

/// The whole tree is never due at once: merges are spread over time.
#[test]
fn merges_are_small_beside_the_tree() {
    for live in [20 * GIB, 100 * GIB] {
        let workload = Workload { total_bytes: 2 * live, ..Workload::overwrites(live) };
        let report = simulate(&workload, &Policy::default());
        assert!(report.merge_bytes_max < live / 4, "{} of {live}", report.merge_bytes_max);
        assert!(report.space_max < 1.8, "{}", report.space_max);
        assert!(report.write_amp < 6.0, "{}", report.write_amp);
    }
}

#[test]
fn policies_trade_writes_for_reads_and_space() {
    let workload = Workload::overwrites(2 * GIB);
    let policies = [("tiered", Policy::tiered(8)), ("lazy", Policy::lazy()), ("leveled", Policy::leveled())];
    let comparison = compare(&workload, &policies);
    let reports: Vec<&Report> = comparison.reports.iter().map(|(_, report)| report).collect();
    assert!(reports.is_sorted_by(|a, b| a.write_amp < b.write_amp));
    assert!(reports.is_sorted_by(|a, b| a.space_max > b.space_max));
    let text = comparison.to_string();
    assert!(text.starts_with("20 GiB written to 2.0 GiB, Uniform, in flushes of 64 MiB\npolicy "), "{text}");
    assert_eq!(text.lines().count(), 5);
}

#[test]
fn a_seed_decides_everything() {
    let workload = Workload { total_bytes: 4 * GIB, ..Workload::overwrites(GIB) };
    let policy = Policy::default();
    assert_eq!(simulate(&workload, &policy), simulate(&workload, &policy));
    assert_ne!(simulate(&workload, &policy), simulate(&Workload { seed: 2, ..workload }, &policy));
}

#[test]
fn a_step_tells_the_shape_of_the_tree() {
    let report = simulate(&Workload::overwrites(2 * GIB), &Policy::default());
    assert!(report.steps.len() <= 200);
    assert!(report.steps.is_sorted_by(|a, b| a.written_bytes < b.written_bytes));
    for step in &report.steps {
        let bytes: u64 = step.shape.levels.iter().map(|level| level.bytes).sum();
        near(bytes as f64 / (2 * GIB) as f64, step.shape.space, 0.1);
        assert!(step.shape.levels[6].runs == 1 && step.shape.runs_mean <= step.shape.runs_max as f64);
    }
    assert_eq!(report.scale.first_level, 0);
}

/// Nonsense in, no panic out.
#[test]
fn lengths_of_nothing() {
    let nothing = Workload {
        live_bytes: 0,
        total_bytes: 0,
        flush_bytes: 0,
        record_bytes: 0,
        keys: Keys::Hot { keys_percent: 0, writes_percent: 200 },
        delete_percent: 200,
        loaded: true,
        table_bytes: 0,
        cut_bytes_min: 0,
        seed: 0,
    };
    simulate(&nothing, &Policy::default());
    simulate(&Workload { keys: Keys::Rising, loaded: false, total_bytes: 10, ..nothing }, &Policy::leveled());
}

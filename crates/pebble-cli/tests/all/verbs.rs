//! Each verb does what its help says.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::support::{Bed, run, run_with_input};

const NONE: [&str; 0] = [];

#[test]
fn put_get_delete() {
    let bed = Bed::new();
    assert_eq!(bed.run("put", ["stone", "granite"]).ok(), "");
    assert_eq!(bed.run("get", ["stone"]).ok(), "granite\n");
    assert_eq!(bed.run("put", ["empty", "", "--sync", "--json"]).ok(), "{\"put\":1}\n");
    assert_eq!(bed.run("get", ["empty"]).ok(), "\n");
    assert_eq!(bed.run("get", ["stone", "--json"]).ok(), "{\"key\":\"stone\",\"value\":\"granite\"}\n");
    assert_eq!(bed.run("delete", ["stone", "empty", "absent", "--json"]).ok(), "{\"deleted\":3}\n");
    assert_eq!(bed.run("get", ["stone"]).fails(1), "");
    assert_eq!(bed.run("scan", ["--count"]).ok(), "0\n");
}

#[test]
fn a_value_comes_from_stdin_byte_for_byte() {
    let bed = Bed::new();
    let value: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    run_with_input(bed.arguments("put", ["k"]), &value).ok();
    assert_eq!(bed.run("get", ["k", "--raw"]).ok_bytes(), value);
}

#[test]
fn bytes_as_text_hex_and_raw() {
    let bed = Bed::new();
    bed.run("put", ["a\\x00\\n\\\\", "\\xff\\t"]).ok();
    assert_eq!(bed.run("scan", NONE).ok(), "a\\x00\\n\\\\\t\\xff\\t\n");
    assert_eq!(bed.run("scan", ["--hex"]).ok(), "61000a5c\tff09\n");
    assert_eq!(bed.run("scan", ["--raw"]).ok_bytes(), b"a\0\n\\\t\xff\t\n");
    assert_eq!(bed.run("get", ["61000A5c", "--hex"]).ok(), "ff09\n");
    let json = bed.run("scan", ["--json"]).ok();
    assert_eq!(json, "{\"key\":\"a\\u0000\\n\\\\\",\"value\":\"ff09\",\"value_base16\":true}\n");
    let raw = [OsStr::new("--raw"), OsStr::from_bytes(b"\\n\xfe"), OsStr::new("v")];
    bed.run("put", raw).ok();
    assert_eq!(bed.run("get", ["5c6efe", "--hex"]).ok(), "76\n");
}

#[test]
fn scan_selects() {
    let bed = Bed::new();
    for key in ["a", "b", "ba", "bb", "c"] {
        bed.run("put", [key, &key.to_uppercase()]).ok();
    }
    let keys = |args: &[&str]| {
        let args = args.iter().copied().chain(["--keys-only"]);
        bed.run("scan", args).ok().lines().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(keys(&[]), "a b ba bb c");
    assert_eq!(keys(&["--from", "b", "--to", "bb"]), "b ba");
    assert_eq!(keys(&["--from", "bb"]), "bb c");
    assert_eq!(keys(&["--to", "b"]), "a");
    assert_eq!(keys(&["--from", "c", "--to", "a"]), "");
    assert_eq!(keys(&["--prefix", "b"]), "b ba bb");
    assert_eq!(keys(&["--prefix", "b", "--reverse", "--limit", "2"]), "bb ba");
    assert_eq!(keys(&["--limit", "0"]), "");
    assert_eq!(bed.run("scan", ["--prefix", "b", "--count"]).ok(), "3\n");
    assert_eq!(bed.run("scan", ["--count", "--limit", "2", "--json"]).ok(), "{\"count\":2}\n");
    assert_eq!(bed.run("scan", ["--limit", "1"]).ok(), "a\tA\n");
    assert_eq!(bed.run("scan", ["--limit", "1", "--json", "--keys-only"]).ok(), "{\"key\":\"a\"}\n");
}

#[test]
fn keyspaces_are_apart_and_reading_makes_none() {
    let bed = Bed::new();
    bed.run("put", ["k", "1", "--keyspace", "users"]).ok();
    assert_eq!(bed.run("get", ["k"]).fails(1), "");
    assert_eq!(bed.run("get", ["k", "--keyspace", "users"]).ok(), "1\n");
    for verb in [&["get", "k"][..], &["scan"], &["export", "out.csv"], &["delete", "k"]] {
        let (name, args) = verb.split_first().unwrap();
        let said = bed.run(name, args.iter().copied().chain(["--keyspace", "none"])).fails(1);
        assert!(said.contains("has no keyspace \"none\""), "{said}");
    }
    let keyspaces = &bed.run("stats", ["--json"]).json()["keyspaces"];
    assert_eq!(*keyspaces, serde_json::json!(["default", "users"]));
}

#[test]
fn reading_makes_no_database() {
    let bed = Bed::new();
    let out = bed.path("out.csv");
    let out = out.to_str().unwrap();
    for verb in [&["get", "k"][..], &["scan"], &["export", out], &["stats"], &["verify"], &["delete", "k"]] {
        let (name, args) = verb.split_first().unwrap();
        let said = bed.run(name, args).fails(1);
        assert!(said.contains("no database at"), "{said}");
        assert!(!bed.db().exists(), "{name}");
    }
    let said = bed.run("import", [bed.path("absent.csv")]).fails(1);
    assert!(said.contains("absent.csv"), "{said}");
    assert!(!bed.db().exists());
}

#[test]
fn the_knobs_reach_the_database() {
    let bed = Bed::new();
    let knobs = ["--memory-budget", "32MiB", "--read-mode", "pread", "--log-io", "write"];
    bed.run("put", knobs.iter().copied().chain(["k", "v"])).ok();
    let stats = bed.run("stats", knobs.iter().copied().chain(["--json"])).json();
    assert_eq!(stats["memory_budget"], 32 << 20);
    assert_eq!(stats["log_mapped_bytes"], 0, "the log is not mapped");
    assert_eq!(bed.run("get", knobs.iter().copied().chain(["k"])).ok(), "v\n");
}

#[test]
fn stats_and_verify() {
    let bed = Bed::with_table();
    bed.run("put", ["later", "in the log"]).ok();
    let stats = bed.run("stats", ["--json"]).json();
    assert_eq!((&stats["visible_seqno"], &stats["memtable_records"]), (&20_001.into(), &1.into()));
    assert_eq!((&stats["levels"][0]["tables"], &stats["levels"][0]["records"]), (&1.into(), &20_000.into()));
    let table = bed.run("stats", NONE).ok();
    // In level 0, or in the last one if the time was enough to move it there.
    assert!(table.contains("      1 runs, 1 tables") && table.contains("20,000 records"), "{table}");
    let verified = bed.run("verify", ["--json"]).json();
    assert_eq!(verified["ok"], true);
    assert_eq!(verified["tables"][0]["records"], 20_000);
    assert_eq!(verified["keyspaces"][0], serde_json::json!({"name": "default", "entries": 20_001}));
    assert!(bed.run("verify", NONE).ok().contains("20,001 entries"));
}

#[test]
fn bench_runs_every_workload_and_checks_what_it_reads() {
    let bed = Bed::new();
    let args = ["--records", "2000", "--sync-records", "20", "--threads", "2", "--json"];
    let lines = bed.run("bench", args).ok();
    let figures: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = figures.iter().map(|figures| figures["workload"].as_str().unwrap()).collect();
    assert_eq!(names, ["fillseq", "fillrandom", "fillsync", "readrandom", "readmissing", "scan"]);
    for (figures, operations) in figures.iter().zip([2_000, 2_000, 20, 2_000, 2_000, 4_000]) {
        assert_eq!(figures["operations"], operations, "{figures}");
        let quantile = |name: &str| figures[name].as_u64().unwrap();
        assert!(quantile("p50_ns") > 0 && quantile("p50_ns") <= quantile("p999_ns"), "{figures}");
        let written = figures["written_per_given"].as_f64();
        let fills = figures["workload"].as_str().unwrap().starts_with("fill");
        assert_eq!(written.is_some_and(|ratio| ratio > 1.0), fills, "{figures}");
    }
    let said = bed.run("bench", args).fails(1);
    assert!(said.contains("a directory of its own"), "{said}");
    assert_eq!(bed.run("scan", ["--keyspace", "fillseq", "--count"]).ok(), "2000\n");
}

#[test]
fn wrong_usage_is_two_and_help_is_nought() {
    let bed = Bed::new();
    bed.run("put", ["k", "v"]).ok();
    for args in [
        &["get"][..],
        &["scan", "--prefix", "a", "--from", "b"],
        &["scan", "--limit", "-1"],
        &["get", "k", "--hex", "--raw"],
        &["get", "k\\q"],
        &["get", "zz", "--hex"],
        &["get", "k", "--memory-budget", "1"],
        &["get", "k", "--memory-budget", "many"],
        &["put", "k", "v", "--keyspace", ""],
        &["import", "-"],
        &["import", "rows.txt"],
        &["import", "rows.csv", "--batch", "0"],
        &["import", "rows.csv", "--columns", "0,1"],
        &["export", "-"],
        &["bench", "--workloads", "fillhalf"],
    ] {
        let (name, rest) = args.split_first().unwrap();
        let ran = bed.run(name, rest);
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
        assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{args:?}: {ran:?}");
    }
    assert_eq!(run(["frobnicate"]).code, 2);
    assert_eq!(run(NONE).code, 2);
    for args in [&["--help"][..], &["get", "--help"], &["demo", "--help"]] {
        let help = run(args).ok();
        assert!(help.contains("Exit codes:") && help.contains("3  corruption found"), "{help}");
        assert!(!help.contains("--child"), "{help}");
    }
}

#[test]
fn ranges_are_deleted_and_compacted() {
    let bed = Bed::new();
    let fill = || {
        for key in ["a", "b", "ba", "bb", "c"] {
            bed.run("put", [key, "v"]).ok();
        }
    };
    let keys = || bed.run("scan", ["--keys-only"]).ok().lines().collect::<Vec<_>>().join(" ");
    fill();
    bed.run("delete", ["--from", "b", "--to", "bb"]).ok();
    assert_eq!(keys(), "a bb c");
    fill();
    bed.run("delete", ["--prefix", "b"]).ok();
    assert_eq!(keys(), "a c");
    bed.run("compact", ["--from", "a", "--to", "b"]).ok();
    bed.run("compact", NONE).ok();
    assert_eq!(keys(), "a c");
    bed.run("delete", ["--from", "a"]).ok();
    assert_eq!(keys(), "");
    assert_eq!(bed.run("delete", NONE).code, 2);
    assert_eq!(bed.run("delete", ["a", "--prefix", "b"]).code, 2);
}

#[test]
fn a_workload_is_simulated() {
    let small = ["simulate", "--live", "256MiB", "--flush", "16MiB"];
    let table = run(small).ok();
    assert!(table.contains("lazy") && table.contains("leveled") && table.contains("tiered:8"), "{table}");
    let one = [&small[..], &["--policy", "lazy", "--steps", "3", "--json"]].concat();
    let figures = run(&one).json();
    let write = figures["write_amplification"].as_f64().unwrap();
    assert!((1.0..6.0).contains(&write), "{figures}");
    assert_eq!(figures["steps"].as_array().unwrap().len(), 3);
    assert_eq!(run(&one).json(), figures, "the same every time");
    assert_eq!(run(["simulate", "--policy", "bold"]).code, 2);
    assert_eq!(run(["simulate", "--live", "0"]).code, 2);
}

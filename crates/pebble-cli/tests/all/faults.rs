//! Damage, locks, readers that go away: the exit code and the message.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use crate::support::{Bed, command};

const NONE: [&str; 0] = [];

#[test]
fn a_flipped_byte_in_a_table_is_three() {
    let bed = Bed::with_table();
    let mut bytes = fs::read(bed.table()).unwrap();
    bytes[1_000] ^= 1;
    fs::write(bed.table(), bytes).unwrap();
    let said = bed.run("verify", NONE).fails(3);
    assert!(said.contains("corruption found: ") && said.contains(".sst"), "{said}");
    let ran = bed.run("verify", ["--json"]);
    let json: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((ran.code, &json["ok"]), (3, &false.into()));
    assert!(json["error"].as_str().unwrap().contains(".sst"), "{json}");
    assert_eq!(bed.run("get", ["key000001"]).code, 3);
    assert_eq!(bed.run("scan", ["--count"]).code, 3);
    assert_eq!(
        bed.run("get", ["key019999"]).ok(),
        format!("value {:060}\n", 19_999),
        "another block is fine"
    );
}

#[test]
fn a_truncated_or_missing_table_is_three() {
    let bed = Bed::with_table();
    let table = bed.table();
    let bytes = fs::read(&table).unwrap();
    fs::write(&table, &bytes[..bytes.len() - 1]).unwrap();
    assert!(bed.run("get", ["key000001"]).fails(3).contains("corruption found"));
    fs::remove_file(&table).unwrap();
    assert!(bed.run("scan", NONE).fails(3).contains("missing file"));
    fs::write(&table, bytes).unwrap();
    bed.run("verify", NONE).ok();
}

#[test]
fn a_locked_database_is_one_and_says_so() {
    let bed = Bed::new();
    bed.run("put", ["k", "v"]).ok();
    let mut holder = command(bed.arguments("import", ["-", "--format", "tsv", "--batch", "1"]));
    let mut holder = holder.stdin(Stdio::piped()).spawn().unwrap();
    // More than any buffer between the two: when it is written, the holder reads, and so has the database open.
    let rows = "held\trow\n".repeat(200_000);
    holder.stdin.as_mut().unwrap().write_all(rows.as_bytes()).unwrap();
    for verb in [&["get", "k"][..], &["put", "k", "w"], &["verify"]] {
        let (name, args) = verb.split_first().unwrap();
        let said = bed.run(name, args).fails(1);
        assert!(said.contains("is locked by another"), "{said}");
    }
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    assert_eq!(bed.run("get", ["k"]).ok(), "v\n");
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let bed = Bed::with_table();
    for args in [&["scan"][..], &["scan", "--json", "--reverse"], &["export", "-", "--format", "csv"]] {
        let (name, rest) = args.split_first().unwrap();
        let mut child = command(bed.arguments(name, rest)).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        assert!(stdout.read_line(&mut line).unwrap() > 0);
        drop(stdout);
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""), "{args:?}");
    }
    assert_eq!(bed.run("scan", ["--count"]).ok(), "20000\n", "and the database was closed");
}

#[test]
fn a_stdout_that_fails_is_one() {
    let bed = Bed::with_table();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ran = command(bed.arguments("scan", NONE)).stdout(full).output().unwrap();
    assert_eq!(ran.status.code(), Some(1));
    assert!(String::from_utf8(ran.stderr).unwrap().contains("stdout: "));
}

#[test]
fn a_killed_import_leaves_what_it_had_committed_and_the_next_open_says_so() {
    let bed = Bed::new();
    let mut import = command(bed.arguments("import", ["-", "--format", "tsv", "--batch", "1"]));
    let mut import = import.stdin(Stdio::piped()).spawn().unwrap();
    let rows: String = (0..200_000).map(|n| format!("{n:06}\trow\n")).collect();
    import.stdin.as_mut().unwrap().write_all(rows.as_bytes()).unwrap();
    import.kill().unwrap();
    import.wait().unwrap();
    let ran = bed.run("scan", ["--keys-only"]);
    assert!(ran.stderr.contains("was not closed"), "{ran:?}");
    let keys = ran.ok();
    assert!(keys.lines().count() > 100_000, "all but what was in the buffers of the pipe");
    assert!(keys.lines().enumerate().all(|(n, key)| key == format!("{n:06}")), "a prefix without a hole");
}

//! The demo, small.

use std::fs;

use crate::support::{Bed, files, run};

/// A source of 400 files and about 300 kB: one empty, one longer than a piece, many with equal contents.
fn source(bed: &Bed) -> String {
    let source = bed.path("source");
    for n in 0..400 {
        let dir = source.join(format!("dir{:02}", n % 20));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("file{n}")), format!("line {} of text\n", n / 4).repeat(n % 50)).unwrap();
    }
    fs::write(source.join("long"), vec![b'x'; 1_100_000]).unwrap();
    source.to_str().unwrap().to_owned()
}

#[test]
fn the_demo_is_killed_and_finds_everything() {
    let bed = Bed::new();
    let source = source(&bed);
    let story = run(["demo", "--source", &source, "--seed", "7", "--batch", "4"]).ok();
    let last = story.lines().last().unwrap();
    assert!(
        last.starts_with("demo: ") && last.ends_with("402 records in all, every one verified"),
        "{story}"
    );
    assert!(story.contains("killed with SIGKILL") && story.contains("it was not closed"), "{story}");
}

#[test]
fn its_figures_as_json_and_its_database_to_keep() {
    let bed = Bed::new();
    let source = source(&bed);
    let db = bed.db();
    let knobs =
        ["--sync", "--log-io", "write", "--read-mode", "pread", "--memory-budget", "4M", "--threads", "2"];
    let args =
        ["demo", "--source", &source, "--seed", "8", "--batch", "4", "--json", "--dir", db.to_str().unwrap()];
    let figures = run(args.into_iter().chain(knobs)).json();
    let number = |name: &str| figures[name].as_u64().unwrap_or_else(|| panic!("{name} in {figures}"));
    assert_eq!(number("records"), 402);
    assert_eq!(number("acknowledged_records"), number("found_records"));
    let batches = number("batches");
    assert!((batches / 4 * 4..402).contains(&number("found_records")), "killed in the middle: {figures}");
    assert_eq!(bed.run("scan", ["--keyspace", "files", "--count"]).ok(), "402\n");
    assert_eq!(bed.run("scan", ["--keyspace", "by-content", "--count"]).ok(), "402\n");
    assert!(run(args).fails(1).contains("a directory of its own"));
}

#[test]
fn limits_are_kept_and_a_source_without_enough_is_refused() {
    let bed = Bed::new();
    let source = source(&bed);
    let story = run(["demo", "--source", &source, "--limit-records", "90"]).ok();
    assert!(story.ends_with("90 records in all, every one verified\n"), "{story}");
    let none = bed.path("none");
    fs::create_dir(&none).unwrap();
    let none = none.to_str().unwrap();
    assert!(run(["demo", "--source", none]).fails(1).contains("no files to import"));
    let said = run(["demo", "--source", &source, "--limit-records", "20"]).fails(1);
    assert!(said.contains("too few to stop in the middle"), "{said}");
    assert_eq!(files(&bed.path("")).len(), 2, "nothing was left beside the sources");
}

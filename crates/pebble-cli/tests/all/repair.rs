//! A damaged database from the command line: what is wrong, all of it, and a whole one beside it.

use std::fs;
use std::path::Path;

use crate::support::{Bed, files, run};

const NONE: [&str; 0] = [];

fn bytes_of(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    files(dir).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn flip(path: &Path, places: &[usize]) {
    let mut bytes = fs::read(path).unwrap();
    places.iter().for_each(|place| bytes[*place] ^= 0x40);
    fs::write(path, bytes).unwrap();
}

#[test]
fn verify_tells_all_that_is_damaged_and_changes_nothing() {
    let bed = Bed::with_table();
    flip(&bed.table(), &[1_000, 100_000, 300_000]);
    let before = bytes_of(&bed.db());
    let said = bed.run("verify", NONE).fails(3);
    assert_eq!(said.lines().filter(|line| line.contains("block checksum")).count(), 3, "{said}");
    let ran = bed.run("verify", ["--json"]);
    let json: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((ran.code, json["damage"].as_array().unwrap().len()), (3, 3), "{json}");
    assert!(bytes_of(&bed.db()) == before);
    fs::remove_file(bed.db().join("CURRENT")).unwrap();
    assert!(bed.run("verify", NONE).fails(3).contains("CURRENT"));
}

#[test]
fn repair_makes_a_whole_database_in_another_directory() {
    let bed = Bed::with_table();
    flip(&bed.table(), &[1_000]);
    fs::remove_file(bed.db().join("CURRENT")).unwrap();
    let before = bytes_of(&bed.db());
    let dry = bed.run("repair", ["--dry-run", "--json"]).json();
    assert!(files(bed.path("").as_path()).iter().all(|path| !path.ends_with("whole")), "a dry run wrote");
    let whole = bed.path("whole");
    let to = whole.to_str().unwrap();
    let said = bed.run("repair", ["--to", to]).ok();
    assert!(said.contains("unreadable  block checksum"), "{said}");
    assert!(bytes_of(&bed.db()) == before, "the damaged directory is as it was");
    let total: u64 = dry["extents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|extent| extent["to"].as_u64().unwrap() - extent["from"].as_u64().unwrap())
        .sum();
    assert_eq!(total, before.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>());

    let rows = run(["scan", to, "--count"]).ok().trim().parse::<u64>().unwrap();
    assert!((19_500..20_000).contains(&rows), "{rows} rows");
    run(["verify", to]).ok();
    assert_eq!(run(["get", to, "key019999"]).ok(), format!("value {:060}\n", 19_999));
    assert!(bed.run("repair", ["--to", to]).fails(2).contains("is not empty"));
    bed.run("repair", NONE).fails(2);
    assert_eq!(run(["repair", bed.path("nowhere").to_str().unwrap(), "--dry-run"]).code, 1);
}

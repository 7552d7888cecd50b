//! A transcript that keeps every rule, and each of its lines left out or moved: the audit convicts it.

use super::*;

/// A frame of an edit with these tables joining and leaving, as strace prints it.
fn edit(added: &[u64], removed: &[u64]) -> String {
    let mut fields = Vec::new();
    for (tag, tables) in [(7_u16, removed), (9, added)] {
        for table in tables {
            fields.extend_from_slice(&tag.to_le_bytes());
            fields.extend_from_slice(&[0, 0, 8, 0, 0, 0]);
            fields.extend_from_slice(&table.to_le_bytes());
        }
    }
    let len = u32::try_from(fields.len()).unwrap().to_le_bytes();
    let frame = [&[0; 8][..], &len, &fields].concat();
    frame.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

/// One thread of commits (7) and one of flushes (8), on a written log.
fn good() -> Vec<String> {
    let create = |path: &str| {
        format!("8 openat(AT_FDCWD</>, \"{path}\", O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0600) = 5</d/{path}>")
            .replace("/d//d/", "/d/")
    };
    vec![
        create("/d/MANIFEST-000001"),
        format!("8 pwrite64(5</d/MANIFEST-000001>, \"{}\", 9, 0) = 9", edit(&[], &[])),
        "8 fdatasync(5</d/MANIFEST-000001>) = 0".into(),
        "8 fsync(6</d>) = 0".into(),
        "8 pwrite64(5</d/CURRENT.tmp>, \"MANIFEST-000001\\n\", 16, 0) = 16".into(),
        "8 fdatasync(5</d/CURRENT.tmp>) = 0".into(),
        "8 rename(\"/d/CURRENT.tmp\", \"/d/CURRENT\") = 0".into(),
        "8 fsync(6</d>) = 0".into(),
        create("/d/000001.log"),
        "8 fsync(6</d>) = 0".into(),
        "7 write(4</d/marks>, \"begin 0 1\\n\", 10) = 10".into(),
        "7 pwrite64(5</d/000001.log>, \"frame\", 5, 64) = 5".into(),
        "7 fdatasync(5</d/000001.log>) = 0".into(),
        "7 write(4</d/marks>, \"ack 0 1\\n\", 8) = 8".into(),
        create("/d/000002.sst"),
        "8 pwrite64(7</d/000002.sst>, \"records\", 7, 0) = 7".into(),
        "8 fdatasync(7</d/000002.sst>) = 0".into(),
        "8 fsync(6</d>) = 0".into(),
        format!("8 pwrite64(5</d/MANIFEST-000001>, \"{}\", 9, 9) = 9", edit(&[2], &[])),
        "8 fdatasync(5</d/MANIFEST-000001>) = 0".into(),
        format!("8 pwrite64(5</d/MANIFEST-000001>, \"{}\", 9, 18) = 9", edit(&[], &[2])),
        "8 fdatasync(5</d/MANIFEST-000001>) = 0".into(),
        "8 unlink(\"/d/000002.sst\") = 0".into(),
    ]
}

fn judged(lines: &[String]) -> Vec<String> {
    judge(&strace::parse(&lines.join("\n")).unwrap()).1
}

/// Without line `at`, exactly one violation, and it says `wanted`.
#[track_caller]
fn convicted(at: usize, wanted: &str) {
    let mut lines = good();
    let gone = lines.remove(at);
    let told = judged(&lines);
    assert!(told.len() == 1 && told[0].contains(wanted), "without {gone}: {told:?}");
}

#[test]
fn what_keeps_the_rules_is_let_go() {
    assert_eq!(judged(&good()), [""; 0]);
    let (seen, _) = judge(&strace::parse(&good().join("\n")).unwrap());
    assert_eq!(seen, Seen { acknowledged: 1, named: 1, switched: 1, removed: 1 });
}

#[test]
fn a_commit_without_its_sync_is_convicted() {
    convicted(12, "ack 0 1 is not covered by a sync of its log");
    convicted(9, "ack 0 1 is not covered by a sync of its log");
    convicted(10, "ack 0 1 without its begin 0 1");
}

#[test]
fn a_sync_that_began_before_the_write_covers_nothing() {
    let mut lines = good();
    lines[12] = "7 <... pwrite64 resumed>) = 5".into();
    lines[11] = "7 pwrite64(5</d/000001.log>, \"frame\", 5, 64 <unfinished ...>".into();
    lines.insert(12, "8 fdatasync(5</d/000001.log>) = 0".into());
    assert_eq!(judged(&lines).len(), 1, "a sync within the write");
    let mut lines = good();
    lines[12] = "7 fdatasync(5</d/000001.log>) = -1 EIO (Input/output error)".into();
    assert_eq!(judged(&lines).len(), 1, "a sync that failed");
    let mut lines = good();
    lines[12] = "7 fdatasync(5</d/000009.log>) = 0".into();
    assert_eq!(judged(&lines).len(), 1, "a sync of another log");
}

#[test]
fn a_mapped_log_is_judged_by_the_marks() {
    let mut lines = good();
    lines.remove(11);
    assert_eq!(judged(&lines), [""; 0]);
    let sync = lines.remove(11);
    assert_eq!(judged(&lines).len(), 1, "no sync");
    lines.insert(10, sync);
    assert_eq!(judged(&lines).len(), 1, "a sync before the commit");
}

#[test]
fn a_table_that_is_named_too_early_is_convicted() {
    convicted(14, "which is not there");
    convicted(16, "which was not synced after its last write");
    convicted(17, "whose name was not synced");
    let mut lines = good();
    lines.insert(17, "8 pwrite64(7</d/000002.sst>, \"more\", 4, 7) = 4".into());
    let told = judged(&lines);
    assert!(told.len() == 1 && told[0].contains("not synced after its last write"), "{told:?}");
}

#[test]
fn a_manifest_that_comes_into_force_too_early_is_convicted() {
    convicted(2, "before MANIFEST-000001 is synced");
    convicted(3, "whose name was not synced");
    convicted(5, "before CURRENT.tmp is synced");
}

#[test]
fn a_table_that_is_removed_too_early_is_convicted() {
    convicted(21, "table 2 is removed, and MANIFEST-000001 still names it");
    convicted(20, "table 2 is removed, and MANIFEST-000001 still names it");
    let mut lines = good();
    lines.push("8 unlink(\"/d/MANIFEST-000001\") = 0".into());
    let told = judged(&lines);
    assert!(told.len() == 1 && told[0].contains("is in force"), "{told:?}");
}

#[test]
fn edits_are_read() {
    let text = format!(
        "8 pwrite64(5</d/MANIFEST-000001>, \"{}{}\", 9, 0) = 9",
        edit(&[1, 300], &[7]),
        edit(&[4], &[])
    );
    let events = strace::parse(&text).unwrap();
    let Call::Write { bytes, .. } = &events[0].call else { panic!("{events:?}") };
    assert_eq!(Edit::of(bytes), Edit { added: vec![1, 300, 4], removed: vec![7] });
}

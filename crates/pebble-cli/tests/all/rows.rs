//! Import and export: the same records come back in every format.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use crate::support::{Bed, files, run_with_input};

const NONE: [&str; 0] = [];

/// A database whose keys and values hold every byte and every mark that a format gives a meaning to.
fn awkward() -> Bed {
    let bed = Bed::new();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let all: Vec<u8> = (0..=255).collect();
    let samples: [&[u8]; 12] = [
        b"",
        &all,
        b"\"",
        b"a,b",
        b"a\tb",
        b"line\r\nline\n",
        b"\\n\\x41\\",
        b"\xff\xfe",
        "gr\u{fc}n".as_bytes(),
        b"{\"key\":\"k\"}",
        b" blank ",
        b"\r",
    ];
    let mut rows = String::new();
    for (n, sample) in samples.iter().enumerate() {
        rows += &format!("{}\t{}\n", hex(sample), hex(samples[samples.len() - 1 - n]));
    }
    run_with_input(bed.arguments("import", ["-", "--format", "tsv", "--hex"]), rows.as_bytes()).ok();
    assert_eq!(bed.run("scan", ["--count"]).ok(), "12\n");
    bed
}

#[test]
fn rows_of_any_bytes_come_back() {
    let bed = awkward();
    let expected = bed.run("scan", ["--hex"]).ok();
    for (name, options) in [
        ("a.tsv", &[][..]),
        ("b.tsv", &["--hex"]),
        ("c.tsv", &["--header"]),
        ("d.csv", &[]),
        ("e.csv", &["--hex", "--header"]),
        ("f.jsonl", &[]),
        ("g.ndjson", &["--hex"]),
        ("h.rows", &["--format", "csv"]),
    ] {
        let file = bed.path(name);
        let args = || [file.as_os_str()].into_iter().chain(options.iter().map(OsStr::new));
        bed.run("export", args()).ok();
        let other = Bed::new();
        other.run("import", args().chain([OsStr::new("--batch"), OsStr::new("5")])).ok();
        assert_eq!(other.run("scan", ["--hex"]).ok(), expected, "{name} {options:?}");
        let said = bed.run("export", args()).fails(1);
        assert!(said.contains("File exists"), "{said}");
    }
    let scanned = bed.run("scan", ["--json"]).ok();
    assert_eq!(scanned, fs::read_to_string(bed.path("f.jsonl")).unwrap(), "scan --json is what import reads");
    assert_eq!(scanned, bed.run("export", ["-", "--format", "jsonl"]).ok());
}

#[test]
fn raw_tsv_takes_backslashes_and_refuses_what_it_cannot_hold() {
    let bed = Bed::new();
    let (input, escaped) = (b"C:\\temp\tx\n", "C:\\\\temp\tx\n");
    let stdin = ["-", "--format", "tsv"];
    let said = run_with_input(bed.arguments("import", stdin), b"a\tb\nC:\\qemp\tx\n").fails(1);
    assert!(said.contains("-:2: ") && said.contains("--raw"), "{said}");
    run_with_input(bed.arguments("import", stdin.into_iter().chain(["--raw"])), input).ok();
    assert_eq!(bed.run("export", stdin).ok(), escaped);
    assert_eq!(bed.run("export", stdin.into_iter().chain(["--raw"])).ok_bytes(), input);
    bed.run("put", ["k", "a\\tb"]).ok();
    let refused = bed.run("export", stdin.into_iter().chain(["--raw", "--prefix", "k"])).fails(1);
    assert!(refused.contains("tsv needs --hex"), "{refused}");
}

#[test]
fn other_peoples_rows() {
    let bed = Bed::new();
    let cities = "name,country,\"people\r\n\"\r\nRiga,LV,605802\r\n\"St. John's, A\",AG,\"22,193\"\r\n\r\n";
    fs::write(bed.path("cities.csv"), cities).unwrap();
    let file = bed.path("cities.csv");
    let file = file.to_str().unwrap();
    assert!(bed.run("import", [file]).fails(1).contains("3 columns"));
    assert!(bed.run("import", [file, "--header", "--columns", "1,4"]).fails(1).contains("no column 4"));
    let answer = bed.run("import", [file, "--header", "--columns", "1,3", "--json"]).json();
    assert_eq!((&answer["records"], &answer["commits"]), (&2.into(), &1.into()));
    assert_eq!(bed.run("scan", NONE).ok(), "Riga\t605802\nSt. John's, A\t22,193\n");

    let objects = "{\"id\":\"7\",\"doc\":{\"pi\": 3.140,\"big\":12345678901234567890123},\"key_base16\":true}\n\n\
                   {\"doc\":\"text \\u00fc\",\"id\":\"x\"}\n";
    fs::write(bed.path("objects.jsonl"), objects).unwrap();
    let args =
        |name: &str| [bed.path(name).into_os_string(), "--key-field=id".into(), "--value-field=doc".into()];
    bed.run("import", args("objects.jsonl")).ok();
    assert_eq!(bed.run("get", ["7"]).ok(), "{\"pi\": 3.140,\"big\":12345678901234567890123}\n");
    assert_eq!(bed.run("get", ["x"]).ok(), "text \u{fc}\n");
    for (line, why) in [
        ("[1]", "not an object"),
        ("{\"id\":1}", "no field \"doc\""),
        ("{\"id\":1,\"doc\":2", "not an object"),
        ("{\"id\":\"\\ud800\",\"doc\":2}", "field \"id\""),
    ] {
        fs::write(bed.path("bad.jsonl"), format!("{{\"id\":1,\"doc\":1}}\n{line}\n")).unwrap();
        let said = bed.run("import", args("bad.jsonl")).fails(1);
        assert!(said.contains("bad.jsonl:2: ") && said.contains(why), "{line}: {said}");
    }
}

#[test]
fn a_failed_import_keeps_whole_commits_and_says_how_many_records() {
    let bed = Bed::new();
    let mut rows: String = (0..25).map(|n| format!("k{n:02}\tv\n")).collect();
    rows.push_str("no tab\n");
    fs::write(bed.path("rows.tsv"), rows).unwrap();
    let said = bed.run("import", [bed.path("rows.tsv").as_os_str(), "--batch=10".as_ref()]).fails(1);
    assert!(said.contains("20 records were committed") && said.contains("rows.tsv:26: "), "{said}");
    assert_eq!(bed.run("scan", ["--count"]).ok(), "20\n");
}

#[test]
fn keys_and_values_over_their_limits_are_refused_with_their_row() {
    let bed = Bed::new();
    let rows = format!("k\tv\n{}\tv\n", "x".repeat(65_536));
    let said = run_with_input(bed.arguments("import", ["-", "--format", "tsv"]), rows.as_bytes()).fails(1);
    assert!(said.contains("-:2: a key of 65536 bytes"), "{said}");
}

#[test]
fn a_directory_comes_back() {
    let bed = Bed::new();
    let source = bed.path("source");
    let all: Vec<u8> = (0..=255).collect();
    let odd = OsStr::from_bytes(b"odd\xff name");
    for dir in ["a", "a/b", "a.b"] {
        fs::create_dir(source.join(dir)).or_else(|_| fs::create_dir_all(source.join(dir))).unwrap();
    }
    fs::write(source.join("a/b/file"), &all).unwrap();
    fs::write(source.join("a/empty"), "").unwrap();
    fs::write(source.join("a.b/c"), "c").unwrap();
    fs::write(source.join(odd), "odd").unwrap();
    fs::write(bed.path("outside"), "secret").unwrap();
    symlink(bed.path("outside"), source.join("link")).unwrap();
    symlink(bed.path(""), source.join("a/up")).unwrap();
    let imported = bed.run("import", [&source]);
    assert!(imported.stderr.contains("2 symbolic links"), "{imported:?}");
    imported.ok();
    assert_eq!(bed.run("scan", ["--keys-only"]).ok(), "a.b/c\na/b/file\na/empty\nodd\\xff name\n");

    let copy = bed.path("copy");
    bed.run("export", [&copy]).ok();
    assert_eq!(fs::read(copy.join("a/b/file")).unwrap(), all);
    assert_eq!(fs::read(copy.join("a/empty")).unwrap(), b"");
    assert_eq!(fs::read(copy.join(odd)).unwrap(), b"odd");
    let other = Bed::new();
    other.run("import", [&copy]).ok();
    assert_eq!(other.run("scan", NONE).ok(), bed.run("scan", NONE).ok());
    let mine = bed.path("mine");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("notes"), "mine").unwrap();
    let said = bed.run("export", [&mine]).fails(1);
    assert!(said.contains("File exists"), "only a new or an empty directory: {said}");
    assert_eq!(files(&mine).len(), 1, "nothing was added");
}

#[test]
fn keys_that_are_too_long_for_a_file_are_refused_before_anything_is_written() {
    for key in ["b".repeat(300), "b/".repeat(2_200) + "b"] {
        let bed = Bed::new();
        bed.run("put", ["a", "v"]).ok();
        bed.run("put", [&key[..], "v"]).ok();
        let out = bed.path("out");
        let said = bed.run("export", [&out]).fails(1);
        assert!(said.contains("is no path for a file"), "{said}");
        assert!(!out.exists());
    }
}

#[test]
fn keys_that_lead_out_of_a_directory_are_refused_before_anything_is_written() {
    for key in ["../x", "/abs", "a/../../x", "", "a/", "a//b", ".", "a\\x00b", "fine/below"] {
        let bed = Bed::new();
        bed.run("put", ["fine", "v"]).ok();
        bed.run("put", ["--", key, "v"]).ok();
        let out = bed.path("out");
        let said = bed.run("export", [&out]).fails(1);
        assert!(said.contains("is no path for a file"), "{key}: {said}");
        assert!(!out.exists(), "{key}");
        assert_eq!(files(&bed.path("")).len(), 1, "nothing but the database: {key}");
    }
}

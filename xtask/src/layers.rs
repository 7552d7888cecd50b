//! `cargo xtask layers`: the arrows between the crates, and what each layer must not name.
//!
//! ```text
//!   L6  cli ── (readers: format, wal, sstable, manifest; the planner, to simulate: compaction)
//!   L5  db
//!   L4  engine
//!   L3  compaction
//!   L2  memtable   sstable   manifest
//!   L1  cursor     wal
//!   L0  format     vfs
//! ```
//!
//! Arrows point down. [`CRATES`] is the whole list of them, third-party crates included: an edge of `cargo metadata`
//! that is not in the table fails, and so does a crate without a row. [`ABSENCES`] are the invariants that no manifest
//! can express; they hold for `crates/*/src` outside tests.

use std::path::Path;

use serde_json::Value;

use crate::process::{self, Command, TextFile};
use crate::source::{self, Finding};

/// What one workspace crate may depend on.
struct Row {
    name: &'static str,
    level: u8,
    /// Workspace crates, as normal dependencies.
    below: &'static [&'static str],
    /// Third-party crates, as normal dependencies.
    third_party: &'static [&'static str],
}

/// The arrows. A new one is a change of the design; a new third-party name needs its reason in the commit.
const CRATES: &[Row] = &[
    Row {
        name: "pebble-format",
        level: 0,
        below: &[],
        third_party: &["crc32c", "thiserror", "xxhash-rust", "zerocopy"],
    },
    Row { name: "pebble-vfs", level: 0, below: &[], third_party: &["libc", "memmap2"] },
    Row { name: "pebble-cursor", level: 1, below: &["pebble-format"], third_party: &[] },
    Row {
        name: "pebble-wal",
        level: 1,
        below: &["pebble-format", "pebble-vfs"],
        third_party: &["atomic-wait", "tracing", "zerocopy"],
    },
    Row {
        name: "pebble-memtable",
        level: 2,
        below: &["pebble-format", "pebble-cursor"],
        third_party: &["arc-swap"],
    },
    Row {
        name: "pebble-sstable",
        level: 2,
        below: &["pebble-format", "pebble-vfs", "pebble-cursor"],
        third_party: &["lz4_flex", "zerocopy", "zstd"],
    },
    Row {
        name: "pebble-manifest",
        level: 2,
        below: &["pebble-format", "pebble-vfs", "pebble-cursor"],
        third_party: &["zerocopy"],
    },
    Row {
        name: "pebble-compaction",
        level: 3,
        below: &["pebble-format", "pebble-cursor", "pebble-sstable", "pebble-manifest"],
        third_party: &[],
    },
    Row {
        name: "pebble-engine",
        level: 4,
        below: &[
            "pebble-format",
            "pebble-vfs",
            "pebble-cursor",
            "pebble-wal",
            "pebble-memtable",
            "pebble-sstable",
            "pebble-manifest",
            "pebble-compaction",
        ],
        third_party: &["arc-swap", "crossbeam-channel", "thiserror", "tracing"],
    },
    Row { name: "pebble-db", level: 5, below: &["pebble-engine", "pebble-format"], third_party: &["bytes"] },
    Row {
        name: "pebble-cli",
        level: 6,
        below: &[
            "pebble-db",
            "pebble-format",
            "pebble-wal",
            "pebble-sstable",
            "pebble-manifest",
            "pebble-compaction",
        ],
        third_party: &["clap", "indicatif", "serde", "serde_json"],
    },
    Row {
        name: "pebble-bench",
        level: 6,
        below: &[
            "pebble-format",
            "pebble-vfs",
            "pebble-cursor",
            "pebble-wal",
            "pebble-memtable",
            "pebble-sstable",
            "pebble-manifest",
            "pebble-compaction",
            "pebble-engine",
            "pebble-db",
        ],
        third_party: &["crabgrind", "crc32c", "criterion", "crossbeam-skiplist", "tempfile", "zerocopy"],
    },
    Row { name: "pebble-peers", level: 6, below: &["pebble-db"], third_party: &["clap", "serde_json"] },
    Row { name: "xtask", level: 6, below: &[], third_party: &["serde_json"] },
];

/// Third-party crates that tests of any crate may use.
const FOR_TESTS: &[&str] = &["criterion", "loom", "proptest", "shuttle", "tempfile", "tracing"];

/// Third-party crates whose primitives stand in for std's in models, under the cfg of the same name.
const MODEL_CHECKERS: &[&str] = &["loom", "shuttle"];

/// Third-party crates that a build takes only if it asks for them, with the reason.
const OPTIONAL: &[(&str, &str)] = &[
    ("crabgrind", "it compiles against the headers of valgrind, which not every machine has"),
    ("zstd", "it compiles C, which the default build does not have to"),
];

/// The manifest of the workspace beside the root's: the package that compares PebbleTree with other engines.
const PEERS_MANIFEST: &str = "benches/peers/Cargo.toml";

/// Engines that it compares with: optional, so that each can be left out. No crate of the root may use one.
const PEERS: &[&str] = &["fjall", "heed", "redb", "rocksdb", "sled"];

/// Pairs that must not meet, in tests neither, with the reason.
const STRANGERS: &[(&str, &str, &str)] = &[
    ("pebble-wal", "pebble-sstable", "the log and the table do not know each other"),
    ("pebble-sstable", "pebble-wal", "the log and the table do not know each other"),
    ("pebble-compaction", "pebble-memtable", "compaction reads cursors, whoever lends them"),
    ("pebble-compaction", "pebble-wal", "compaction never sees the log"),
    ("pebble-memtable", "pebble-vfs", "the memtable knows no files"),
];

/// One dependency as `cargo metadata` tells it.
#[derive(Clone, Debug)]
struct Edge {
    from: String,
    to: String,
    kind: Kind,
    optional: bool,
    /// Such as `cfg(loom)`; `None` for every platform.
    target: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Normal,
    Dev,
    Build,
}

/// Checks the arrows and the absences of the repository at `root`.
pub fn run(root: &Path) -> Result<(), String> {
    let (mut packages, mut edges) = (Vec::new(), Vec::new());
    for manifest in ["Cargo.toml", PEERS_MANIFEST] {
        let arguments =
            ["metadata", "--format-version", "1", "--no-deps", "--locked", "--manifest-path", manifest];
        let (its_packages, its_edges) = parse_metadata(&Command::cargo(&arguments).output(root)?)?;
        packages.extend(its_packages);
        edges.extend(its_edges);
    }
    let mut findings = check_packages(&packages);
    findings.extend(edges.iter().filter_map(check_edge));
    findings.extend(check_files(&process::text_files(root)?));
    source::verdict("layers", &findings)
}

fn parse_metadata(text: &str) -> Result<(Vec<String>, Vec<Edge>), String> {
    let metadata: Value = serde_json::from_str(text).map_err(|error| format!("cargo metadata: {error}"))?;
    let array = |value: &Value, key: &str| {
        value[key].as_array().cloned().ok_or_else(|| format!("cargo metadata: no array {key}"))
    };
    let string = |value: &Value, key: &str| {
        value[key].as_str().map(str::to_owned).ok_or_else(|| format!("cargo metadata: no string {key}"))
    };
    let (mut packages, mut edges) = (Vec::new(), Vec::new());
    for package in array(&metadata, "packages")? {
        let from = string(&package, "name")?;
        for dependency in array(&package, "dependencies")? {
            edges.push(Edge {
                from: from.clone(),
                to: string(&dependency, "name")?,
                kind: match dependency["kind"].as_str() {
                    None => Kind::Normal,
                    Some("dev") => Kind::Dev,
                    Some(_) => Kind::Build,
                },
                optional: dependency["optional"].as_bool().unwrap_or(false),
                target: dependency["target"].as_str().map(str::to_owned),
            });
        }
        packages.push(from);
    }
    Ok((packages, edges))
}

fn row(name: &str) -> Option<&'static Row> {
    CRATES.iter().find(|row| row.name == name)
}

/// The table and the workspace name the same crates.
fn check_packages(packages: &[String]) -> Vec<Finding> {
    let unknown = packages.iter().filter(|name| row(name).is_none());
    let unknown =
        unknown.map(|name| Finding::file("xtask/src/layers.rs", format!("crate {name} has no row")));
    let stale = CRATES.iter().filter(|row| !packages.iter().any(|name| name == row.name));
    let stale =
        stale.map(|row| Finding::file("xtask/src/layers.rs", format!("row {} has no crate", row.name)));
    unknown.chain(stale).collect()
}

fn check_edge(edge: &Edge) -> Option<Finding> {
    let from = row(&edge.from)?;
    let why = why_not(from, edge)?;
    let kind = match edge.kind {
        Kind::Normal => "",
        Kind::Dev => " (dev)",
        Kind::Build => " (build)",
    };
    let place = format!("dependency {} -> {}{kind}", edge.from, edge.to);
    Some(Finding::file(&place, why))
}

/// The reason against the edge; `None` when the design allows it.
fn why_not(from: &Row, edge: &Edge) -> Option<String> {
    let to = edge.to.as_str();
    if edge.kind == Kind::Build {
        return Some("no crate runs a build script".to_owned());
    }
    if let Some((_, _, why)) = STRANGERS.iter().find(|(a, b, _)| *a == from.name && *b == to) {
        return Some((*why).to_owned());
    }
    if let Some(target) = row(to) {
        let allowed = from.below.contains(&to) || (edge.kind == Kind::Dev && target.level < from.level);
        return (!allowed).then(|| {
            let (a, b) = (from.level, target.level);
            if b >= a {
                format!("arrows point down, and L{a} does not lie above L{b}")
            } else {
                format!("the design draws no such arrow; {} may use {:?}", from.name, from.below)
            }
        });
    }
    if from.name == "pebble-peers" && PEERS.contains(&to) {
        let why = "a peer is optional: a build takes those that it asks for";
        return (!edge.optional).then(|| why.to_owned());
    }
    // The models replace the primitives of production code, so their crates are normal dependencies, each under its own
    // cfg only.
    let for_models = MODEL_CHECKERS.contains(&to) && edge.target == Some(format!("cfg({to})"));
    let for_tests = edge.kind == Kind::Dev && FOR_TESTS.contains(&to);
    if let Some((_, why)) = OPTIONAL.iter().find(|(name, _)| *name == to && !edge.optional) {
        return Some(format!("is optional: {why}"));
    }
    if from.third_party.contains(&to) || for_models || for_tests {
        return None;
    }
    Some(match edge.kind {
        Kind::Dev => format!("not among the crates for tests {FOR_TESTS:?}"),
        _ => format!("not among its third-party crates {:?}; a new one needs its reason", from.third_party),
    })
}

/// Which sources an absence binds.
enum Scope {
    /// All crates but these.
    Except(&'static [&'static str]),
    /// Sources whose path begins with one of these.
    Under(&'static [&'static str]),
}

/// Paths that the sources of a scope do not name.
struct Absence {
    scope: Scope,
    names: &'static [&'static str],
    why: &'static str,
}

const PURE_IO: &[&str] = &[
    "std::fs",
    "io::Read",
    "io::Write",
    "io::Seek",
    "io::BufRead",
    "io::prelude",
    "io::stdin",
    "io::stdout",
];

/// The invariants of absence.
const ABSENCES: &[Absence] = &[
    Absence {
        scope: Scope::Except(&["pebble-vfs", "pebble-cli"]),
        names: &["std::fs"],
        why: "files are reached through pebble-vfs, so that the simulated one sees every call",
    },
    Absence {
        scope: Scope::Except(&["pebble-vfs", "pebble-cli"]),
        names: &["time::Instant", "time::SystemTime", "Instant::now", "SystemTime::now"],
        why: "time comes from the clock of pebble-vfs, so that a test can set it",
    },
    Absence {
        scope: Scope::Except(&["pebble-vfs"]),
        names: &["mmap", "munmap", "mremap", "memmap2", "Mmap", "MmapMut", "MmapOptions", "MmapRaw"],
        why: "only pebble-vfs maps memory",
    },
    Absence {
        scope: Scope::Except(&["pebble-engine", "pebble-cli"]),
        names: &["thread::spawn", "thread::Builder", "thread::scope"],
        why: "only the engine spawns threads",
    },
    Absence {
        scope: Scope::Under(&["crates/pebble-db/"]),
        names: &["Mutex", "RwLock", "std::thread", "unsafe"],
        why: "the facade holds names and promises: no lock, no thread, no unsafe",
    },
    Absence {
        scope: Scope::Under(&["crates/pebble-memtable/"]),
        names: &["std::path", "std::fs", "File", "pebble_vfs"],
        why: "the memtable knows no files",
    },
    Absence {
        scope: Scope::Under(&["crates/pebble-wal/"]),
        names: &["pebble_sstable"],
        why: "the log and the table do not know each other",
    },
    Absence {
        scope: Scope::Under(&["crates/pebble-sstable/"]),
        names: &["pebble_wal"],
        why: "the log and the table do not know each other",
    },
    Absence {
        scope: Scope::Under(&["crates/pebble-compaction/"]),
        names: &["pebble_memtable", "pebble_wal"],
        why: "compaction knows neither memtable nor log",
    },
    Absence {
        scope: Scope::Under(&[
            "crates/pebble-format/",
            "crates/pebble-cursor/",
            "crates/pebble-compaction/src/plan",
        ]),
        names: PURE_IO,
        why: "this layer is pure: bytes in, bytes out, no I/O",
    },
];

/// The crate and the rest of the path, for a source that the absences bind.
fn bound_source(path: &str) -> Option<&str> {
    let (name, rest) = path.strip_prefix("crates/")?.split_once('/')?;
    (rest.starts_with("src/") && rest.ends_with(".rs")).then_some(name)
}

/// Files that exist for tests only: `#[cfg(test)] mod name;` in their parent makes them so.
fn test_files(files: &[TextFile]) -> Vec<String> {
    let sources = files.iter().filter(|file| bound_source(&file.path).is_some());
    let prefixes = sources.flat_map(|file| {
        let stem = file.path.strip_suffix(".rs").unwrap_or(&file.path);
        let (parent, name) = stem.rsplit_once('/').unwrap_or(("", stem));
        let home = if matches!(name, "lib" | "main" | "mod") { parent } else { stem };
        source::test_modules(&source::code(&file.text))
            .into_iter()
            .map(move |module| format!("{home}/{module}"))
    });
    prefixes.collect()
}

fn check_files(files: &[TextFile]) -> Vec<Finding> {
    let tests = test_files(files);
    let is_test = |path: &str| {
        tests
            .iter()
            .any(|stem| path.strip_prefix(stem).is_some_and(|rest| rest == ".rs" || rest.starts_with('/')))
    };
    files
        .iter()
        .filter(|file| !is_test(&file.path))
        .flat_map(|file| check_file(&file.path, &file.text))
        .collect()
}

fn check_file(path: &str, text: &str) -> Vec<Finding> {
    let Some(name) = bound_source(path) else { return Vec::new() };
    let mentions = source::mentions(&source::production(&source::code(text)));
    let binding = ABSENCES.iter().filter(|absence| match absence.scope {
        Scope::Except(crates) => !crates.contains(&name),
        Scope::Under(prefixes) => prefixes.iter().any(|prefix| path.starts_with(prefix)),
    });
    let mut findings = Vec::new();
    for absence in binding {
        for mention in &mentions {
            if let Some(named) = absence.names.iter().find(|pattern| mention.contains(pattern)) {
                findings.push(Finding::at(path, mention.line, format!("names {named}: {}", absence.why)));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(from: &str, to: &str, kind: Kind) -> Edge {
        Edge { from: from.to_owned(), to: to.to_owned(), kind, optional: false, target: None }
    }

    fn why(edge: &Edge) -> Option<String> {
        check_edge(edge).map(|finding| finding.to_string())
    }

    #[test]
    fn the_table_itself_points_down() {
        for from in CRATES {
            for to in from.below {
                let to = row(to).unwrap_or_else(|| panic!("{to} has no row"));
                assert!(to.level < from.level, "{} -> {}", from.name, to.name);
                assert!(!STRANGERS.iter().any(|(a, b, _)| *a == from.name && *b == to.name));
            }
        }
    }

    #[test]
    fn allowed_edges_pass() {
        assert_eq!(why(&edge("pebble-wal", "pebble-format", Kind::Normal)), None);
        assert_eq!(why(&edge("pebble-db", "bytes", Kind::Normal)), None);
        assert_eq!(why(&edge("pebble-cursor", "proptest", Kind::Dev)), None);
        assert_eq!(why(&edge("pebble-db", "pebble-vfs", Kind::Dev)), None);
        let loom = Edge { target: Some("cfg(loom)".to_owned()), ..edge("pebble-wal", "loom", Kind::Normal) };
        let shuttle =
            Edge { to: "shuttle".to_owned(), target: Some("cfg(shuttle)".to_owned()), ..loom.clone() };
        assert_eq!((why(&loom), why(&shuttle)), (None, None));
        for (from, to) in [("pebble-peers", "rocksdb"), ("pebble-sstable", "zstd")] {
            let edge = Edge { optional: true, ..edge(from, to, Kind::Normal) };
            assert_eq!(why(&edge), None);
        }
    }

    #[test]
    fn each_wrong_edge_is_named_with_its_reason() {
        let cases = [
            (edge("pebble-format", "pebble-engine", Kind::Normal), "L0 does not lie above L4"),
            (edge("pebble-memtable", "pebble-sstable", Kind::Normal), "L2 does not lie above L2"),
            (edge("pebble-memtable", "pebble-sstable", Kind::Dev), "L2 does not lie above L2"),
            (edge("pebble-db", "pebble-wal", Kind::Normal), "draws no such arrow"),
            (edge("pebble-cli", "pebble-engine", Kind::Normal), "draws no such arrow"),
            (edge("pebble-memtable", "pebble-vfs", Kind::Dev), "knows no files"),
            (edge("pebble-sstable", "pebble-wal", Kind::Dev), "do not know each other"),
            (edge("pebble-compaction", "pebble-wal", Kind::Dev), "never sees the log"),
            (edge("pebble-sstable", "pebble-engine", Kind::Dev), "L2 does not lie above L4"),
            (edge("pebble-wal", "serde", Kind::Normal), "a new one needs its reason"),
            (edge("pebble-wal", "loom", Kind::Normal), "a new one needs its reason"),
            (edge("pebble-wal", "rand", Kind::Dev), "not among the crates for tests"),
            (edge("pebble-vfs", "cc", Kind::Build), "no crate runs a build script"),
            (edge("pebble-sstable", "zstd", Kind::Normal), "is optional: it compiles C"),
            (edge("pebble-peers", "rocksdb", Kind::Normal), "a peer is optional"),
            (edge("pebble-bench", "rocksdb", Kind::Normal), "a new one needs its reason"),
            (edge("pebble-peers", "pebble-engine", Kind::Normal), "draws no such arrow"),
            (edge("xtask", "pebble-db", Kind::Normal), "draws no such arrow"),
        ];
        for (edge, reason) in cases {
            let told = why(&edge).unwrap_or_else(|| panic!("{edge:?} passed"));
            assert!(told.contains(&edge.from) && told.contains(&edge.to) && told.contains(reason), "{told}");
        }
    }

    #[test]
    fn a_crate_without_a_row_and_a_row_without_a_crate_are_findings() {
        let mut packages: Vec<String> = CRATES.iter().map(|row| row.name.to_owned()).collect();
        assert!(check_packages(&packages).is_empty());
        packages[0] = "pebble-new".to_owned();
        let told: Vec<String> = check_packages(&packages).iter().map(Finding::to_string).collect();
        assert!(
            told[0].contains("pebble-new has no row") && told[1].contains("pebble-format has no crate"),
            "{told:?}"
        );
    }

    #[test]
    fn metadata_becomes_edges() {
        let text = r#"{"packages": [{"name": "a", "dependencies": [
            {"name": "b", "kind": null, "optional": false, "target": null},
            {"name": "c", "kind": "dev", "optional": true, "target": "cfg(loom)"}]}]}"#;
        let (packages, edges) = parse_metadata(text).unwrap();
        assert_eq!(packages, ["a"]);
        assert_eq!((edges[0].to.as_str(), edges[0].kind, edges[0].optional), ("b", Kind::Normal, false));
        assert_eq!(
            (edges[1].kind, edges[1].optional, edges[1].target.as_deref()),
            (Kind::Dev, true, Some("cfg(loom)"))
        );
        for broken in ["", "{}", r#"{"packages": [{}]}"#, r#"{"packages": [{"name": "a"}]}"#] {
            assert!(parse_metadata(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn each_absence_catches_what_it_forbids() {
        let cases = [
            ("pebble-engine", "use std::{fs, io};", "std::fs"),
            ("pebble-wal", "use std::time::{Duration, Instant as Tick};", "time::Instant"),
            ("pebble-engine", "let now = SystemTime::now();", "SystemTime::now"),
            ("pebble-sstable", "unsafe { libc::mmap(p) }", "mmap"),
            ("pebble-wal", "thread::spawn(f);", "thread::spawn"),
            ("pebble-cursor", "std::thread::scope(f);", "thread::scope"),
            ("pebble-db", "lock: std::sync::Mutex<u8>,", "Mutex"),
            ("pebble-db", "use std::thread;", "std::thread"),
            ("pebble-db", "unsafe { f() }", "unsafe"),
            ("pebble-memtable", "use std::path::Path;", "std::path"),
            ("pebble-memtable", "file: &dyn File,", "File"),
            ("pebble-wal", "use pebble_sstable::Table;", "pebble_sstable"),
            ("pebble-sstable", "use pebble_wal::Log;", "pebble_wal"),
            ("pebble-compaction", "use pebble_memtable::Memtable;", "pebble_memtable"),
            ("pebble-format", "use std::io::{Error, Read};", "io::Read"),
            ("pebble-cursor", "fn f(w: &mut impl io::Write) {}", "io::Write"),
        ];
        for (name, line, named) in cases {
            let path = format!("crates/{name}/src/some.rs");
            let found = check_file(&path, &format!("//! Doc.\n\n{line}\n"));
            assert!(
                found.iter().any(|f| f.line == 3 && f.message.starts_with(&format!("names {named}:"))),
                "{line}: {found:?}"
            );
            let tests = format!("#[cfg(test)]\nmod tests {{\n{line}\n}}\n");
            assert_eq!(check_file(&path, &tests), [], "in a test module");
            assert_eq!(check_file(&format!("crates/{name}/tests/all.rs"), line), [], "in tests/");
            assert_eq!(check_file(&path, &format!("// {line}\n")), [], "in a comment");
        }
    }

    #[test]
    fn the_owners_may_name_what_is_theirs() {
        let cases = [
            ("crates/pebble-vfs/src/os.rs", "use std::{fs, time::Instant}; use memmap2::MmapMut;"),
            ("crates/pebble-engine/src/scheduler.rs", "std::thread::Builder::new();"),
            (
                "crates/pebble-cli/src/import.rs",
                "use std::fs::File; std::thread::spawn(f); std::time::Instant::now();",
            ),
            (
                "crates/pebble-format/src/error.rs",
                "use std::io; fn f(e: io::Error) -> std::io::Result<()> {}",
            ),
            ("crates/pebble-compaction/src/run.rs", "use std::io::Write;"),
            ("crates/pebble-wal/src/log.rs", "use std::time::Duration; std::thread::yield_now();"),
        ];
        for (path, line) in cases {
            assert_eq!(check_file(path, line), [], "{path}");
        }
        assert_eq!(check_file("crates/pebble-compaction/src/plan.rs", "use std::io::Write;").len(), 1);
        assert_eq!(check_file("crates/pebble-compaction/src/plan/pick.rs", "use std::io::Write;").len(), 1);
    }

    #[test]
    fn a_file_of_tests_is_exempt_only_where_its_parent_says_so() {
        let file = |path: &str, text: &str| TextFile { path: path.to_owned(), text: text.to_owned() };
        let body = "use std::fs;";
        let declared = [
            file("crates/pebble-wal/src/lib.rs", "#[cfg(test)] mod tests;"),
            file("crates/pebble-wal/src/seg.rs", "#[cfg(test)] mod model;"),
            file("crates/pebble-wal/src/seg/model.rs", body),
            file("crates/pebble-wal/src/tests.rs", body),
            file("crates/pebble-wal/src/tests/more.rs", body),
        ];
        assert_eq!(check_files(&declared), []);
        let plain = [
            file("crates/pebble-wal/src/lib.rs", "mod tests;"),
            file("crates/pebble-wal/src/tests.rs", body),
        ];
        assert_eq!(check_files(&plain).len(), 1);
    }
}

//! `cargo xtask instructions`: what put, get, next and merge cost, in instructions, against the record of it.
//!
//! ```text
//!     bench `instructions` ── callgrind ──► a dump for each name ──► counts ──► compare ◄── benches/instructions.txt
//! ```
//!
//! A count does not move with the machine's load, so a small change is seen: more than [`TOLERANCE`] percent either
//! way fails, until it is accepted by name. Less would have to be accepted too: a record that is too high hides what
//! comes later. Another compiler counts otherwise, and so may another valgrind: there, and without valgrind, the
//! comparison is left out and the reason told. One thread.

use std::path::Path;

use crate::process::{self, Command};

/// Percent by which a count may differ from the record.
const TOLERANCE: f64 = 3.0;

const RECORD: &str = "benches/instructions.txt";

/// Where callgrind leaves its dumps.
const HOME: &str = "target/instructions";

const HEAD: &str = "\
# Instructions of one operation: `cargo xtask instructions` counts them, and fails where one moved by more than 3 %.
# `cargo xtask instructions --accept put,get` records what it counts for those names, and only for those.
";

/// Counts and compares. The counts of the `accepted` names are recorded first.
pub fn run(root: &Path, accepted: &[&str]) -> Result<(), String> {
    let path = root.join(RECORD);
    let told = |error: std::io::Error| format!("{RECORD}: {error}");
    let mut record = Record::parse(&std::fs::read_to_string(&path).map_err(told)?)?;
    let here = counter(root);
    if let Some(why) = left_out(&record, &here).filter(|_| accepted.is_empty()) {
        eprintln!("   SKIPPED: {why}");
        return Ok(());
    }
    let now = Record { counted_with: here?, counts: count(root)? };
    if !accepted.is_empty() {
        record.accept(&now, accepted)?;
        std::fs::write(&path, record.to_string()).map_err(told)?;
    }
    let rows = compare(&record.counts, &now.counts);
    println!("instructions of one operation, {}", now.counted_with);
    println!("  {:<8} {:>10} {:>10} {:>10}", "", "recorded", "now", "change");
    rows.iter().for_each(|row| println!("  {row}"));
    verdict(&rows)
}

/// Why nothing can be compared with the record here, if so.
fn left_out(record: &Record, here: &Result<String, String>) -> Option<String> {
    match here {
        Err(why) => Some(why.clone()),
        Ok(here) if *here == record.counted_with => None,
        Ok(here) => Some(format!("{RECORD} was counted with {}, here is {here}", record.counted_with)),
    }
}

/// Instructions that one operation takes.
#[derive(Clone, Debug, PartialEq)]
struct Count {
    name: String,
    instructions: f64,
}

/// What the record's file says.
#[derive(Clone, Debug, PartialEq)]
struct Record {
    /// Compiler, target and valgrind.
    counted_with: String,
    counts: Vec<Count>,
}

impl Record {
    fn parse(text: &str) -> Result<Self, String> {
        let (mut counted_with, mut counts) = (String::new(), Vec::new());
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(with) = line.strip_prefix("counted with ") {
                with.clone_into(&mut counted_with);
                continue;
            }
            let words = line.split_once(' ').map(|(name, count)| (name, count.trim().parse()));
            let Some((name, Ok(instructions))) = words else {
                return Err(format!("{RECORD}: no name and count: {line}"));
            };
            counts.push(Count { name: name.to_owned(), instructions });
        }
        Ok(Self { counted_with, counts })
    }

    /// Takes over the lines of these names, and no others. A name that is no longer counted leaves the record.
    fn accept(&mut self, now: &Self, names: &[&str]) -> Result<(), String> {
        for name in names {
            if find(&self.counts, name).or(find(&now.counts, name)).is_none() {
                let known: Vec<_> = now.counts.iter().map(|count| count.name.as_str()).collect();
                return Err(format!(
                    "instructions: nothing is called {name}; there are {}",
                    known.join(", ")
                ));
            }
        }
        // Counts of two compilers do not stand in one file.
        let stays = self.counts.iter().find(|count| !names.contains(&count.name.as_str()));
        if let Some(stays) = stays.filter(|_| self.counted_with != now.counted_with) {
            let (name, with) = (&stays.name, &self.counted_with);
            return Err(format!("instructions: {name} was counted with {with}: accept all names, or none"));
        }
        let counts = [&self.counts[..], &now.counts[..]].concat();
        let mut kept: Vec<Count> = Vec::new();
        for Count { name, .. } in counts {
            let from = if names.contains(&name.as_str()) { &now.counts } else { &self.counts };
            if find(&kept, &name).is_none() {
                kept.extend(find(from, &name).map(|instructions| Count { name, instructions }));
            }
        }
        *self = Self { counted_with: now.counted_with.clone(), counts: kept };
        Ok(())
    }
}

/// The file, as [`Record::parse`] reads it.
impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{HEAD}counted with {}", self.counted_with)?;
        self.counts.iter().try_for_each(|count| writeln!(f, "{:<8} {:>10.1}", count.name, count.instructions))
    }
}

fn find(counts: &[Count], name: &str) -> Option<f64> {
    counts.iter().find(|count| count.name == name).map(|count| count.instructions)
}

/// One name, on both sides.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    name: String,
    recorded: Option<f64>,
    now: Option<f64>,
}

impl Row {
    /// In percent of the record, where there are both.
    fn change(&self) -> Option<f64> {
        let (recorded, now) = self.recorded.zip(self.now)?;
        Some((now - recorded) / recorded * 100.0)
    }

    /// What is wrong with it.
    fn fault(&self) -> Option<String> {
        let name = &self.name;
        match self.change() {
            Some(change) if change > TOLERANCE => Some(format!("{name} grew by {change:.1} %")),
            Some(change) if change < -TOLERANCE => Some(format!("{name} fell by {:.1} %", -change)),
            Some(_) => None,
            None if self.now.is_some() => Some(format!("{name} is not in the record")),
            None => Some(format!("{name} is in the record and was not counted")),
        }
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = |count: Option<f64>| count.map_or("-".to_owned(), |count| format!("{count:.1}"));
        // Rounded before it is printed, so that nothing is not printed as -0.0.
        let change = self.change().map(|change| (change * 10.0).round() / 10.0 + 0.0);
        let change = change.map_or("-".to_owned(), |change| format!("{change:+.1} %"));
        write!(f, "{:<8} {:>10} {:>10} {:>10}", self.name, count(self.recorded), count(self.now), change)?;
        self.fault().map_or(Ok(()), |fault| write!(f, "   {fault}"))
    }
}

/// The names of the record, then those that are new.
fn compare(record: &[Count], now: &[Count]) -> Vec<Row> {
    let new = now.iter().filter(|count| find(record, &count.name).is_none());
    let names = record.iter().chain(new).map(|count| count.name.clone());
    names.map(|name| Row { recorded: find(record, &name), now: find(now, &name), name }).collect()
}

fn verdict(rows: &[Row]) -> Result<(), String> {
    let faults: Vec<(&str, String)> =
        rows.iter().filter_map(|row| Some((row.name.as_str(), row.fault()?))).collect();
    if faults.is_empty() {
        return Ok(());
    }
    let (names, faults): (Vec<&str>, Vec<String>) = faults.into_iter().unzip();
    Err(format!(
        "instructions: {}; if that is as it should be:\n  cargo xtask instructions --accept {}",
        faults.join(", "),
        names.join(",")
    ))
}

/// What counts on this machine, or what is missing for it.
fn counter(root: &Path) -> Result<String, String> {
    let valgrind = Command::new(&["valgrind", "--version"]).output(root);
    let valgrind = valgrind.map_err(|_| "no valgrind".to_owned())?;
    let header = ["cc", "-E", "-x", "c", "-include", "valgrind/callgrind.h", "/dev/null"];
    Command::new(&header)
        .output(root)
        .map_err(|_| "no C compiler that finds valgrind/callgrind.h".to_owned())?;
    let rustc = Command::new(&["rustc", "-vV"]).output(root)?;
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: "));
    let version = rustc.lines().next().zip(host).ok_or("rustc -vV tells no host")?;
    Ok(format!("{}, {}, {}", version.0, version.1, valgrind.trim()))
}

/// Builds the bench as users build the engine, and runs it under callgrind.
fn count(root: &Path) -> Result<Vec<Count>, String> {
    let bench = ["-p", "pebble-bench", "--bench", "instructions", "--features", "callgrind"];
    let build = ["build", "--release", "--locked", "--quiet", "--message-format", "json-render-diagnostics"];
    let build = Command::cargo(&[&build[..], &bench].concat()).with_env("CARGO_TARGET_DIR", "target");
    let binary =
        process::executables(&build.output(root)?).pop().ok_or_else(|| format!("no binary: {build}"))?;
    let told = |error: std::io::Error| format!("{HOME}: {error}");
    let home = root.join(HOME);
    match std::fs::remove_dir_all(&home) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(told(error)),
        _ => {}
    }
    std::fs::create_dir_all(&home).map_err(told)?;
    let dumps_to = format!("--callgrind-out-file={HOME}/dump");
    // Nothing is counted before the bench asks for it, which makes what it prepares some ten times faster.
    let valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", &dumps_to, &binary];
    let operations = Command::new(&valgrind).output(root)?;
    let mut dumps = Vec::new();
    for entry in std::fs::read_dir(&home).map_err(told)? {
        dumps.push(std::fs::read_to_string(entry.map_err(told)?.path()).map_err(told)?);
    }
    counts(&operations, &dumps)
}

/// Counts from the bench's lines, each a name and a number of operations, and callgrind's dumps, each of one name.
fn counts(operations: &str, dumps: &[String]) -> Result<Vec<Count>, String> {
    let field = |dump: &str, key: &str| {
        dump.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim().to_owned())
    };
    let of_line = |line: &str| {
        let (name, operations) = line.split_once(' ')?;
        let its_own = |dump: &&String| {
            field(dump, "desc: Trigger: Client Request:").is_some_and(|trigger| trigger == name)
        };
        let total: f64 = field(dumps.iter().find(its_own)?, "totals:")?.parse().ok()?;
        Some(Count { name: name.to_owned(), instructions: total / operations.parse::<f64>().ok()? })
    };
    let counts = operations.lines().map(|line| of_line(line).ok_or_else(|| format!("no count for: {line}")));
    counts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(counted_with: &str, counts: &[(&str, f64)]) -> Record {
        let count = |&(name, instructions): &(&str, f64)| Count { name: name.to_owned(), instructions };
        Record { counted_with: counted_with.to_owned(), counts: counts.iter().map(count).collect() }
    }

    fn fault(recorded: &[(&str, f64)], now: &[(&str, f64)]) -> String {
        let counts = |of| record("", of).counts;
        verdict(&compare(&counts(recorded), &counts(now))).unwrap_err()
    }

    #[test]
    fn up_to_three_percent_either_way_is_the_same() {
        let rows = compare(
            &record("", &[("put", 1000.0), ("get", 1000.0)]).counts,
            &record("", &[("put", 1030.0), ("get", 970.0)]).counts,
        );
        assert_eq!(verdict(&rows), Ok(()));
        assert_eq!(rows[0].to_string(), "put          1000.0     1030.0     +3.0 %");
    }

    #[test]
    fn what_moved_is_named_with_the_command_that_accepts_it() {
        let error = fault(
            &[("put", 1000.0), ("get", 1000.0), ("next", 10.0)],
            &[("put", 1031.0), ("get", 960.0), ("next", 10.0)],
        );
        let told = "put grew by 3.1 %, get fell by 4.0 %; if that is as it should be:\n";
        assert!(error.contains(told), "{error}");
        assert!(error.ends_with("\n  cargo xtask instructions --accept put,get"), "{error}");
    }

    #[test]
    fn a_name_on_one_side_only_is_a_fault() {
        let error = fault(&[("put", 1.0)], &[("get", 1.0)]);
        assert!(
            error.contains("put is in the record and was not counted, get is not in the record"),
            "{error}"
        );
    }

    #[test]
    fn only_what_is_named_is_accepted() {
        let mut old = record("a", &[("put", 1.0), ("get", 2.0), ("gone", 3.0)]);
        let now = record("a", &[("put", 10.0), ("get", 20.0), ("new", 30.0)]);
        old.accept(&now, &["get", "new"]).unwrap();
        assert_eq!(old, record("a", &[("put", 1.0), ("get", 20.0), ("gone", 3.0), ("new", 30.0)]));
        old.accept(&now, &["gone"]).unwrap();
        assert_eq!(old, record("a", &[("put", 1.0), ("get", 20.0), ("new", 30.0)]));
    }

    #[test]
    fn an_unknown_name_is_not_accepted() {
        let mut old = record("a", &[("put", 1.0)]);
        let error = old.accept(&record("a", &[("put", 2.0), ("get", 3.0)]), &["put", "got"]).unwrap_err();
        assert!(error.contains("nothing is called got; there are put, get"), "{error}");
        assert_eq!(old, record("a", &[("put", 1.0)]));
    }

    #[test]
    fn another_compiler_takes_all_names_or_none() {
        let mut old = record("a", &[("put", 1.0), ("get", 2.0)]);
        let now = record("b", &[("put", 10.0), ("get", 20.0)]);
        let error = old.accept(&now, &["put"]).unwrap_err();
        assert!(error.contains("get was counted with a: accept all names"), "{error}");
        old.accept(&now, &["put", "get"]).unwrap();
        assert_eq!(old, now);
    }

    #[test]
    fn a_comparison_left_out_says_why() {
        let record = record("rustc 1.95.0, x86_64", &[]);
        assert_eq!(left_out(&record, &Ok("rustc 1.95.0, x86_64".to_owned())), None);
        let why = left_out(&record, &Ok("rustc 1.96.0, x86_64".to_owned())).unwrap();
        assert!(
            why.ends_with("was counted with rustc 1.95.0, x86_64, here is rustc 1.96.0, x86_64"),
            "{why}"
        );
        assert_eq!(left_out(&record, &Err("no valgrind".to_owned())), Some("no valgrind".to_owned()));
    }

    #[test]
    fn the_record_is_read_as_it_is_written() {
        let counts = record("rustc 1.2.3 (abc), x86_64, valgrind-3.19.0", &[("put", 1894.9), ("merge", 7.0)]);
        assert_eq!(Record::parse(&counts.to_string()), Ok(counts));
        assert!(Record::parse("put many\n").unwrap_err().ends_with("put many"));
        let committed = std::fs::read_to_string(process::repository_root().join(RECORD)).unwrap();
        assert_eq!(Record::parse(&committed).unwrap().to_string(), committed);
    }

    #[test]
    fn a_dump_belongs_to_the_name_in_it() {
        let dump = |trigger: &str, totals: u64| {
            format!("version: 1\ndesc: Trigger: {trigger}\n\nevents: Ir\nsummary: 1\ntotals: {totals}\n")
        };
        let dumps = [
            dump("Program termination", 9),
            dump("Client Request: get", 50),
            dump("Client Request: put", 30),
        ];
        let counted = record("", &[("put", 3.0), ("get", 12.5)]).counts;
        assert_eq!(counts("put 10\nget 4\n", &dumps), Ok(counted));
        assert_eq!(counts("put 10\nnext 4\n", &dumps), Err("no count for: next 4".to_owned()));
    }
}

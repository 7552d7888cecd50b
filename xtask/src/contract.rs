//! `cargo xtask contract`: runs the campaign, and prints what stands behind each row of `docs/contract.md`.
//!
//! ```text
//!     docs/contract.md ──► rows: I1 .. I10, and the ids of the tables' first cells
//!     tests ──► PEBBLE_CONTRACT, a line of JSON each: which test ran how many cases of what, behind which rows
//!                                                              │
//!     one table; an error for a row without a test, a test behind no row, a total below its floor
//! ```
//!
//! The tests write the account (`crates/pebble-db/tests/all/campaign.rs`). Everything here but the run itself is pure,
//! on one thread.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use crate::process::Command;

/// The page whose rows must have tests.
const PAGE: &str = "docs/contract.md";

/// Where the campaign keeps its account, unless told otherwise.
const ACCOUNT: &str = "target/contract.jsonl";

/// The least that a run must have gone through, by unit. The page's section 3 tells the same figures.
const FLOORS: &[(&str, u64)] = &[
    ("images", 250_000),
    ("faults", 65_000),
    ("sequences", 2_800),
    ("kills", 300),
    ("flips", 100_000),
    ("operations", 1_000_000),
];

/// Runs the campaign and judges its account.
pub fn run(root: &Path) -> Result<(), String> {
    let account = root.join(ACCOUNT);
    match std::fs::remove_file(&account) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(format!("{}: {error}", account.display()));
        }
        _ => {}
    }
    std::fs::create_dir_all(root.join("target")).map_err(|error| format!("target: {error}"))?;
    Command::cargo(&["test", "--locked", "-p", "pebble-db", "--test", "all"])
        .with_env("PEBBLE_CONTRACT", &account.to_string_lossy())
        .run(root)?;
    read(root, ACCOUNT)
}

/// Judges the account of tests that ran already.
pub fn read(root: &Path, account: &str) -> Result<(), String> {
    let file =
        |path: &str| std::fs::read_to_string(root.join(path)).map_err(|error| format!("{path}: {error}"));
    let rows = rows(&file(PAGE)?)?;
    let account = Account::parse(&file(account)?)?;
    println!("{}", account.table(&rows));
    let failures = account.judge(&rows);
    if failures.is_empty() { Ok(()) } else { Err(format!("contract:\n  {}", failures.join("\n  "))) }
}

/// A line of the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    id: String,
    title: String,
}

/// The rows of the page, in its order: `- **I1** ..` and ``| `id` | title | ..``.
fn rows(page: &str) -> Result<Vec<Row>, String> {
    let mut rows: Vec<Row> = Vec::new();
    for line in page.lines() {
        let invariant = line.strip_prefix("- **").and_then(|rest| rest.split_once("** "));
        let invariant = invariant
            .filter(|(id, _)| id.strip_prefix('I').is_some_and(|number| number.parse::<u32>().is_ok()));
        let cell = line.strip_prefix("| `").and_then(|rest| rest.split_once("` | "));
        let Some((id, rest)) = invariant.or(cell) else { continue };
        if rows.iter().any(|row| row.id == id) {
            return Err(format!("{PAGE}: row {id} stands there twice"));
        }
        let title = rest.split(['|', ':', ';']).next().unwrap_or_default().trim();
        rows.push(Row { id: id.to_owned(), title: title.to_owned() });
    }
    if rows.is_empty() { Err(format!("{PAGE}: no row")) } else { Ok(rows) }
}

/// What stands behind one row.
#[derive(Debug, Default)]
struct Behind<'a> {
    tests: BTreeSet<&'a str>,
    cases: BTreeMap<&'a str, u64>,
}

/// Everything that was counted.
#[derive(Debug)]
struct Account {
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    test: String,
    unit: String,
    cases: u64,
    rows: Vec<String>,
}

impl Account {
    fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().enumerate().map(|(at, text)| {
            let wrong = || format!("line {} of the account is not one: {text}", at + 1);
            let value: Value = serde_json::from_str(text).map_err(|_| wrong())?;
            let string = |key: &str| value[key].as_str().map(str::to_owned).ok_or_else(wrong);
            let rows = value["rows"].as_array().ok_or_else(wrong)?;
            Ok(Line {
                test: string("test")?,
                unit: string("unit")?,
                cases: value["cases"].as_u64().ok_or_else(wrong)?,
                rows: rows.iter().filter_map(|row| Some(row.as_str()?.to_owned())).collect(),
            })
        });
        Ok(Self { lines: lines.collect::<Result<_, String>>()? })
    }

    fn behind(&self, id: &str) -> Behind<'_> {
        let mut behind = Behind::default();
        for line in self.lines.iter().filter(|line| line.rows.iter().any(|row| row == id)) {
            behind.tests.insert(&line.test);
            *behind.cases.entry(&line.unit).or_default() += line.cases;
        }
        behind
    }

    fn total(&self, unit: &str) -> u64 {
        self.lines.iter().filter(|line| line.unit == unit).map(|line| line.cases).sum()
    }

    /// Everything that is wrong, in words.
    fn judge(&self, rows: &[Row]) -> Vec<String> {
        let mut failures = Vec::new();
        for row in rows {
            let behind = self.behind(&row.id);
            if behind.cases.values().sum::<u64>() == 0 {
                failures.push(format!("row {} has no test behind it", row.id));
            }
        }
        for line in &self.lines {
            for id in line.rows.iter().filter(|id| rows.iter().all(|row| row.id != **id)) {
                failures.push(format!("{} counts to {id}, which is no row of {PAGE}", line.test));
            }
        }
        for (unit, floor) in FLOORS {
            let total = self.total(unit);
            if total < *floor {
                failures.push(format!("{} {unit}, and {} are the least", grouped(total), grouped(*floor)));
            }
        }
        failures
    }

    /// Row, what it is about, the cases by unit, the tests; then the totals.
    fn table(&self, rows: &[Row]) -> String {
        let mut text = String::from("the contract, row by row\n\n");
        // Writing to a string cannot fail.
        let mut put = |line: String| _ = writeln!(text, "{}", line.trim_end());
        for row in rows {
            let behind = self.behind(&row.id);
            let cases: Vec<_> =
                behind.cases.iter().map(|(unit, cases)| format!("{} {unit}", grouped(*cases))).collect();
            let tests: Vec<_> = behind.tests.iter().copied().collect();
            put(format!("{:<20} {}", row.id, row.title));
            put(format!(
                "{:<20}   {}",
                "",
                if cases.is_empty() { "NOTHING".into() } else { cases.join(", ") }
            ));
            put(format!("{:<20}   {}", "", tests.join(", ")));
        }
        put(String::new());
        for (unit, floor) in FLOORS {
            let total = self.total(unit);
            let verdict = if total < *floor { "TOO FEW" } else { "" };
            put(format!("{:>14} {unit:<12} at least {:<10} {verdict}", grouped(total), grouped(*floor)));
        }
        put(format!("{:>14} other cases", grouped(self.total("cases"))));
        text
    }
}

/// With commas between the thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const LITTLE: &str = "# The contract\n\n- **I1** A batch: all.\n- **Bold** no row\n\n| row | fault | what |\n\
                        |---|---|---|\n| `kill` | kill -9; abort | fine |\n| a `kill` | no row |\n";

    fn line(test: &str, unit: &str, cases: u64, rows: &str) -> String {
        format!("{{\"test\":\"{test}\",\"unit\":\"{unit}\",\"cases\":{cases},\"rows\":[{rows}]}}\n")
    }

    /// An account of the little page that is just enough.
    fn enough() -> String {
        let floors = FLOORS.iter().map(|(unit, floor)| line("a::test", unit, *floor, "\"I1\",\"kill\""));
        floors.collect()
    }

    fn judged(account: &str) -> Vec<String> {
        Account::parse(account).unwrap().judge(&rows(LITTLE).unwrap())
    }

    #[test]
    fn the_rows_are_those_with_an_id() {
        let row = |id: &str, title: &str| Row { id: id.to_owned(), title: title.to_owned() };
        assert_eq!(rows(LITTLE).unwrap(), [row("I1", "A batch"), row("kill", "kill -9")]);
        assert!(rows(&LITTLE.repeat(2)).unwrap_err().contains("I1 stands there twice"));
        assert!(rows("# Empty\n").is_err());
    }

    #[test]
    fn the_page_has_its_rows() {
        let page = std::fs::read_to_string(crate::process::repository_root().join(PAGE)).unwrap();
        let rows = rows(&page).unwrap();
        assert!(rows.len() >= 10 + 4 + 20, "{rows:?}");
        for id in ["I1", "I10", "mixed", "kill", "dropped", "private"] {
            assert!(rows.iter().any(|row| row.id == id), "{id}");
        }
        for (unit, floor) in FLOORS {
            let told = format!("| {} {unit}", grouped(*floor));
            assert!(page.contains(&told), "section 3 does not say {told}");
        }
    }

    #[test]
    fn enough_is_enough() {
        assert_eq!(judged(&enough()), [""; 0]);
    }

    #[test]
    fn a_row_without_a_test_fails() {
        assert_eq!(judged(&enough().replace(",\"kill\"", "")), ["row kill has no test behind it"]);
        let idle = enough().replace(",\"kill\"", "") + &line("idle", "cases", 0, "\"kill\"");
        assert_eq!(judged(&idle), ["row kill has no test behind it"], "no case is no test");
    }

    #[test]
    fn a_test_behind_no_row_fails() {
        let wrong = enough() + &line("a::typo", "cases", 1, "\"kil\"");
        assert_eq!(judged(&wrong), ["a::typo counts to kil, which is no row of docs/contract.md"]);
    }

    #[test]
    fn a_total_below_its_floor_fails() {
        for (unit, floor) in FLOORS {
            let short = enough().replace(
                &line("a::test", unit, *floor, "\"I1\",\"kill\""),
                &line("a::test", unit, *floor - 1, "\"I1\",\"kill\""),
            );
            let failures = judged(&short);
            assert!(failures.len() == 1 && failures[0].contains(unit), "{failures:?}");
        }
    }

    #[test]
    fn what_is_no_account_is_an_error() {
        assert!(Account::parse("{\"test\":1}\n").unwrap_err().contains("line 1"));
        assert!(Account::parse("half a li").is_err());
    }

    #[test]
    fn the_table_has_tests_cases_and_totals() {
        let account = Account::parse(&(enough() + &line("b", "kills", 1_000, "\"kill\""))).unwrap();
        let table = account.table(&rows(LITTLE).unwrap());
        assert!(table.contains("kill                 kill -9\n"), "{table}");
        assert!(table.contains("1,300 kills"), "{table}");
        assert!(table.contains("a::test, b\n"), "{table}");
        assert!(!table.contains("TOO FEW"), "{table}");
    }
}

//! A tree as text in, a plan as text out: the files `tests/plans/*.txt`, whose cases stand between empty lines.
//!
//! What a line that begins with `plan:`, `pressure:`, `range a-c:`, `cuts 1M 64K:` or `splits 3:` says is the answer.
//! With `PEBBLE_REWRITE=1` the answers are written into the files, to be read and committed.

use std::fs;
use std::path::Path;

use pebble_compaction::{RangePlan, cuts, plan, plan_range, pressure, splits};
use pebble_format::{OwnedKey, Seqno};

use crate::text::{Case, key_range, number};

/// The line of a question, with its answer.
fn answered(case: &Case, line: &str) -> Option<String> {
    let question =
        line.split_once(": ").map_or_else(|| line.strip_suffix(':'), |(question, _)| Some(question))?;
    let words: Vec<_> = question.split(' ').collect();
    let answer = match *words {
        ["plan"] => case.show(plan(&case.version, &case.busy, &case.policy, &case.hints()).as_ref()),
        ["pressure"] => {
            let out_of_reach = case.set_aside.iter().copied().collect();
            let pressure = pressure(&case.version, &out_of_reach, &case.policy);
            format!(
                "debt {}, deep {}, at most {} runs",
                pressure.debt_bytes, pressure.deep, pressure.runs_max
            )
        }
        ["range", range] => {
            let range = (range != "all").then(|| key_range(range));
            match plan_range(&case.version, &case.busy, &case.hints(), range.as_ref(), case.newest) {
                RangePlan::Next { plan, left_bytes } => {
                    format!("{}; {left_bytes} left", case.show(Some(&plan)))
                }
                RangePlan::Wait => "wait".into(),
                RangePlan::Done => "done".into(),
            }
        }
        ["cuts", bytes, min] => keys(&cuts(&case.version, number(bytes), number(min))),
        ["splits", parts] => {
            let plan = plan(&case.version, &case.busy, &case.policy, &case.hints()).unwrap();
            let splits = splits(&plan, &case.version, number(parts) as usize);
            assert!(splits.iter().all(|key| key.as_ref().trailer.seqno() == Seqno::MAX));
            keys(&splits)
        }
        _ => return None,
    };
    Some(format!("{question}: {answer}").trim_end().to_owned())
}

fn keys(keys: &[OwnedKey]) -> String {
    let keys = keys.iter().map(|key| String::from_utf8_lossy(key.as_ref().user_key).into_owned());
    keys.collect::<Vec<_>>().join(" ")
}

#[test]
fn trees_and_their_plans() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let cases = text.split("\n\n").map(|block| {
            let lines: Vec<&str> = block.lines().collect();
            let case = Case::parse(&lines);
            let lines = lines.iter().map(|line| answered(&case, line).unwrap_or_else(|| (*line).to_owned()));
            lines.collect::<Vec<_>>().join("\n")
        });
        let now = cases.collect::<Vec<_>>().join("\n\n") + "\n";
        if std::env::var_os("PEBBLE_REWRITE").is_some() {
            fs::write(&file, now).unwrap();
            continue;
        }
        for (then, now) in text.lines().zip(now.lines()) {
            assert_eq!(then, now, "{}", file.display());
        }
        assert_eq!(text, now, "{}", file.display());
    }
}

//! `cargo xtask tidy`: style as a test.
//!
//! Rules about one file are in [`check_file`], a pure function of path and text. Rules that need several files
//! (unsafe against its list, test modules, what a crate must have) take the whole list of files, equally pure.
//! The needles that the rules search for are put together at run time, so that this file passes its own check.

use std::path::Path;

use crate::process::{self, TextFile};
use crate::source::{self, Finding};

/// Lines of a source file before and beside its tests.
const SOURCE_LINES_MAX: usize = 600;
/// Lines of a file that is a test or a bench as a whole.
const TEST_LINES_MAX: usize = 1200;
/// Characters in a line of Rust.
const COLUMNS_MAX: usize = 120;
/// The list of the files that may hold `unsafe`.
const UNSAFE_LIST: &str = "docs/unsafe.md";

/// Checks every text file under `root`.
pub fn run(root: &Path) -> Result<(), String> {
    source::verdict("tidy", &check_files(&process::text_files(root)?))
}

fn check_files(files: &[TextFile]) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        files.iter().flat_map(|file| check_file(&file.path, &file.text)).collect();
    findings.extend(check_unsafe(files));
    findings.extend(check_test_modules(files));
    findings.extend(check_crates(files));
    findings
}

/// The rules that need nothing but the file itself.
fn check_file(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = check_machine_paths(path, text);
    let is_rust = path.ends_with(".rs");
    let is_page = path.ends_with(".md");
    if is_rust || is_page || path.ends_with(".toml") || path.starts_with(".ci/") {
        findings.extend(check_characters(path, text));
        findings.extend(check_marks(path, text));
    }
    if is_rust {
        findings.extend(check_rust(path, text));
    }
    if is_page && path.starts_with("docs/") {
        findings.extend(check_title(path, text));
    }
    findings
}

fn check_machine_paths(path: &str, text: &str) -> Vec<Finding> {
    let needles = ["work", "tmp", "root"].map(|name| format!("/{name}/"));
    let absolute = |line: &str, needle: &String| {
        let goes_on = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '}' | ')');
        line.match_indices(needle.as_str()).any(|(at, _)| !line[..at].ends_with(goes_on))
    };
    let found = numbered(text).filter_map(|(number, line)| {
        let needle = needles.iter().find(|needle| absolute(line, needle))?;
        Some(Finding::at(path, number, format!("an absolute path of one machine: {needle}")))
    });
    found.collect()
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split('\n').enumerate().map(|(index, line)| (index + 1, line))
}

fn check_characters(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in numbered(text) {
        if line.ends_with([' ', '\t']) {
            findings.push(Finding::at(path, number, "trailing blanks"));
        }
        if let Some(c) = line.chars().find(|&c| !is_allowed(c)) {
            findings.push(Finding::at(
                path,
                number,
                format!("the character {c:?}: write an escape or plain ASCII"),
            ));
        }
    }
    findings
}

/// ASCII without control characters, and blocks whose characters are visible and cannot pass for ASCII: Latin
/// letters and signs, Greek, dashes and quotes, super- and subscripts, arrows, mathematics, boxes and shapes, ticks.
fn is_allowed(c: char) -> bool {
    matches!(c,
        ' '..='~' | '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{ff}' | '\u{391}'..='\u{3c9}' | '\u{2010}'..='\u{2027}'
        | '\u{2030}'..='\u{205e}' | '\u{2070}'..='\u{209c}' | '\u{2190}'..='\u{22ff}' | '\u{2500}'..='\u{25ff}'
        | '\u{2713}'..='\u{2718}')
}

fn check_marks(path: &str, text: &str) -> Vec<Finding> {
    let marks = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]].map(|halves| halves.concat());
    let macros = [["to", "do!("], ["unimple", "mented!("]].map(|halves| halves.concat());
    let found = numbered(text).filter_map(|(number, line)| {
        let mut words = line.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        let word = words.find(|word| marks.iter().any(|mark| mark == word));
        let call = macros.iter().map(String::as_str).find(|call| line.contains(call));
        let mark = word.or(call)?;
        Some(Finding::at(path, number, format!("{mark} is an unfinished mark: finish it or open an issue")))
    });
    found.collect()
}

/// Whether the whole file is a test or a bench.
fn is_test_file(path: &str) -> bool {
    path.split('/').any(|part| matches!(part, "tests" | "benches" | "tests.rs"))
}

fn check_rust(path: &str, text: &str) -> Vec<Finding> {
    let code = source::code(text);
    let mut findings = Vec::new();
    let (lines, lines_max) = match is_test_file(path) {
        true => (text.lines().count(), TEST_LINES_MAX),
        false => (source::production_lines(&code), SOURCE_LINES_MAX),
    };
    if lines > lines_max {
        findings
            .push(Finding::file(path, format!("{lines} lines of {lines_max} allowed: one idea per file")));
    }
    for (number, line) in numbered(text) {
        let columns = line.chars().count();
        if columns > COLUMNS_MAX {
            findings.push(Finding::at(path, number, format!("{columns} columns of {COLUMNS_MAX} allowed")));
        }
    }
    let call = ["db", "g!("].concat();
    for (number, line) in numbered(&code.iter().collect::<String>()) {
        if line.contains(&call) {
            findings.push(Finding::at(
                path,
                number,
                format!("{call} is for the desk: use tracing or a test"),
            ));
        }
    }
    let in_crate = path.starts_with("crates/") && path.split('/').nth(2) == Some("src");
    if in_crate && !text.starts_with("//!") {
        findings.push(Finding::at(path, 1, "a file opens with //! what it is, and its threading rule"));
    }
    findings
}

fn check_title(path: &str, text: &str) -> Vec<Finding> {
    let mut fenced = false;
    let titles = text.lines().filter(|line| {
        fenced ^= line.trim_start().starts_with("```");
        !fenced && line.starts_with("# ")
    });
    match (text.starts_with("# "), titles.count()) {
        (true, 1) => Vec::new(),
        (false, _) => vec![Finding::at(path, 1, "a page begins with its title, `# ...`")],
        (true, count) => vec![Finding::file(path, format!("{count} titles: a page has one `# ` line"))],
    }
}

/// What a file holds: any `unsafe` at all, and how many blocks. A function, an implementation or an attribute is
/// `unsafe` without being a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Unsafe {
    words: usize,
    blocks: usize,
}

fn count_unsafe(text: &str) -> Unsafe {
    let code: String = source::code(text).iter().collect();
    let mut count = Unsafe::default();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    for (at, word) in code.match_indices("unsafe") {
        let after = &code[at + word.len()..];
        if code[..at].ends_with(is_word) || after.starts_with(is_word) {
            continue;
        }
        count.words += 1;
        count.blocks += usize::from(after.trim_start().starts_with('{'));
    }
    count
}

/// `unsafe` stands only where the list says, and as often: a row says ``| `crates/x/src/y.rs` | blocks | .. |``.
fn check_unsafe(files: &[TextFile]) -> Vec<Finding> {
    let Some(page) = files.iter().find(|file| file.path == UNSAFE_LIST) else {
        return vec![Finding::file(UNSAFE_LIST, "the list of the files that hold unsafe is missing")];
    };
    let mut findings = Vec::new();
    let mut listed: Vec<&str> = Vec::new();
    for (number, line) in numbered(&page.text) {
        let Some((path, rest)) = line.strip_prefix("| `").and_then(|line| line.split_once("` |")) else {
            continue;
        };
        if !path.ends_with(".rs") {
            continue;
        }
        let told = |message: String| Finding::at(UNSAFE_LIST, number, message);
        if listed.contains(&path) {
            findings.push(told(format!("{path} is listed twice")));
        }
        listed.push(path);
        let blocks = rest.split('|').next().unwrap_or("").trim().parse::<usize>();
        let count = files.iter().find(|file| file.path == path).map(|file| count_unsafe(&file.text));
        match (count, blocks) {
            (None, _) => findings.push(told(format!("{path} does not exist: drop the row"))),
            (Some(Unsafe { words: 0, .. }), _) => {
                findings.push(told(format!("{path} holds no unsafe: drop the row")))
            }
            (Some(count), Ok(blocks)) if blocks == count.blocks => {}
            (Some(count), _) => findings.push(told(format!(
                "{path} has {} unsafe blocks: review them, then write that number",
                count.blocks
            ))),
        }
    }
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        let count = count_unsafe(&file.text);
        if count.words > 0 && !listed.contains(&file.path.as_str()) {
            let message =
                format!("unsafe ({} blocks) in a file that {UNSAFE_LIST} does not list", count.blocks);
            findings.push(Finding::file(&file.path, message));
        }
    }
    findings
}

/// A file that `tests/all.rs` forgets is a test that never runs. The loom models are a binary of their own.
fn check_test_modules(files: &[TextFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for all in
        files.iter().filter(|file| file.path.starts_with("crates/") && file.path.ends_with("/tests/all.rs"))
    {
        let home = all.path.strip_suffix("all.rs").unwrap_or(&all.path);
        let under = || files.iter().filter(|file| file.path.starts_with(home) && file.path.ends_with(".rs"));
        let nested: Vec<String> =
            under().flat_map(|file| source::modules(&source::code(&file.text))).collect();
        let direct = source::modules(&source::code(&all.text));
        for file in under() {
            let inside = file.path[home.len()..].strip_suffix(".rs").unwrap_or("");
            let stem = inside.strip_suffix("/mod").unwrap_or(inside);
            let (named, place) = match stem.rsplit_once('/') {
                None => (direct.iter().any(|module| module == stem), all.path.as_str()),
                Some((_, name)) => (nested.iter().any(|module| module == name), "a test file"),
            };
            if !named && !matches!(stem, "all" | "loom") {
                findings
                    .push(Finding::file(&file.path, format!("no `mod` in {place} names it: it never runs")));
            }
        }
    }
    findings
}

/// Every crate says what it is: a `description` in its manifest and a `README.md` beside it.
fn check_crates(files: &[TextFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for manifest in files {
        let Some(home) = manifest.path.strip_suffix("Cargo.toml") else { continue };
        let is_crate = home.strip_prefix("crates/").is_some_and(|rest| rest.matches('/').count() == 1);
        if !is_crate {
            continue;
        }
        let described = manifest.text.lines().any(|line| {
            let value =
                line.strip_prefix("description").map(|rest| rest.trim_start_matches([' ', '=']).trim());
            value.is_some_and(|value| value.trim_matches('"').len() > 1)
        });
        if !described {
            findings.push(Finding::file(&manifest.path, "no description"));
        }
        let readme = format!("{home}README.md");
        if !files.iter().any(|file| file.path == readme) {
            findings.push(Finding::file(&readme, "every crate has a README.md"));
        }
    }
    findings
}

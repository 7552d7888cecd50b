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

/// A file that the one test binary forgets is a test that never runs. The binary's root is `tests/all.rs` or
/// `tests/all/main.rs`; the models of loom and shuttle are binaries of their own.
fn check_test_modules(files: &[TextFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for root in files.iter().filter(|file| file.path.starts_with("crates/")) {
        let Some(home) = ["all.rs", "all/main.rs"].iter().find_map(|name| {
            let tests = root.path.strip_suffix(name).filter(|home| home.ends_with("/tests/"))?;
            Some(format!("{tests}{}", name.strip_suffix("main.rs").unwrap_or("")))
        }) else {
            continue;
        };
        let members = || {
            let inside = files.iter().filter_map(|file| Some((file, file.path.strip_prefix(&home)?)));
            inside.filter_map(|(file, inside)| Some((file, inside.strip_suffix(".rs")?)))
        };
        let nested: Vec<String> =
            members().flat_map(|(file, _)| source::modules(&source::code(&file.text))).collect();
        let direct = source::modules(&source::code(&root.text));
        for (file, inside) in members()
            .filter(|(file, inside)| file.path != root.path && !matches!(*inside, "loom" | "shuttle"))
        {
            let stem = inside.strip_suffix("/mod").unwrap_or(inside);
            let (named, place) = match stem.rsplit_once('/') {
                None => (direct.iter().any(|module| module == stem), root.path.as_str()),
                Some((_, name)) => (nested.iter().any(|module| module == name), "a test file"),
            };
            if !named {
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
            value.is_some_and(|value| !value.trim_matches('"').is_empty())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> TextFile {
        TextFile { path: path.to_owned(), text: text.to_owned() }
    }

    fn messages(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(Finding::to_string).collect()
    }

    /// Exactly one finding, and it says `wanted`.
    #[track_caller]
    fn caught(findings: &[Finding], wanted: &str) {
        let told = messages(findings);
        assert!(told.len() == 1 && told[0].contains(wanted), "wanted {wanted}, got {told:?}");
    }

    const SOURCE: &str = "crates/x/src/a.rs";

    #[test]
    fn a_good_file_passes() {
        assert_eq!(check_file(SOURCE, "//! What it is: a ≤ b → c.\n\nfn f() {}\n"), []);
        assert_eq!(check_file("docs/a.md", "# Title\n\n```sh\n# a comment\n```\n"), []);
    }

    #[test]
    fn a_long_file_is_caught_and_its_tests_do_not_count() {
        let fits = format!("//! Doc.\n{}", "f();\n".repeat(SOURCE_LINES_MAX - 1));
        assert_eq!(check_file(SOURCE, &fits), []);
        caught(&check_file(SOURCE, &format!("{fits}g();\n")), "601 lines of 600");
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "f();\n".repeat(SOURCE_LINES_MAX));
        assert_eq!(check_file(SOURCE, &format!("{fits}{tests}")), []);
        caught(&check_file(SOURCE, &format!("//! Doc.\n{tests}{fits}")), "601 lines of 600");
        let test = "f();\n".repeat(TEST_LINES_MAX);
        assert_eq!(check_file("crates/x/tests/a.rs", &test), []);
        caught(&check_file("crates/x/tests/a.rs", &format!("{test}f();\n")), "1201 lines of 1200");
    }

    #[test]
    fn a_wide_line_is_caught() {
        let line = |columns: usize| format!("//! {}\n", "é".repeat(columns - 4));
        assert_eq!(check_file(SOURCE, &line(COLUMNS_MAX)), []);
        caught(&check_file(SOURCE, &line(COLUMNS_MAX + 1)), "121 columns");
    }

    #[test]
    fn unfinished_marks_are_caught() {
        for mark in [["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["to", "do!()"], ["unimple", "mented!()"]] {
            let mark = mark.concat();
            caught(&check_file(SOURCE, &format!("//! Doc.\n// {mark}: later\n")), "unfinished mark");
            caught(&check_file("docs/a.md", &format!("# A\n\n{mark}\n")), "unfinished mark");
        }
        assert_eq!(check_file(SOURCE, &format!("//! {}LIST, mas{}\n", ["TO", "DO"].concat(), "todon")), []);
    }

    #[test]
    fn a_debug_print_is_caught_in_code_only() {
        let call = ["db", "g!(x)"].concat();
        caught(&check_file(SOURCE, &format!("//! Doc.\nlet y = {call};\n")), "src/a.rs:2: ");
        assert_eq!(check_file(SOURCE, &format!("//! Doc.\n// {call}\nlet y = \"{call}\";\n")), []);
    }

    #[test]
    fn a_file_without_its_first_words_is_caught() {
        caught(&check_file(SOURCE, "fn f() {}\n"), "opens with //!");
        caught(&check_file(SOURCE, "// Not a doc comment.\n"), "opens with //!");
        assert_eq!(check_file("crates/x/tests/a.rs", "fn f() {}\n"), []);
    }

    #[test]
    fn odd_characters_are_caught() {
        caught(&check_file(SOURCE, "//! Doc. \n"), "trailing blanks");
        caught(&check_file(SOURCE, "//! a\tb\n"), "'\\t'");
        caught(&check_file("Cargo.toml", "a = 1\r\n"), "'\\r'");
        caught(&check_file("README.md", "no\u{a0}break\n"), "'\\u{a0}'");
        caught(&check_file(SOURCE, "//! right\u{202e}left\n"), "'\\u{202e}'");
        caught(&check_file(SOURCE, "//! zero\u{200b}width\n"), "'\\u{200b}'");
        caught(&check_file(SOURCE, "//! \u{430} is not a\n"), "'\u{430}'");
    }

    #[test]
    fn a_machine_path_is_caught() {
        for name in ["work", "tmp", "root"] {
            let path = format!("/{name}/");
            caught(&check_file("data.json", &format!("\n\"{path}x\"")), "data.json:2: an absolute path");
            assert_eq!(check_file("data.json", &format!("target{path}x .{path} {{}}{path} my-{name}/")), []);
        }
    }

    #[test]
    fn titles_are_counted() {
        caught(&check_file("docs/a.md", "Text.\n"), "begins with its title");
        caught(&check_file("docs/deep/a.md", "\n# A\n"), "begins with its title");
        caught(&check_file("docs/a.md", "# A\n\n# B\n"), "2 titles");
        caught(&check_file("docs/a.md", "# A\n\n```\n# a comment\n```\n\n# B\n"), "2 titles");
        assert_eq!(check_file("crates/x/README.md", "Text.\n"), []);
    }

    #[test]
    fn unsafe_is_counted_in_code_only() {
        let text = "#![forbid(unsafe_code)]\n// unsafe {\nunsafe fn f() {}\nunsafe impl A for B {}\n\
                    unsafe { f() }\nunsafe\n{ \"unsafe {\" }";
        assert_eq!(count_unsafe(text), Unsafe { words: 4, blocks: 2 });
        assert_eq!(count_unsafe("#[unsafe(no_mangle)] fn f() {}"), Unsafe { words: 1, blocks: 0 });
    }

    #[test]
    fn unsafe_and_its_list_must_agree() {
        let page = |rows: &str| {
            file(
                UNSAFE_LIST,
                &format!("# Unsafe\n\n| file | blocks | what | proof |\n|---|---|---|---|\n{rows}"),
            )
        };
        let source = file(SOURCE, "unsafe { f() }");
        let row = |blocks: &str| page(&format!("| `{SOURCE}` | {blocks} | f | it is |\n"));
        assert_eq!(check_unsafe(&[row("1"), source.clone()]), []);
        caught(&check_unsafe(&[row("2"), source.clone()]), "has 1 unsafe blocks");
        caught(&check_unsafe(&[row("0"), source.clone()]), "docs/unsafe.md:5: ");
        caught(&check_unsafe(&[row("many"), source.clone()]), "has 1 unsafe blocks");
        caught(&check_unsafe(&[page(""), source.clone()]), "does not list");
        caught(&check_unsafe(&[row("1")]), "does not exist");
        caught(&check_unsafe(&[row("1"), file(SOURCE, "// unsafe { f() }")]), "holds no unsafe");
        caught(&check_unsafe(&[source]), "list of the files that hold unsafe is missing");
        let twice = format!("| `{SOURCE}` | 1 | f | it is |\n").repeat(2);
        caught(&check_unsafe(&[page(&twice), file(SOURCE, "unsafe { f() }")]), "listed twice");
        let function = file("crates/x/tests/b.rs", "unsafe fn f() {}");
        caught(&check_unsafe(&[page(""), function]), "unsafe (0 blocks) in a file");
    }

    #[test]
    fn a_forgotten_test_file_is_caught() {
        let all = file("crates/x/tests/all.rs", "mod a;\nmod deep;\n// mod b;\n");
        let a = file("crates/x/tests/a.rs", "");
        let b = file("crates/x/tests/b.rs", "");
        let deep = file("crates/x/tests/deep/mod.rs", "mod inner;");
        let inner = file("crates/x/tests/deep/inner.rs", "");
        let outer = file("crates/x/tests/deep/outer.rs", "");
        let loom = file("crates/x/tests/loom.rs", "");
        let data = file("crates/x/tests/data.txt", "");
        let good = [all.clone(), a.clone(), deep.clone(), inner, loom, data];
        assert_eq!(check_test_modules(&good), []);
        caught(
            &check_test_modules(&[all.clone(), a, b.clone()]),
            "tests/b.rs: no `mod` in crates/x/tests/all.rs",
        );
        caught(&check_test_modules(&[all, deep, outer]), "tests/deep/outer.rs: no `mod`");
        assert_eq!(check_test_modules(&[b]), [], "without all.rs every file is a binary of its own");

        let main = file("crates/x/tests/all/main.rs", "mod a;\n");
        let a = file("crates/x/tests/all/a.rs", "");
        let own = file("crates/x/tests/own.rs", "");
        assert_eq!(check_test_modules(&[main.clone(), a.clone(), own]), []);
        let c = file("crates/x/tests/all/c.rs", "");
        caught(&check_test_modules(&[main, a, c]), "tests/all/c.rs: no `mod` in crates/x/tests/all/main.rs");
    }

    #[test]
    fn a_crate_says_what_it_is() {
        let readme = file("crates/x/README.md", "# x\n");
        let manifest = |text: &str| file("crates/x/Cargo.toml", text);
        assert_eq!(check_crates(&[manifest("description = \"x\"\n"), readme.clone()]), []);
        caught(&check_crates(&[manifest("name = \"x\"\n"), readme.clone()]), "no description");
        caught(&check_crates(&[manifest("description = \"\"\n"), readme]), "no description");
        caught(&check_crates(&[manifest("description = \"x\"\n")]), "every crate has a README.md");
        assert_eq!(check_crates(&[file("benches/Cargo.toml", "")]), []);
    }
}

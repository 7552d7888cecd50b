//! Rust read just well enough for the checks: no types, no macros, no dependency.
//!
//! ```text
//!   text ──► code()           comments and literals blanked, every line kept
//!             ├─► test_items()     the spans under #[cfg(test)]
//!             ├─► production()     code with those spans blanked
//!             └─► mentions()       the paths that the code names, `use` trees expanded
//! ```
//!
//! Blanking keeps line numbers, so that a finding points at the line the author sees. Where the reading is
//! uncertain it errs towards more code, thus towards a finding, never towards silence.

use std::fmt;
use std::ops::Range;

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, relative to the root.
    pub path: String,
    /// Counted from 1; 0 when the finding is about the whole file.
    pub line: usize,
    /// What is wrong, and what to do instead.
    pub message: String,
}

impl Finding {
    /// About one line of a file, counted from 1.
    pub fn at(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }

    /// About a file as a whole.
    pub fn file(path: &str, message: impl Into<String>) -> Self {
        Self::at(path, 0, message)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

/// Prints the findings of a verb; no findings is success.
pub fn verdict(verb: &str, findings: &[Finding]) -> Result<(), String> {
    for finding in findings {
        eprintln!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        count => Err(format!("{verb}: {count} finding(s)")),
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The text with comments and the insides of literals replaced by spaces, line breaks kept.
pub fn code(text: &str) -> Vec<char> {
    let chars: Vec<char> = text.chars().collect();
    let mut out = chars.clone();
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        for c in &mut out[at..end] {
            if *c != '\n' {
                *c = ' ';
            }
        }
        at = end.max(at + 1);
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` itself when none begins there.
fn literal_end(chars: &[char], at: usize) -> usize {
    let next = |ahead: usize| chars.get(at + ahead).copied().unwrap_or('\0');
    match (chars[at], next(1)) {
        ('/', '/') => find(chars, at, |rest| rest[0] == '\n'),
        ('/', '*') => block_comment_end(chars, at),
        ('"', _) => quoted_end(chars, at, '"'),
        ('\'', '\\') => quoted_end(chars, at, '\''),
        ('\'', _) if next(2) == '\'' => at + 3,
        ('r', '"' | '#') if begins_literal(chars, at) => raw_string_end(chars, at),
        _ => at,
    }
}

fn find(chars: &[char], from: usize, stop: impl Fn(&[char]) -> bool) -> usize {
    (from..chars.len()).find(|&at| stop(&chars[at..])).unwrap_or(chars.len())
}

fn block_comment_end(chars: &[char], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0_usize);
    while at < chars.len() {
        match chars[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted_end(chars: &[char], from: usize, quote: char) -> usize {
    let mut at = from + 1;
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// Whether the `r` at `at` can open a raw string: it begins a word, or follows the `b` or `c` that does.
fn begins_literal(chars: &[char], at: usize) -> bool {
    let word_before = |at: usize| at.checked_sub(1).is_some_and(|before| is_word(chars[before]));
    !word_before(at) || (matches!(chars[at - 1], 'b' | 'c') && !word_before(at - 1))
}

fn raw_string_end(chars: &[char], from: usize) -> usize {
    let hashes = chars[from + 1..].iter().take_while(|&&c| c == '#').count();
    let open = from + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return from;
    }
    let closes = |rest: &[char]| {
        rest[0] == '"' && rest[1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes
    };
    (find(chars, open + 1, closes) + 1 + hashes).min(chars.len())
}

/// The spans of `code` that stand under `#[cfg(test)]` (or `cfg(all(.., test, ..))`), attributes included. A file
/// that opens with `#![cfg(test)]` is one span.
pub fn test_items(code: &[char]) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut at = 0;
    while at < code.len() {
        match attribute(code, at) {
            Some((content, true, _)) if needs_test(&content) => {
                spans.clear();
                spans.push(0..code.len());
                return spans;
            }
            Some((content, false, end)) if needs_test(&content) => {
                let end = item_end(code, end);
                spans.push(at..end);
                at = end;
            }
            Some((_, _, end)) => at = end,
            None => at += 1,
        }
    }
    spans
}

/// The attribute that begins at `at`: its content without blanks, whether it is an inner one, and its end.
fn attribute(code: &[char], at: usize) -> Option<(String, bool, usize)> {
    let inner = match code[at..] {
        ['#', '[', ..] => false,
        ['#', '!', '[', ..] => true,
        _ => return None,
    };
    let open = at + if inner { 2 } else { 1 };
    let end = bracket_end(code, open);
    let content =
        code[open + 1..end.saturating_sub(1).max(open + 1)].iter().filter(|c| !c.is_whitespace()).collect();
    Some((content, inner, end))
}

/// Past the bracket that closes the one at `open`.
fn bracket_end(code: &[char], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, c) in code.iter().enumerate().skip(open) {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

fn needs_test(attribute: &str) -> bool {
    let predicate = attribute.strip_prefix("cfg(").and_then(|rest| rest.strip_suffix(')'));
    match predicate {
        Some("test") => true,
        Some(other) => {
            other.strip_prefix("all(").and_then(|rest| rest.strip_suffix(')')).is_some_and(|all| {
                let mut depth = 0_usize;
                all.split(',').any(|part| {
                    let outermost = depth == 0;
                    depth = (depth + part.matches('(').count()).saturating_sub(part.matches(')').count());
                    outermost && part == "test"
                })
            })
        }
        None => false,
    }
}

/// Past the item that begins at or after `from`: its `;`, its closing brace, or the brace that closes what it is in.
fn item_end(code: &[char], from: usize) -> usize {
    let mut at = from;
    while at < code.len() {
        match code[at] {
            '#' => at = attribute(code, at).map_or(at + 1, |(_, _, end)| end),
            ';' => return at + 1,
            '{' => return bracket_end(code, at),
            '(' | '[' => at = bracket_end(code, at),
            '}' => return at,
            _ => at += 1,
        }
    }
    code.len()
}

/// `code` with the spans of [`test_items`] blanked.
pub fn production(code: &[char]) -> Vec<char> {
    let mut out = code.to_vec();
    for span in test_items(code) {
        for c in &mut out[span] {
            if *c != '\n' {
                *c = ' ';
            }
        }
    }
    out
}

/// Names of the modules declared as `#[cfg(test)] mod name;`, whose files are tests as a whole.
pub fn test_modules(code: &[char]) -> Vec<String> {
    let spans = test_items(code).into_iter();
    spans.flat_map(|span| if code[span.end - 1] == ';' { modules(&code[span]) } else { Vec::new() }).collect()
}

/// Names declared as `mod name` in `code`.
pub fn modules(code: &[char]) -> Vec<String> {
    let tokens = tokens(code);
    let declared = tokens.windows(2).filter_map(|pair| match pair {
        [(_, Token::Word(keyword)), (_, Token::Word(name))] if keyword == "mod" => Some(name.clone()),
        _ => None,
    });
    declared.collect()
}

/// A path that the code names, such as `std::fs::File`; a plain name is a path of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// Counted from 1.
    pub line: usize,
    /// The parts between the `::`, with `*` for a glob.
    pub parts: Vec<String>,
}

impl Mention {
    /// Whether `pattern` (`a::b`) stands in the path, on whole parts. A glob stands for any one part.
    pub fn contains(&self, pattern: &str) -> bool {
        let wanted: Vec<&str> = pattern.split("::").collect();
        self.parts.windows(wanted.len()).any(|window| {
            let mut pairs = window.iter().zip(&wanted);
            window.iter().any(|part| part != "*") && pairs.all(|(part, want)| part == want || part == "*")
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Separator,
    Sign(char),
}

fn tokens(code: &[char]) -> Vec<(usize, Token)> {
    let mut out = Vec::new();
    let (mut line, mut at) = (1, 0);
    while at < code.len() {
        let c = code[at];
        if is_word(c) {
            let end = find(code, at, |rest| !is_word(rest[0]));
            out.push((line, Token::Word(code[at..end].iter().collect())));
            at = end;
            continue;
        }
        if c == '\n' {
            line += 1;
        } else if code[at..].starts_with(&[':', ':']) {
            out.push((line, Token::Separator));
            at += 1;
        } else if !c.is_whitespace() {
            out.push((line, Token::Sign(c)));
        }
        at += 1;
    }
    out
}

/// Every path in `code`. A `use` tree gives one path per leaf.
pub fn mentions(code: &[char]) -> Vec<Mention> {
    let tokens = tokens(code);
    let mut out = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        at = match &tokens[at].1 {
            Token::Word(word) if word == "use" => use_tree(&tokens, at + 1, &[], &mut out),
            Token::Word(_) => plain_path(&tokens, at, &mut out),
            _ => at + 1,
        };
    }
    out
}

fn plain_path(tokens: &[(usize, Token)], from: usize, out: &mut Vec<Mention>) -> usize {
    let mut parts = Vec::new();
    let mut at = from;
    while let Some((_, Token::Word(word))) = tokens.get(at) {
        parts.push(word.clone());
        at += 1;
        let goes_on = matches!(tokens.get(at..at + 2), Some([(_, Token::Separator), (_, Token::Word(_))]));
        if !goes_on {
            break;
        }
        at += 1;
    }
    out.push(Mention { line: tokens[from].0, parts });
    at
}

/// Reads one tree under `prefix` and returns the index after it. Recursion is as deep as the braces nest.
fn use_tree(tokens: &[(usize, Token)], from: usize, prefix: &[String], out: &mut Vec<Mention>) -> usize {
    let mut parts = prefix.to_vec();
    let mut line = tokens.get(from).map_or(0, |(line, _)| *line);
    let mut at = from;
    loop {
        match tokens.get(at) {
            Some((_, Token::Separator)) => at += 1,
            Some((here, Token::Word(word))) if word != "as" => {
                line = *here;
                if word != "self" || parts.is_empty() {
                    parts.push(word.clone());
                }
                at += 1;
            }
            Some((_, Token::Word(_))) => {
                at += 2;
                break;
            }
            Some((_, Token::Sign('*'))) => {
                parts.push("*".to_owned());
                at += 1;
            }
            Some((_, Token::Sign('{'))) => {
                at += 1;
                while !matches!(tokens.get(at), None | Some((_, Token::Sign('}')))) {
                    at = use_tree(tokens, at, &parts, out);
                    if matches!(tokens.get(at), Some((_, Token::Sign(c))) if *c != '}') {
                        at += 1;
                    }
                }
                return at + 1;
            }
            _ => break,
        }
    }
    out.push(Mention { line, parts });
    at
}

/// Lines of a file that are not inside a test item.
pub fn production_lines(code: &[char]) -> usize {
    let breaks = |chars: &[char]| chars.iter().filter(|&&c| c == '\n').count();
    let tests: usize = test_items(code).into_iter().map(|span| breaks(&code[span]) + 1).sum();
    breaks(code).saturating_sub(tests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(chars: &[char]) -> String {
        chars.iter().collect()
    }

    fn paths(text: &str) -> Vec<String> {
        mentions(&code(text)).iter().map(|mention| mention.parts.join("::")).collect()
    }

    #[test]
    fn comments_and_literals_are_blanked_and_lines_stay() {
        #[rustfmt::skip]
        let cases = [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            ("a /* b\nc */ d", "a     \n     d"),
            (r#"f("x\"y", z)"#, "f(      , z)"),
            (r##"f(r#"x"y"#, z)"##, "f(        , z)"),
            (r##"f(br"x\", z)"##, "f(b     , z)"),
            ("m('\\'', '\"', 'x')", "m(    ,    ,    )"),
            ("fn f<'a, 'b>(x: &'a str)", "fn f<'a, 'b>(x: &'a str)"),
            ("var\"s\" r#type", "var    r#type"),
            ("\"never closed", "             "),
            ("/* never closed", "               "),
            ("r#\"never closed\"", "                "),
        ];
        for (given, wanted) in cases {
            assert_eq!(text(&code(given)), wanted, "{given}");
        }
    }

    #[test]
    fn test_items_end_where_the_item_ends() {
        let given = "a; #[cfg(test)] #[allow(x)] mod t { fn f() { { } } } b; #[cfg(test)] use x::{y, z}; c; \
                     #[cfg(test)] const D: [u8; 2] = d; e;";
        let production = text(&production(&code(given)));
        assert_eq!(production.split_whitespace().collect::<Vec<_>>(), ["a;", "b;", ";", "c;", "e;"]);
    }

    #[test]
    fn only_what_needs_test_is_a_test_item() {
        for attribute in
            ["cfg(test)", "cfg( test )", "cfg(all(test, not(loom)))", "cfg(all(any(a, b), test))"]
        {
            assert_eq!(test_items(&code(&format!("#[{attribute}] fn f() {{}}"))).len(), 1, "{attribute}");
        }
        for attribute in
            ["cfg(not(test))", "cfg(any(test, a))", "cfg(all(a, any(b, test, c)))", "cfg(loom)", "test"]
        {
            assert_eq!(test_items(&code(&format!("#[{attribute}] fn f() {{}}"))).len(), 0, "{attribute}");
        }
        assert!(text(&production(&code("#![cfg(test)]\nfn f() {}"))).trim().is_empty());
    }

    #[test]
    fn a_string_cannot_open_a_test_item() {
        assert!(test_items(&code("let x = \"#[cfg(test)]\"; // #[cfg(test)]\nfn f() {}")).is_empty());
    }

    #[test]
    fn a_test_item_early_in_the_file_hides_only_itself() {
        let given = format!("#[cfg(test)]\nuse x;\n{}", "a();\n".repeat(10));
        assert_eq!(production_lines(&code(&given)), 10);
    }

    #[test]
    fn out_of_line_test_modules_are_named() {
        let given = "mod a; #[cfg(test)] mod b; #[cfg(test)] mod c { mod d; } #[cfg(test)] use e;";
        assert_eq!(test_modules(&code(given)), ["b"]);
        assert_eq!(modules(&code(given)), ["a", "b", "c", "d"]);
    }

    #[test]
    fn use_trees_give_one_path_per_leaf() {
        assert_eq!(
            paths("pub use a::{b::{self, C as D}, e::*, f};\nx::y::<z::W>()"),
            ["pub", "a::b", "a::b::C", "a::e::*", "a::f", "x::y", "z::W"]
        );
        let lines: Vec<usize> =
            mentions(&code("use a::{\n  b,\n  c,\n};\nd")).iter().map(|found| found.line).collect();
        assert_eq!(lines, [2, 3, 5]);
    }

    #[test]
    fn broken_code_ends_the_reading() {
        for given in
            ["use", "use a::{", "use a::{b, # }", "use ::", "use a as", "#[cfg(test)]", "#[", "#![cfg(test)"]
        {
            let code = code(given);
            mentions(&production(&code));
            production_lines(&code);
        }
    }

    #[test]
    fn a_pattern_is_found_on_whole_parts() {
        let mention = |path: &str| Mention { line: 1, parts: path.split("::").map(str::to_owned).collect() };
        assert!(mention("std::fs::File").contains("std::fs"));
        assert!(mention("std::time::*").contains("time::Instant"));
        assert!(mention("Instant::now").contains("Instant::now"));
        assert!(!mention("std::fscache").contains("std::fs"));
        assert!(!mention("std").contains("std::fs"));
        assert!(!mention("super::*").contains("std::fs"));
        assert!(!mention("super::*").contains("File"));
    }
}

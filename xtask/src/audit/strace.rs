//! Reads what `strace -f -y -x` writes: system calls of several threads, some of them begun on one line and ended on
//! another.
//!
//! ```text
//!     71 pwrite64(5</d/000004.log>, "\x01\x02", 2, 64) = 2
//!     71 fdatasync(5</d/000004.log> <unfinished ...>
//!     72 unlink("/d/000003.sst")      = 0
//!     71 <... fdatasync resumed>)     = 0
//! ```
//!
//! A call that stands on one line began and ended without any other call that is traced between: strace would have cut
//! it in two. So the numbers of lines order beginnings and ends.

use std::collections::BTreeMap;

/// A call that matters to the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A file came to be.
    Create { path: String },
    /// Bytes were written.
    Write { path: String, bytes: Vec<u8> },
    /// `fsync`, `fdatasync` or `msync`.
    Sync { path: String },
    /// A name was changed.
    Rename { from: String, to: String },
    /// A name was removed.
    Unlink { path: String },
}

/// A call that succeeded: who made it, and the lines on which it began and ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub thread: u64,
    pub begin: usize,
    pub end: usize,
    pub call: Call,
}

/// All calls that succeeded, in the order of their ends. What failed had no effect, and covers nothing.
pub fn parse(text: &str) -> Result<Vec<Event>, String> {
    let mut unfinished: BTreeMap<u64, (usize, String)> = BTreeMap::new();
    let mut events = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line)) {
        let wrong = |what: &str| format!("line {number} of the transcript: {what}: {line:.200}");
        let (thread, rest) = line.split_once(' ').ok_or_else(|| wrong("no thread"))?;
        let thread = thread.parse().map_err(|_| wrong("no thread"))?;
        let rest = rest.trim_start();
        if rest.starts_with("+++") || rest.starts_with("---") {
            continue;
        }
        if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread, (number, begun.trim_end().to_owned()));
            continue;
        }
        let (begin, whole) = match rest.strip_prefix("<... ") {
            Some(resumed) => {
                let (begin, mut begun) =
                    unfinished.remove(&thread).ok_or_else(|| wrong("resumed, never begun"))?;
                let (_, tail) = resumed.split_once(" resumed>").ok_or_else(|| wrong("not resumed"))?;
                begun.push_str(tail);
                (begin, begun)
            }
            None => (number, rest.to_owned()),
        };
        if let Some(call) = call(&whole).map_err(|what| wrong(&what))? {
            events.push(Event { thread, begin, end: number, call });
        }
    }
    Ok(events)
}

/// The call on a whole line; `None` for one that failed or does not matter.
fn call(line: &str) -> Result<Option<Call>, String> {
    let (name, rest) = line.split_once('(').ok_or("no call")?;
    let (arguments, result) = rest.rsplit_once(") = ").or_else(|| split_padded(rest)).ok_or("no result")?;
    if result.starts_with('-') || result.starts_with('?') {
        return Ok(None);
    }
    let strings = || strings(arguments);
    let file = || described(arguments).ok_or_else(|| "no file".to_owned());
    Ok(match name {
        "openat" | "open" if arguments.contains("O_CREAT") && arguments.contains("O_EXCL") => {
            let path = described(result).ok_or("no file")?;
            Some(Call::Create { path })
        }
        "write" | "pwrite64" => {
            let bytes = strings()?.into_iter().next().ok_or("no bytes")?;
            if arguments.contains("\"...") {
                return Err("the bytes are not all there: a longer -s".to_owned());
            }
            Some(Call::Write { path: file()?, bytes })
        }
        "fsync" | "fdatasync" => Some(Call::Sync { path: file()? }),
        "rename" | "renameat" | "renameat2" => {
            let mut names = strings()?.into_iter().map(text);
            match (names.next(), names.next()) {
                (Some(from), Some(to)) => Some(Call::Rename { from, to }),
                _ => return Err("no names".to_owned()),
            }
        }
        "unlink" | "unlinkat" => {
            let path = strings()?.into_iter().map(text).next().ok_or("no name")?;
            Some(Call::Unlink { path })
        }
        _ => None,
    })
}

/// strace pads what is before the `=`, so that results stand in a column.
fn split_padded(rest: &str) -> Option<(&str, &str)> {
    let (arguments, result) = rest.rsplit_once(" = ")?;
    Some((arguments.trim_end().strip_suffix(')')?, result))
}

/// The path of a descriptor as `-y` shows it: `5</d/000004.log>`. A file without a name any more is told so.
fn described(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('<')?;
    let (path, _) = rest.split_once('>')?;
    Some(path.trim_end_matches(" (deleted)").to_owned())
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The quoted strings, with their escapes undone.
fn strings(arguments: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut found = Vec::new();
    let mut bytes = arguments.bytes().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'"' {
            continue;
        }
        let mut string = Vec::new();
        loop {
            match bytes.next().ok_or("a string without an end")? {
                b'"' => break,
                b'\\' => string.push(escaped(&mut bytes)?),
                other => string.push(other),
            }
        }
        found.push(string);
    }
    Ok(found)
}

fn escaped(bytes: &mut std::iter::Peekable<std::str::Bytes<'_>>) -> Result<u8, String> {
    let first = bytes.next().ok_or("an escape without an end")?;
    let mut digits = |radix: u32, most: usize, begun: u32| {
        let mut value = begun;
        for _ in 0..most {
            let Some(digit) = bytes.peek().and_then(|byte| char::from(*byte).to_digit(radix)) else { break };
            value = value * radix + digit;
            bytes.next();
        }
        u8::try_from(value).map_err(|_| "an escape beyond a byte".to_owned())
    };
    match first {
        b'n' => Ok(b'\n'),
        b't' => Ok(b'\t'),
        b'r' => Ok(b'\r'),
        b'v' => Ok(0x0b),
        b'f' => Ok(0x0c),
        b'x' => digits(16, 2, 0),
        b'0'..=b'7' => digits(8, 2, u32::from(first - b'0')),
        other => Ok(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Option<Call> {
        parse(line).unwrap().pop().map(|event| event.call)
    }

    #[test]
    fn the_calls_that_matter_are_read() {
        let path = "/d/000004.log".to_owned();
        let write = "7 pwrite64(5</d/000004.log>, \"\\x01a\\n\\0\\12\\\"\", 6, 64) = 6";
        let bytes = b"\x01a\n\0\n\"".to_vec();
        assert_eq!(one(write), Some(Call::Write { path: path.clone(), bytes }));
        assert_eq!(one("7 fdatasync(5</d/000004.log>)   = 0"), Some(Call::Sync { path: path.clone() }));
        assert_eq!(one("7 fdatasync(5</d/000004.log>) = -1 EIO (Input/output error)"), None);
        let create = "7 openat(AT_FDCWD</>, \"/d/000004.log\", O_CREAT|O_EXCL, 0600) = 5</d/000004.log>";
        assert_eq!(one(create), Some(Call::Create { path: path.clone() }));
        assert_eq!(one("7 openat(AT_FDCWD</>, \"/d/x\", O_RDONLY) = 5</d/x>"), None);
        let rename = Call::Rename { from: "/d/a".to_owned(), to: path.clone() };
        assert_eq!(one("7 rename(\"/d/a\", \"/d/000004.log\") = 0"), Some(rename));
        assert_eq!(one("7 unlink(\"/d/000004.log\") = 0"), Some(Call::Unlink { path }));
        assert_eq!(one("7 +++ exited with 0 +++"), None);
    }

    #[test]
    fn a_call_cut_in_two_has_both_lines() {
        let text =
            "7 fdatasync(5</d/a> <unfinished ...>\n8 unlink(\"/d/b\") = 0\n7 <... fdatasync resumed>) = 0\n";
        let lines: Vec<_> =
            parse(text).unwrap().iter().map(|event| (event.thread, event.begin, event.end)).collect();
        assert_eq!(lines, [(8, 2, 2), (7, 1, 3)]);
    }

    #[test]
    fn what_is_no_transcript_is_an_error() {
        assert!(parse("hello").is_err());
        assert!(parse("7 <... fsync resumed>) = 0").unwrap_err().contains("never begun"));
        assert!(parse("7 write(3</d/a>, \"abc\"..., 9) = 9").unwrap_err().contains("longer -s"));
    }
}

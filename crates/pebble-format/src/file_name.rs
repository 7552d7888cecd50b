//! Names of the files in a database directory. See `docs/format/file-names.md`.

use std::fmt;

/// A file that PebbleTree made. Any other name in the directory is foreign: never read, changed or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileName {
    /// `LOCK`: held exclusively by the one process that has the database open.
    Lock,
    /// `CURRENT`: names the manifest in force.
    Current,
    /// `CURRENT.tmp`: the next `CURRENT`, until it is renamed.
    CurrentTemp,
    /// `MANIFEST-000001`: a log of edits of the tree.
    Manifest(u64),
    /// `000001.log`: a segment of the write-ahead log.
    Log(u64),
    /// `000001.sst`: a table.
    Table(u64),
}

impl FileName {
    /// Reads a name back; `None` for a foreign one. Exactly the names that [`FileName`] prints are accepted.
    pub fn parse(name: &str) -> Option<Self> {
        let parsed = match name {
            "LOCK" => Self::Lock,
            "CURRENT" => Self::Current,
            "CURRENT.tmp" => Self::CurrentTemp,
            _ => {
                if let Some(number) = name.strip_prefix("MANIFEST-") {
                    Self::Manifest(parse_number(number)?)
                } else if let Some(number) = name.strip_suffix(".log") {
                    Self::Log(parse_number(number)?)
                } else {
                    Self::Table(parse_number(name.strip_suffix(".sst")?)?)
                }
            }
        };
        Some(parsed)
    }
}

/// Six digits or more, no sign, no superfluous zero: one name for one number.
fn parse_number(digits: &str) -> Option<u64> {
    let canonical = digits.len() == 6 || digits.len() > 6 && !digits.starts_with('0');
    if !canonical || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lock => write!(f, "LOCK"),
            Self::Current => write!(f, "CURRENT"),
            Self::CurrentTemp => write!(f, "CURRENT.tmp"),
            Self::Manifest(number) => write!(f, "MANIFEST-{number:06}"),
            Self::Log(number) => write!(f, "{number:06}.log"),
            Self::Table(number) => write!(f, "{number:06}.sst"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for number in [0, 1, 999_999, 1_000_000, u64::MAX] {
            for name in [FileName::Manifest(number), FileName::Log(number), FileName::Table(number)] {
                assert_eq!(FileName::parse(&name.to_string()), Some(name));
            }
        }
        for name in [FileName::Lock, FileName::Current, FileName::CurrentTemp] {
            assert_eq!(FileName::parse(&name.to_string()), Some(name));
        }
    }

    #[test]
    fn foreign_names_are_foreign() {
        for name in [
            "",
            "lock",
            "CURRENT2",
            "1.log",
            "00001.log",
            "0000001.log",
            "+00001.log",
            "000001.LOG",
            "000001.log ",
            "000001.sst.bak",
            "MANIFEST-",
            "MANIFEST-00000a",
            "18446744073709551616.sst",
            "0000 1.sst",
            "\u{0661}00000.log",
        ] {
            assert_eq!(FileName::parse(name), None, "{name}");
        }
    }
}

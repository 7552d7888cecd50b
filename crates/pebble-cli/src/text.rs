//! Keys and values on a command line, in a row and in JSON: any bytes, as text from which the same bytes come back.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::Args;

use crate::failure::{Failure, Result};

/// How keys and values are written and read.
#[derive(Args, Clone, Copy, Debug)]
pub struct Form {
    /// Keys and values in base16
    #[arg(long, conflicts_with = "raw")]
    hex: bool,
    /// Keys and values byte for byte, without the escapes \\ \t \n \r \xNN
    #[arg(long)]
    raw: bool,
}

/// One way to write bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Printable characters as they are, `\\ \t \n \r \xNN` for the others.
    Escaped,
    /// Two lower-case digits a byte.
    Hex,
    /// As they are.
    Raw,
}

impl Form {
    /// The encoding that was chosen, escaped text if none was.
    pub fn encoding(self) -> Encoding {
        self.chosen().unwrap_or(Encoding::Escaped)
    }

    /// The encoding that was chosen.
    pub fn chosen(self) -> Option<Encoding> {
        match (self.hex, self.raw) {
            (true, _) => Some(Encoding::Hex),
            (_, true) => Some(Encoding::Raw),
            _ => None,
        }
    }

    /// The bytes that an argument of the command line means.
    pub fn argument(self, argument: &OsStr) -> Result<Vec<u8>> {
        let decoded = self.encoding().decode(argument.as_bytes());
        decoded.map_err(|why| Failure::Usage(format!("argument {}: {why}", argument.display())))
    }

    /// [`Form::argument`] of one that may be absent.
    pub fn optional(self, argument: Option<&OsString>) -> Result<Option<Vec<u8>>> {
        argument.map(|argument| self.argument(argument)).transpose()
    }
}

impl Encoding {
    /// Appends `bytes`, encoded.
    pub fn encode(self, bytes: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Escaped => escape(bytes, out),
            Self::Hex => out.extend_from_slice(hex(bytes).as_bytes()),
            Self::Raw => out.extend_from_slice(bytes),
        }
    }

    /// The bytes that were encoded as `text`, or what is wrong with it.
    pub fn decode(self, text: &[u8]) -> std::result::Result<Vec<u8>, String> {
        match self {
            Self::Escaped => unescape(text),
            Self::Hex => unhex(text),
            Self::Raw => Ok(text.to_vec()),
        }
    }
}

fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.extend_from_slice(b"\\\\"),
                '\t' => out.extend_from_slice(b"\\t"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                c if is_plain(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                c => escape_bytes(c.encode_utf8(&mut [0; 4]).as_bytes(), out),
            }
        }
        escape_bytes(chunk.invalid(), out);
    }
}

/// Whether a terminal shows the character as itself: no control, no change of direction, no invisible mark.
fn is_plain(c: char) -> bool {
    matches!(c, ' '..='~') || (!c.is_ascii() && c.escape_debug().len() == 1)
}

fn escape_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.extend_from_slice(b"\\x");
        out.extend_from_slice(&digits(*byte));
    }
}

fn unescape(text: &[u8]) -> std::result::Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let (byte, used) = match rest {
            [b'\\', ..] => (b'\\', 1),
            [b't', ..] => (b'\t', 1),
            [b'n', ..] => (b'\n', 1),
            [b'r', ..] => (b'\r', 1),
            [b'x', high, low, ..] => (undigits(*high, *low)?, 3),
            _ => return Err("a backslash begins \\\\ \\t \\n \\r or \\xNN; --raw takes it as it is".into()),
        };
        bytes.push(byte);
        rest = rest.get(used..).unwrap_or_default();
    }
    Ok(bytes)
}

/// Lower-case base16.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| digits(*byte)).map(char::from).collect()
}

/// Base16 of either case.
pub fn unhex(text: &[u8]) -> std::result::Result<Vec<u8>, String> {
    let (pairs, []) = text.as_chunks::<2>() else {
        return Err("base16 has two digits a byte".into());
    };
    pairs.iter().map(|[high, low]| undigits(*high, *low)).collect()
}

/// The two digits of a byte.
pub fn digits(byte: u8) -> [u8; 2] {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    [digit(byte >> 4), digit(byte & 15)]
}

fn undigits(high: u8, low: u8) -> std::result::Result<u8, String> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Ok(c - b'0'),
        b'a'..=b'f' => Ok(c - b'a' + 10),
        b'A'..=b'F' => Ok(c - b'A' + 10),
        _ => Err("not a base16 digit".to_owned()),
    };
    Ok(digit(high)? << 4 | digit(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        escape(bytes, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        for bytes in
            [&all[..], b"", b"\\x41", "gr\u{fc}n \u{2192} \u{4e2d}".as_bytes(), b"\xe4\xb8", b"\xf0\x9f"]
        {
            assert_eq!(unescape(escaped(bytes).as_bytes()).unwrap(), bytes);
            assert_eq!(unhex(hex(bytes).as_bytes()).unwrap(), bytes);
        }
    }

    #[test]
    fn text_stays_readable_and_never_holds_what_a_row_or_a_terminal_would_take_for_its_own() {
        assert_eq!(escaped("gr\u{fc}n \"a\" 'b'".as_bytes()), "gr\u{fc}n \"a\" 'b'");
        assert_eq!(escaped(b"a\tb\nc\rd\\e"), "a\\tb\\nc\\rd\\\\e");
        assert_eq!(escaped(b"\x1b[31m\x00\xff"), "\\x1b[31m\\x00\\xff");
        assert_eq!(escaped("\u{202e}\u{200b}".as_bytes()), "\\xe2\\x80\\xae\\xe2\\x80\\x8b");
    }

    #[test]
    fn what_is_no_escape_is_refused() {
        for text in [&b"\\"[..], b"\\q", b"\\x", b"\\x4", b"\\x4g"] {
            assert!(unescape(text).is_err(), "{text:?}");
        }
        for text in [&b"4"[..], b"4g", b"+1"] {
            assert!(unhex(text).is_err(), "{text:?}");
        }
    }
}

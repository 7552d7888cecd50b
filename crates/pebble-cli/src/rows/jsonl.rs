//! An object of JSON in each line. What is no UTF-8, or much longer as text, stands in base16, with a
//! flag beside it that says so.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::failure::{Failure, Result};
use crate::progress::Unit;
use crate::rows::lines::Lines;
use crate::rows::{Out, Record, Shape, Sink, Source, checked};
use crate::text::{Encoding, hex, unhex};

/// A record, or half of one, as `scan`, `get` and `export` print it.
#[derive(Serialize)]
pub struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    key_base16: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    value_base16: bool,
}

impl Row {
    /// The row of a record. Everything is base16 if that was asked for.
    pub fn new(key: &[u8], value: Option<&[u8]>, encoding: Option<Encoding>) -> Self {
        let (key, key_base16) = text(key, encoding);
        let (value, value_base16) = value.map(|value| text(value, encoding)).unzip();
        Self { key: Some(key), key_base16, value, value_base16: value_base16.unwrap_or(false) }
    }
}

/// Text may take so many bytes more than base16 would: a short key with a zero byte in it stays readable.
const TEXT_EXTRA: usize = 64;

/// Bytes as a string, and whether it is base16. It takes two bytes each in JSON, or hardly more: control characters as
/// text would take six.
fn text(bytes: &[u8], encoding: Option<Encoding>) -> (String, bool) {
    match std::str::from_utf8(bytes) {
        Ok(text) if encoding != Some(Encoding::Hex) && escaped_len(bytes) <= 2 * bytes.len() + TEXT_EXTRA => {
            (text.to_owned(), false)
        }
        _ => (hex(bytes), true),
    }
}

/// Bytes that a text takes in JSON.
fn escaped_len(text: &[u8]) -> usize {
    let escaped = |byte: &u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..=0x1f => 6,
        _ => 1,
    };
    text.iter().map(escaped).sum()
}

/// Reads objects.
pub struct JsonlSource {
    lines: Lines,
    shape: Shape,
}

impl JsonlSource {
    pub fn new(lines: Lines, shape: Shape) -> Self {
        Self { lines, shape }
    }

    fn record(&self, line: &[u8]) -> std::result::Result<Record, String> {
        let object: BTreeMap<String, &RawValue> =
            serde_json::from_slice(line).map_err(|error| format!("not an object of JSON: {error}"))?;
        let key = field(&object, &self.shape.key_field, "key")?;
        let value = field(&object, &self.shape.value_field, "value")?;
        checked(Record { key, value })
    }
}

/// The bytes of a field: of a string what it says, of anything else its JSON as it stands there. The flag of base16
/// counts only beside a field with its usual name: in other people's objects it would be a field like any other.
fn field(
    object: &BTreeMap<String, &RawValue>,
    name: &str,
    usual: &str,
) -> std::result::Result<Vec<u8>, String> {
    let raw = object.get(name).ok_or_else(|| format!("no field {name:?}"))?.get();
    if !raw.starts_with('"') {
        return Ok(raw.as_bytes().to_vec());
    }
    let text: String = serde_json::from_str(raw).map_err(|error| format!("field {name:?}: {error}"))?;
    let flag = object.get(format!("{usual}_base16").as_str()).map(|raw| raw.get());
    match name == usual && flag == Some("true") {
        true => unhex(text.as_bytes()).map_err(|why| format!("field {name:?}: {why}")),
        false => Ok(text.into_bytes()),
    }
}

impl Source for JsonlSource {
    fn next(&mut self) -> Result<Option<Record>> {
        let Some(line) = self.lines.next()? else { return Ok(None) };
        self.record(&line).map(Some).map_err(|why| self.lines.wrong(why))
    }

    fn done(&self) -> u64 {
        self.lines.done()
    }

    fn total(&self) -> Option<u64> {
        self.lines.total()
    }

    fn unit(&self) -> Unit {
        Unit::Bytes
    }
}

/// Writes objects.
pub struct JsonlSink {
    out: Out,
    encoding: Option<Encoding>,
}

impl JsonlSink {
    pub(super) fn new(out: Out, shape: &Shape) -> Self {
        Self { out, encoding: shape.encoding }
    }
}

impl Sink for JsonlSink {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let row = serde_json::to_string(&Row::new(key, Some(value), self.encoding));
        self.out.write(row.map_err(|error| Failure::Failed(error.to_string()))?.as_bytes())?;
        self.out.write(b"\n")
    }

    fn finish(&mut self) -> Result<()> {
        self.out.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::path::Path;

    use super::*;

    #[test]
    fn no_row_takes_many_more_than_two_bytes_each_and_all_come_back() {
        let all: Vec<u8> = (0..0x80).collect();
        let samples: [&[u8]; 6] =
            [&[1; 1_000], &[b'\n'; 1_000], "\u{fc}".as_bytes(), b"a\x01", b"\x01\xff", &all];
        for value in samples {
            let row = serde_json::to_string(&Row::new(b"", Some(value), None)).unwrap();
            let syntax = r#"{"key":"","value":"","value_base16":true}"#.len();
            assert!(
                row.len() <= 2 * value.len() + syntax + TEXT_EXTRA,
                "{} bytes: {}",
                value.len(),
                row.len()
            );
            let lines = Lines::new(Path::new("-"), Box::new(Cursor::new(row)), None);
            let record = JsonlSource::new(lines, Shape::default()).next().unwrap();
            assert_eq!(record, Some(Record { key: Vec::new(), value: value.to_vec() }));
        }
    }
}

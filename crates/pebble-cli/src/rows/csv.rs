//! Rows as RFC 4180 has them: quotes where a column holds a comma, a quote or the end of a line, quotes inside doubled.
//! A column may hold any bytes. Rows end with CRLF when written, and with LF as well when read.

use pebble_db::limits::VALUE_LEN_MAX;

use crate::failure::Result;
use crate::progress::Unit;
use crate::rows::lines::Lines;
use crate::rows::{Out, Record, Shape, Sink, Source, checked, pick};
use crate::text::Encoding;

/// Reads rows.
pub struct CsvSource {
    lines: Lines,
    shape: Shape,
}

impl CsvSource {
    pub fn new(lines: Lines, shape: Shape) -> Self {
        Self { lines, shape }
    }

    /// The columns of the next row, which may go over several lines; `None` at the end. Empty lines are passed over.
    fn row(&mut self) -> Result<Option<Vec<Vec<u8>>>> {
        let mut text = Vec::new();
        let mut quoted = false;
        loop {
            let read = text.len();
            if !self.lines.read(&mut text)? {
                return match text.is_empty() {
                    true => Ok(None),
                    false => Err(self.lines.wrong("the file ends within quotes")),
                };
            }
            // After an even number of quotes the line feed is the end of the row and not part of a column.
            quoted ^= !text.iter().skip(read).filter(|byte| **byte == b'"').count().is_multiple_of(2);
            if !quoted {
                let row = text.strip_suffix(b"\n").unwrap_or(&text);
                let row = row.strip_suffix(b"\r").unwrap_or(row);
                if !row.is_empty() {
                    return columns(row).map(Some).map_err(|why| self.lines.wrong(why));
                }
                text.clear();
            } else if text.len() > 2 * VALUE_LEN_MAX + (1 << 20) {
                return Err(self.lines.wrong("a column longer than any value"));
            }
        }
    }

    fn record(&self, columns: Vec<Vec<u8>>) -> std::result::Result<Record, String> {
        let encoding = self.shape.encoding.unwrap_or(Encoding::Raw);
        let Record { key, value } = pick(columns, self.shape.columns)?;
        checked(Record { key: encoding.decode(&key)?, value: encoding.decode(&value)? })
    }
}

/// Splits a row. Its quotes are even in number.
fn columns(row: &[u8]) -> std::result::Result<Vec<Vec<u8>>, String> {
    let mut columns = Vec::new();
    let mut rest = row;
    loop {
        let (column, tail) = match rest.strip_prefix(b"\"") {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = rest.iter().position(|byte| *byte == b',').unwrap_or(rest.len());
                let (column, tail) = rest.split_at(end);
                if column.contains(&b'"') {
                    return Err("a quote in a column that does not begin with one".into());
                }
                (column.to_vec(), tail)
            }
        };
        columns.push(column);
        match tail {
            [] => return Ok(columns),
            [b',', tail @ ..] => rest = tail,
            _ => return Err("text behind a closing quote".into()),
        }
    }
}

/// The column behind an opening quote, and what follows its closing one.
fn unquote(quoted: &[u8]) -> std::result::Result<(Vec<u8>, &[u8]), String> {
    let mut column = Vec::new();
    let mut rest = quoted;
    loop {
        let end = rest.iter().position(|byte| *byte == b'"').ok_or("quotes that do not close")?;
        let (text, tail) = rest.split_at(end);
        column.extend_from_slice(text);
        match tail {
            [_, b'"', tail @ ..] => {
                column.push(b'"');
                rest = tail;
            }
            _ => return Ok((column, tail.get(1..).unwrap_or_default())),
        }
    }
}

impl Source for CsvSource {
    fn next(&mut self) -> Result<Option<Record>> {
        if std::mem::take(&mut self.shape.header) {
            self.row()?;
        }
        let Some(columns) = self.row()? else { return Ok(None) };
        self.record(columns).map(Some).map_err(|why| self.lines.wrong(why))
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

/// Writes rows.
pub struct CsvSink {
    out: Out,
    encoding: Encoding,
    column: Vec<u8>,
    row: Vec<u8>,
}

impl CsvSink {
    pub(super) fn new(mut out: Out, shape: &Shape) -> Result<Self> {
        if shape.header {
            out.write(b"key,value\r\n")?;
        }
        let encoding = shape.encoding.unwrap_or(Encoding::Raw);
        Ok(Self { out, encoding, column: Vec::new(), row: Vec::new() })
    }

    fn column(&mut self, bytes: &[u8]) {
        self.column.clear();
        self.encoding.encode(bytes, &mut self.column);
        quote(&self.column, &mut self.row);
    }
}

fn quote(column: &[u8], row: &mut Vec<u8>) {
    if !column.iter().any(|byte| matches!(byte, b'"' | b',' | b'\r' | b'\n')) {
        row.extend_from_slice(column);
        return;
    }
    row.push(b'"');
    for byte in column {
        if *byte == b'"' {
            row.push(b'"');
        }
        row.push(*byte);
    }
    row.push(b'"');
}

impl Sink for CsvSink {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.row.clear();
        self.column(key);
        self.row.push(b',');
        self.column(value);
        self.row.extend_from_slice(b"\r\n");
        self.out.write(&self.row)
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

    type Pair = (Vec<u8>, Vec<u8>);

    fn read(text: &[u8]) -> std::result::Result<Vec<Pair>, String> {
        let lines = Lines::new(Path::new("rows.csv"), Box::new(Cursor::new(text.to_vec())), None);
        let mut source = CsvSource::new(lines, Shape::default());
        let mut records = Vec::new();
        loop {
            match source.next() {
                Ok(Some(Record { key, value })) => records.push((key, value)),
                Ok(None) => return Ok(records),
                Err(failure) => return Err(format!("{failure:?}")),
            }
        }
    }

    fn pair(key: &[u8], value: &[u8]) -> Pair {
        (key.to_vec(), value.to_vec())
    }

    #[test]
    fn the_rules_of_rfc_4180() {
        assert_eq!(read(b"a,b\r\nc,d"), Ok(vec![pair(b"a", b"b"), pair(b"c", b"d")]));
        assert_eq!(read(b"a,b\nc,d\n\n"), Ok(vec![pair(b"a", b"b"), pair(b"c", b"d")]));
        assert_eq!(read(b"\"a,\"\"b\"\"\",\"x\r\n\r\ny\"\r\n"), Ok(vec![pair(b"a,\"b\"", b"x\r\n\r\ny")]));
        assert_eq!(read(b",\r\n\"\",\"\"\"\"\r\n"), Ok(vec![pair(b"", b""), pair(b"", b"\"")]));
        assert_eq!(read(b" a , b \r\n"), Ok(vec![pair(b" a ", b" b ")]));
    }

    #[test]
    fn what_is_no_row_is_refused_with_its_line() {
        for (text, line, why) in [
            (&b"a,b\nc\n"[..], 2, "1 columns"),
            (b"a,b,c\n", 1, "3 columns"),
            (b"a,\"b\nc\n", 2, "within quotes"),
            (b"a,\"b\"c\n", 1, "behind a closing quote"),
            (b"a,b\"c\"\n", 1, "does not begin with one"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(&format!("rows.csv:{line}: ")) && refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn any_bytes_come_back() {
        let all: Vec<u8> = (0..=255).collect();
        let mut text = Vec::new();
        for column in [&all[..], b"\r", b"\n\"", b"\"\"\"", b"", b"\xff,\xfe"] {
            quote(column, &mut text);
            text.push(b',');
            quote(column, &mut text);
            text.extend_from_slice(b"\r\n");
            assert_eq!(read(&text).unwrap().last(), Some(&pair(column, column)));
        }
    }
}

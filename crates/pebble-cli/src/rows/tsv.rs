//! Rows with a tab between key and value, both escaped so that they hold neither tab nor line feed.

use crate::failure::{Failure, Result};
use crate::progress::Unit;
use crate::rows::lines::Lines;
use crate::rows::{Out, Record, Shape, Sink, Source, checked, pick};
use crate::text::Encoding;

/// Reads rows.
pub struct TsvSource {
    lines: Lines,
    shape: Shape,
}

impl TsvSource {
    pub fn new(lines: Lines, shape: Shape) -> Self {
        Self { lines, shape }
    }

    fn record(&self, line: &[u8]) -> std::result::Result<Record, String> {
        let encoding = self.shape.encoding.unwrap_or(Encoding::Escaped);
        let columns = line.split(|byte| *byte == b'\t').map(<[u8]>::to_vec).collect();
        let Record { key, value } = pick(columns, self.shape.columns)?;
        checked(Record { key: encoding.decode(&key)?, value: encoding.decode(&value)? })
    }
}

impl Source for TsvSource {
    fn next(&mut self) -> Result<Option<Record>> {
        if std::mem::take(&mut self.shape.header) {
            self.lines.next()?;
        }
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

/// Writes rows.
pub struct TsvSink {
    out: Out,
    encoding: Encoding,
    row: Vec<u8>,
}

impl TsvSink {
    pub(super) fn new(mut out: Out, shape: &Shape) -> Result<Self> {
        if shape.header {
            out.write(b"key\tvalue\n")?;
        }
        Ok(Self { out, encoding: shape.encoding.unwrap_or(Encoding::Escaped), row: Vec::new() })
    }
}

impl Sink for TsvSink {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let splits = |bytes: &[u8]| bytes.iter().any(|byte| matches!(byte, b'\t' | b'\n' | b'\r'));
        if self.encoding == Encoding::Raw && (splits(key) || splits(value)) {
            let why =
                "a tab or the end of a line in a key or value: tsv needs --hex or its escapes, not --raw";
            return Err(Failure::Failed(why.into()));
        }
        self.row.clear();
        self.encoding.encode(key, &mut self.row);
        self.row.push(b'\t');
        self.encoding.encode(value, &mut self.row);
        self.row.push(b'\n');
        self.out.write(&self.row)
    }

    fn finish(&mut self) -> Result<()> {
        self.out.finish()
    }
}

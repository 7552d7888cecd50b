//! Records in files that other programs read and write: rows of text, or a directory with a file for each.
//!
//! | format | a record is | any bytes? |
//! |---|---|---|
//! | tsv | `key TAB value LF`, escaped text | yes; with `--raw` only without tab and line feed |
//! | csv | `key,value CRLF`, quoted as RFC 4180 says | yes, inside the quotes; `--hex` keeps it text |
//! | jsonl | `{"key":"..","value":".."}`, base16 with a flag where it is no text, or much longer so | yes |
//! | dir | a file: its path is the key, its content the value | values; keys must be safe relative paths |

mod csv;
mod dir;
mod jsonl;
mod lines;
mod tsv;

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use pebble_db::limits::{KEY_LEN_MAX, VALUE_LEN_MAX};

use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::progress::Unit;
use crate::text::Encoding;

pub use dir::check_key as check_path_key;
pub use jsonl::Row;

/// A key and a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A directory with a file for each record
    Dir,
    /// Rows of two columns with a tab between them
    Tsv,
    /// Rows of two columns as RFC 4180 has them
    Csv,
    /// An object of JSON in each line
    Jsonl,
}

impl Format {
    /// What the name of a file says: `None` when it says nothing.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "tsv" => Some(Self::Tsv),
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            _ => None,
        }
    }
}

/// How rows are written and read.
#[derive(Clone, Debug)]
pub struct Shape {
    /// How keys and values are encoded; `None` for what is usual in the format.
    pub encoding: Option<Encoding>,
    /// Whether the first row of tsv and csv is a header.
    pub header: bool,
    /// The columns of tsv and csv that are key and value, from 1; `None` when there must be just two.
    pub columns: Option<(usize, usize)>,
    /// The field of jsonl that is the key.
    pub key_field: String,
    /// The field of jsonl that is the value.
    pub value_field: String,
}

impl Default for Shape {
    fn default() -> Self {
        let (key_field, value_field) = ("key".to_owned(), "value".to_owned());
        Self { encoding: None, header: false, columns: None, key_field, value_field }
    }
}

/// Where records come from. After an error there is no next one.
pub trait Source {
    /// The next record, `None` at the end.
    fn next(&mut self) -> Result<Option<Record>>;
    /// How much of [`Source::total`] is done.
    fn done(&self) -> u64;
    /// How much there is, if that is known.
    fn total(&self) -> Option<u64>;
    /// What is counted.
    fn unit(&self) -> Unit;
}

/// Where records go to.
pub trait Sink {
    /// One more.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()>;
    /// That was all.
    fn finish(&mut self) -> Result<()>;
}

/// The records of `path`; `-` is stdin.
pub fn source(path: &Path, format: Format, shape: Shape) -> Result<Box<dyn Source>> {
    if format == Format::Dir {
        return Ok(Box::new(dir::DirSource::new(path)?));
    }
    let (reader, total): (Box<dyn BufRead>, _) = if path == Path::new("-") {
        (Box::new(BufReader::new(io::stdin())), None)
    } else {
        let file = File::open(path).map_err(|error| Failure::at(path, error))?;
        let total = file.metadata().map_err(|error| Failure::at(path, error))?.len();
        (Box::new(BufReader::with_capacity(256 << 10, file)), Some(total))
    };
    let lines = lines::Lines::new(path, reader, total);
    Ok(match format {
        Format::Csv => Box::new(csv::CsvSource::new(lines, shape)),
        Format::Jsonl => Box::new(jsonl::JsonlSource::new(lines, shape)),
        Format::Tsv | Format::Dir => Box::new(tsv::TsvSource::new(lines, shape)),
    })
}

/// A new file or directory for records; `-` is stdout. What exists is not replaced.
pub fn sink(path: &Path, format: Format, shape: &Shape) -> Result<Box<dyn Sink>> {
    if format == Format::Dir {
        return Ok(Box::new(dir::DirSink::new(path)?));
    }
    let out = if path == Path::new("-") {
        Out::Stdout(Output::new())
    } else {
        let file = File::create_new(path).map_err(|error| Failure::at(path, error))?;
        Out::File(path.to_owned(), BufWriter::with_capacity(256 << 10, file))
    };
    Ok(match format {
        Format::Csv => Box::new(csv::CsvSink::new(out, shape)?),
        Format::Jsonl => Box::new(jsonl::JsonlSink::new(out, shape)),
        Format::Tsv | Format::Dir => Box::new(tsv::TsvSink::new(out, shape)?),
    })
}

/// A file of rows that is being written.
enum Out {
    Stdout(Output),
    File(PathBuf, BufWriter<File>),
}

impl Out {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Stdout(output) => output.bytes(bytes),
            Self::File(path, file) => file.write_all(bytes).map_err(|error| Failure::at(path, error)),
        }
    }

    fn finish(&mut self) -> Result<()> {
        match self {
            Self::Stdout(output) => output.flush(),
            Self::File(path, file) => file.flush().map_err(|error| Failure::at(path, error)),
        }
    }
}

/// The two columns of a row that are key and value.
fn pick(mut columns: Vec<Vec<u8>>, wanted: Option<(usize, usize)>) -> std::result::Result<Record, String> {
    let found = columns.len();
    let Some((key, value)) = wanted else {
        return match (columns.pop(), columns.pop(), found) {
            (Some(value), Some(key), 2) => Ok(Record { key, value }),
            _ => Err(format!("{found} columns; key and value are wanted, or --columns to pick them")),
        };
    };
    let column = |at: usize| {
        let column = columns.get(at.saturating_sub(1));
        column.cloned().ok_or_else(|| format!("{found} columns; there is no column {at}"))
    };
    Ok(Record { key: column(key)?, value: column(value)? })
}

/// A record within the limits of a database.
fn checked(record: Record) -> std::result::Result<Record, String> {
    let (key, value) = (record.key.len(), record.value.len());
    if key > KEY_LEN_MAX {
        return Err(format!("a key of {key} bytes; {KEY_LEN_MAX} are allowed"));
    }
    if value > VALUE_LEN_MAX {
        return Err(format!("a value of {value} bytes; {VALUE_LEN_MAX} are allowed"));
    }
    Ok(record)
}

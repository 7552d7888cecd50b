//! `pebble export`: all records of a keyspace, as they were when it began.

use std::path::{Path, PathBuf};

use clap::Args;
use pebble_db::{Iter, Keyspace, Snapshot};
use serde::Serialize;

use crate::failure::{Failure, Result, note};
use crate::human;
use crate::output::Output;
use crate::place::{Missing, Spot};
use crate::progress::{Progress, Unit};
use crate::rows::{self, Format, Shape};
use crate::text::Form;

/// Write the records to a new directory (a file each) or a new .tsv, .csv or .jsonl file (a row each)
///
/// What is written can be imported again, with the same --hex, --raw and --header, and gives the same records.
/// A directory takes only keys that are relative paths without `.` and `..`, with names and paths that
/// the system takes; it is refused before anything is written.
#[derive(Args)]
pub struct Export {
    #[command(flatten)]
    spot: Spot,
    /// A directory or file to be made, or - for stdout; a name without a known ending is a directory
    path: PathBuf,
    /// What to write, where the name does not say so
    #[arg(long, value_enum)]
    format: Option<Format>,
    #[command(flatten)]
    form: Form,
    /// Begin tsv or csv with a header
    #[arg(long)]
    header: bool,
    /// Only keys that begin so
    #[arg(long, value_name = "KEY")]
    prefix: Option<std::ffi::OsString>,
    /// Print an object: {"records":..,"bytes":..}; not when the records themselves go to stdout
    #[arg(long)]
    json: bool,
}

#[derive(Serialize, Default)]
struct Answer {
    records: u64,
    /// Of keys and values.
    bytes: u64,
}

impl Export {
    pub fn run(&self) -> Result<()> {
        let to_stdout = self.path.as_os_str() == "-";
        let format = self.format.or_else(|| Format::of(&self.path));
        let format = match format {
            None if to_stdout => return Err(Failure::Usage("--format says what to write to stdout".into())),
            Some(Format::Dir) if to_stdout => {
                return Err(Failure::Usage("stdout is no directory".into()));
            }
            format => format.unwrap_or(Format::Dir),
        };
        let prefix = self.form.optional(self.prefix.as_ref())?;
        let shape = Shape { encoding: self.form.chosen(), header: self.header, ..Shape::default() };
        let answer = self.spot.with(Missing::Refuse, |db, keyspace| {
            let view = View { snapshot: db.snapshot(), keyspace, prefix: prefix.unwrap_or_default() };
            view.export(self, format, &shape)
        })?;
        if self.json && !to_stdout {
            let mut output = Output::new();
            output.json(&answer)?;
            return output.flush();
        }
        note(&format!("{} records, {}", human::count(answer.records), human::bytes(answer.bytes)));
        Ok(())
    }
}

/// What is exported.
struct View<'a> {
    snapshot: Snapshot,
    keyspace: &'a Keyspace,
    prefix: Vec<u8>,
}

impl View<'_> {
    fn iter(&self) -> Result<Iter> {
        Ok(self.snapshot.prefix(self.keyspace, &self.prefix)?)
    }

    fn export(&self, export: &Export, format: Format, shape: &Shape) -> Result<Answer> {
        if format == Format::Dir {
            self.check_paths(&export.path)?;
        }
        let mut sink = rows::sink(&export.path, format, shape)?;
        let progress = Progress::new("export", None, Unit::Items);
        let mut answer = Answer::default();
        for entry in self.iter()? {
            let (key, value) = entry?;
            sink.put(&key, &value)?;
            answer.records += 1;
            answer.bytes += (key.len() + value.len()) as u64;
            progress.advance(1);
        }
        sink.finish()?;
        Ok(answer)
    }

    /// That every key can be the path of a file under `root`, and none is the directory of another.
    fn check_paths(&self, root: &Path) -> Result<()> {
        for entry in self.iter()? {
            let (key, _) = entry?;
            let refuse = |why: &str| {
                let key = key.escape_ascii();
                Err(Failure::Failed(format!(
                    "the key \"{key}\" is no path for a file: {why}; nothing was written"
                )))
            };
            if let Err(why) = rows::check_path_key(root, &key) {
                return refuse(why);
            }
            let mut inside = key.to_vec();
            inside.push(b'/');
            if self.snapshot.prefix(self.keyspace, inside)?.next().transpose()?.is_some() {
                return refuse("other keys lie below it");
            }
        }
        Ok(())
    }
}

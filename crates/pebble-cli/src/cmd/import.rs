//! `pebble import`: records from files, many to a commit.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use pebble_db::{Db, Keyspace, WriteBatch};
use serde::Serialize;

use crate::failure::{Failure, Result, note};
use crate::human;
use crate::output::Output;
use crate::place::{Missing, Spot, Sync};
use crate::progress::Progress;
use crate::rows::{self, Format, Shape, Source};
use crate::text::Form;

/// A commit is made when its records take so much, however few they are.
const BATCH_BYTES: usize = 64 << 20;

/// Put the records of a directory (a file each) or of a .tsv, .csv or .jsonl file (a row each)
///
/// What a failed import has committed stays, in whole commits of --batch records.
#[derive(Args)]
pub struct Import {
    #[command(flatten)]
    spot: Spot,
    /// A directory, a file, or - for stdin
    path: PathBuf,
    /// What is in it, where its name does not say so
    #[arg(long, value_enum)]
    format: Option<Format>,
    #[command(flatten)]
    form: Form,
    /// The first row of tsv or csv is a header
    #[arg(long)]
    header: bool,
    /// Which columns of tsv or csv are key and value, counted from 1, as in 1,3 [default: the only two]
    #[arg(long, value_name = "K,V", value_parser = parse_columns)]
    columns: Option<(usize, usize)>,
    /// The field of jsonl that is the key
    #[arg(long, value_name = "NAME", default_value = "key")]
    key_field: String,
    /// The field of jsonl that is the value; what is no string is taken as JSON
    #[arg(long, value_name = "NAME", default_value = "value")]
    value_field: String,
    /// Records of a commit
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    #[command(flatten)]
    sync: Sync,
    /// Print an object: {"records":..,"bytes":..,"commits":..,"seconds":..}
    #[arg(long)]
    json: bool,
}

#[derive(Serialize, Default)]
struct Answer {
    records: u64,
    /// Of keys and values.
    bytes: u64,
    commits: u64,
    seconds: f64,
}

impl Import {
    pub fn run(&self) -> Result<()> {
        let format = match self.format {
            Some(format) => format,
            None if self.path.is_dir() => Format::Dir,
            None => Format::of(&self.path).ok_or_else(|| {
                let path = self.path.display();
                Failure::Usage(format!(
                    "{path}: not a directory, .tsv, .csv or .jsonl; --format says what it is"
                ))
            })?,
        };
        let shape = Shape {
            encoding: self.form.chosen(),
            header: self.header,
            columns: self.columns,
            key_field: self.key_field.clone(),
            value_field: self.value_field.clone(),
        };
        let mut source = rows::source(&self.path, format, shape)?;
        let begun = Instant::now();
        let mut answer = Answer::default();
        let done = self
            .spot
            .with(Missing::Create, |db, keyspace| self.copy(source.as_mut(), db, keyspace, &mut answer));
        if done.is_err() && answer.records > 0 {
            note(&format!("{} records were committed before this:", human::count(answer.records)));
        }
        done?;
        let time = begun.elapsed();
        answer.seconds = time.as_secs_f64();
        if self.json {
            let mut output = Output::new();
            output.json(&answer)?;
            return output.flush();
        }
        note(&format!(
            "{} records, {}, {} commits in {}",
            human::count(answer.records),
            human::bytes(answer.bytes),
            human::count(answer.commits),
            human::time(time),
        ));
        Ok(())
    }

    fn copy(&self, source: &mut dyn Source, db: &Db, keyspace: &Keyspace, answer: &mut Answer) -> Result<()> {
        let progress = Progress::new("import", source.total(), source.unit());
        let mut pending = Pending::default();
        while let Some(record) = source.next()? {
            pending.batch.put(keyspace, &record.key, &record.value);
            pending.bytes += (record.key.len() + record.value.len()) as u64;
            // A batch's count fits in u32, as its limit does.
            if pending.batch.len() >= self.batch as usize || pending.batch.encoded_len() >= BATCH_BYTES {
                self.commit(db, std::mem::take(&mut pending), answer)?;
                progress.set(source.done());
            }
        }
        self.commit(db, pending, answer)
    }

    fn commit(&self, db: &Db, pending: Pending, answer: &mut Answer) -> Result<()> {
        let records = pending.batch.len() as u64;
        if records == 0 {
            return Ok(());
        }
        db.write_with(pending.batch, &self.sync.options())?;
        answer.records += records;
        answer.bytes += pending.bytes;
        answer.commits += 1;
        Ok(())
    }
}

#[derive(Default)]
struct Pending {
    batch: WriteBatch,
    bytes: u64,
}

fn parse_columns(text: &str) -> std::result::Result<(usize, usize), String> {
    let wrong = || "two column numbers from 1, such as 1,3".to_owned();
    let (key, value) = text.split_once(',').ok_or_else(wrong)?;
    match (key.trim().parse(), value.trim().parse()) {
        (Ok(key @ 1..), Ok(value @ 1..)) => Ok((key, value)),
        _ => Err(wrong()),
    }
}

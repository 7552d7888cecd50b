//! `pebble put`: one record.

use std::ffi::OsString;
use std::io::{self, Read};

use clap::Args;
use pebble_db::limits::VALUE_LEN_MAX;
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::place::{Missing, Spot, Sync};
use crate::text::Form;

/// Set a key to a value
#[derive(Args)]
pub struct Put {
    #[command(flatten)]
    spot: Spot,
    /// The key
    key: OsString,
    /// The value; without it stdin is read to its end, byte for byte
    value: Option<OsString>,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    sync: Sync,
    /// Print {"put":1}
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer {
    put: u64,
}

impl Put {
    pub fn run(&self) -> Result<()> {
        let key = self.form.argument(&self.key)?;
        let value = match &self.value {
            Some(value) => self.form.argument(value)?,
            None => read_stdin()?,
        };
        self.spot.with(Missing::Create, |_, keyspace| {
            Ok(keyspace.put_with(&key, &value, &self.sync.options())?)
        })?;
        if self.json {
            let mut output = Output::new();
            output.json(&Answer { put: 1 })?;
            output.flush()?;
        }
        Ok(())
    }
}

/// One byte more than a value may have is enough for the database to refuse it.
fn read_stdin() -> Result<Vec<u8>> {
    let mut value = Vec::new();
    let read = io::stdin().lock().take(VALUE_LEN_MAX as u64 + 1).read_to_end(&mut value);
    read.map_err(|error| Failure::Failed(format!("stdin: {error}")))?;
    Ok(value)
}

//! `pebble get`: one value.

use std::ffi::OsString;

use clap::Args;

use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::place::{Missing, Spot};
use crate::rows::Row;
use crate::text::{Encoding, Form};

/// Print the value of a key; exit with 1 and print nothing if it is absent
#[derive(Args)]
pub struct Get {
    #[command(flatten)]
    spot: Spot,
    /// The key
    key: OsString,
    #[command(flatten)]
    form: Form,
    /// Print an object: {"key":..,"value":..}, base16 with a flag where it is not text or mostly escapes
    #[arg(long)]
    json: bool,
}

impl Get {
    pub fn run(&self) -> Result<()> {
        let key = self.form.argument(&self.key)?;
        self.spot.with(Missing::Refuse, |_, keyspace| {
            let value = keyspace.get(&key)?.ok_or(Failure::Absent)?;
            let mut output = Output::new();
            if self.json {
                output.json(&Row::new(&key, Some(&value), self.form.chosen()))?;
            } else if self.form.encoding() == Encoding::Raw {
                output.bytes(&value)?;
            } else {
                let mut line = Vec::new();
                self.form.encoding().encode(&value, &mut line);
                line.push(b'\n');
                output.bytes(&line)?;
            }
            output.flush()
        })
    }
}

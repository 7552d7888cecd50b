//! `pebble scan`: records in order.

use std::ffi::OsString;

use clap::Args;
use pebble_db::{Key, Value};
use serde::Serialize;

use crate::between::Between;
use crate::failure::Result;
use crate::output::Output;
use crate::place::{Missing, Spot};
use crate::rows::Row;
use crate::text::Form;

/// Print records in the order of their keys: key, tab, value
#[derive(Args)]
pub struct Scan {
    #[command(flatten)]
    spot: Spot,
    #[command(flatten)]
    between: Between,
    /// Only keys that begin so
    #[arg(long, value_name = "KEY", conflicts_with_all = ["from", "to"])]
    prefix: Option<OsString>,
    /// From the last to the first
    #[arg(long)]
    reverse: bool,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Without the values
    #[arg(long)]
    keys_only: bool,
    /// Print how many there are, and none of them
    #[arg(long)]
    count: bool,
    #[command(flatten)]
    form: Form,
    /// Print an object a line: {"key":..,"value":..}, base16 with a flag where it is not text or mostly escapes
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Count {
    count: u64,
}

impl Scan {
    pub fn run(&self) -> Result<()> {
        let bounds = self.between.bounds(self.form)?;
        let prefix = self.form.optional(self.prefix.as_ref())?;
        self.spot.with(Missing::Refuse, |_, keyspace| {
            let mut iter = match prefix {
                Some(prefix) => keyspace.prefix(prefix)?,
                None => keyspace.range(bounds)?,
            };
            let mut output = Output::new();
            let mut line = Vec::new();
            let mut count = 0;
            while count < self.limit.unwrap_or(u64::MAX) {
                let next = if self.reverse { iter.next_back() } else { iter.next() };
                let Some(entry) = next else { break };
                let (key, value) = entry?;
                count += 1;
                if !self.count {
                    self.print(&mut output, &mut line, &key, &value)?;
                }
            }
            if self.count && self.json {
                output.json(&Count { count })?;
            } else if self.count {
                output.line(count.to_string())?;
            }
            output.flush()
        })
    }

    fn print(&self, output: &mut Output, line: &mut Vec<u8>, key: &Key, value: &Value) -> Result<()> {
        if self.json {
            let value = (!self.keys_only).then_some(&value[..]);
            return output.json(&Row::new(key, value, self.form.chosen()));
        }
        line.clear();
        self.form.encoding().encode(key, line);
        if !self.keys_only {
            line.push(b'\t');
            self.form.encoding().encode(value, line);
        }
        line.push(b'\n');
        output.bytes(line)
    }
}

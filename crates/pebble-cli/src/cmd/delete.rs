//! `pebble delete`: keys, in one commit.

use std::ffi::OsString;

use clap::Args;
use pebble_db::WriteBatch;
use serde::Serialize;

use crate::failure::Result;
use crate::output::Output;
use crate::place::{Missing, Spot, Sync};
use crate::text::Form;

/// Remove keys, all together or none; that one is absent is no error
#[derive(Args)]
pub struct Delete {
    #[command(flatten)]
    spot: Spot,
    /// The keys
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<OsString>,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    sync: Sync,
    /// Print {"deleted":N}, the number of keys given
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer {
    deleted: usize,
}

impl Delete {
    pub fn run(&self) -> Result<()> {
        let keys = self.keys.iter().map(|key| self.form.argument(key)).collect::<Result<Vec<_>>>()?;
        self.spot.with(Missing::Refuse, |db, keyspace| {
            let mut batch = WriteBatch::new();
            for key in &keys {
                batch.delete(keyspace, key);
            }
            Ok(db.write_with(batch, &self.sync.options())?)
        })?;
        if self.json {
            let mut output = Output::new();
            output.json(&Answer { deleted: keys.len() })?;
            output.flush()?;
        }
        Ok(())
    }
}

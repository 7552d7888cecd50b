//! `pebble delete`: keys, or a range of them, in one commit.

use std::ffi::OsString;
use std::ops::Bound;

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
    #[arg(required_unless_present_any = ["from", "to", "prefix"], value_name = "KEY")]
    keys: Vec<OsString>,
    /// Every key from this one on; with --to, up to there
    #[arg(long, value_name = "KEY", conflicts_with = "keys")]
    from: Option<OsString>,
    /// Every key before this one; with --from, from there on
    #[arg(long, value_name = "KEY", conflicts_with = "keys")]
    to: Option<OsString>,
    /// Every key that begins so
    #[arg(long, value_name = "KEY", conflicts_with_all = ["keys", "from", "to"])]
    prefix: Option<OsString>,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    sync: Sync,
    /// Print {"deleted":N}, the number of keys given; a range is one record, and nobody counts what lies in it
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
        let optional = |text: &Option<OsString>| self.form.optional(text.as_ref());
        let (from, to, prefix) = (optional(&self.from)?, optional(&self.to)?, optional(&self.prefix)?);
        self.spot.with(Missing::Refuse, |db, keyspace| {
            let mut batch = WriteBatch::new();
            for key in &keys {
                batch.delete(keyspace, key);
            }
            if let Some(prefix) = &prefix {
                batch.delete_prefix(keyspace, prefix);
            } else if keys.is_empty() {
                let low = from.as_ref().map_or(Bound::Unbounded, Bound::Included);
                let high = to.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
                batch.delete_range(keyspace, (low, high));
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

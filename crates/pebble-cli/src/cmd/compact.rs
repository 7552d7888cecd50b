//! `pebble compact`: a keyspace, or a part of it, merged into one run.

use std::ops::ControlFlow;

use clap::Args;

use crate::between::Between;
use crate::failure::Result;
use crate::place::{Missing, Spot};
use crate::progress::{Progress, Unit};
use crate::text::Form;

/// Merge the tables of a range of keys into one run, without what was overwritten or deleted
#[derive(Args)]
pub struct Compact {
    #[command(flatten)]
    spot: Spot,
    #[command(flatten)]
    between: Between,
    #[command(flatten)]
    form: Form,
}

impl Compact {
    pub fn run(&self) -> Result<()> {
        let (from, to) = self.between.bounds(self.form)?;
        self.spot.with(Missing::Refuse, |_, keyspace| {
            let bytes = keyspace.size_estimate((from.as_ref(), to.as_ref()))?.table_bytes;
            let bar = Progress::new("compact", Some(bytes), Unit::Bytes);
            keyspace.compact_range_with((from.as_ref(), to.as_ref()), |progress| {
                bar.set(progress.done_bytes);
                ControlFlow::Continue(())
            })?;
            Ok(())
        })
    }
}

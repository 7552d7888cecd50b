//! A half-open range of keys, as two arguments.

use std::ffi::OsString;
use std::ops::Bound;

use clap::Args;

use crate::failure::Result;
use crate::text::Form;

/// Where a range begins and ends.
pub type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// From one key on, and before another.
#[derive(Args)]
pub struct Between {
    /// Begin at this key
    #[arg(long, value_name = "KEY")]
    from: Option<OsString>,
    /// End before this key
    #[arg(long, value_name = "KEY")]
    to: Option<OsString>,
}

impl Between {
    /// The range, its keys read as `form` writes them.
    pub fn bounds(&self, form: Form) -> Result<Bounds> {
        Ok((
            form.optional(self.from.as_ref())?.map_or(Bound::Unbounded, Bound::Included),
            form.optional(self.to.as_ref())?.map_or(Bound::Unbounded, Bound::Excluded),
        ))
    }
}

//! A rule that does not hold: the caller's mistake when an edit is made, damage when it is read back.
//!
//! Threading: plain data.

use pebble_format::{Corruption, Error};

/// Which rule, and the two numbers that disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    what: &'static str,
    expected: u64,
    got: u64,
}

impl Broken {
    /// `expected` is what the rule asks for, or the bound that it sets.
    pub(crate) fn new(what: &'static str, expected: u64, got: u64) -> Self {
        Self { what, expected, got }
    }

    /// The rule as damage of the frame at `offset`.
    pub(crate) fn at(self, offset: u64) -> Corruption {
        Corruption::new(self.what, offset, self.expected, self.got)
    }
}

impl From<Broken> for Error {
    fn from(broken: Broken) -> Self {
        Self::invalid(format!("{}: expected {}, got {}", broken.what, broken.expected, broken.got))
    }
}

/// Fails with [`Broken`] unless `holds`.
pub(crate) fn ensure(holds: bool, what: &'static str, expected: u64, got: u64) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken::new(what, expected, got)) }
}

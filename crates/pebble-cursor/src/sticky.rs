//! The memory of a failed cursor: rule C5 in one place.
//!
//! Threading: plain data.

use pebble_format::{Error, Result};

/// The first error that a cursor met, repeated from then on.
#[derive(Debug, Default)]
pub(crate) struct Sticky(Option<Error>);

impl Sticky {
    /// The error met before, if any. Stands first in every call that moves a cursor.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        match &self.0 {
            None => Ok(()),
            Some(error) => Err(error.clone()),
        }
    }

    /// Whether an error was met.
    #[inline]
    pub(crate) fn failed(&self) -> bool {
        self.0.is_some()
    }

    /// Passes a result through and remembers its error.
    #[inline]
    pub(crate) fn keep<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.0 = Some(error.clone());
        }
        result
    }
}

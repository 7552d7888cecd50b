//! What went wrong, and the exit code that tells a script.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use pebble_db::Error;

/// Result of every verb.
pub type Result<T> = std::result::Result<T, Failure>;

/// Stands under every `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done; also when whoever reads the output has closed the pipe
  1  not done: no such database or keyspace, locked, an I/O error, bad input; also `get` of an absent key
  2  wrong usage
  3  corruption found: bytes or files of the database are damaged or missing

Data goes to stdout, everything else to stderr. Progress shows only on a terminal.";

/// Why a verb did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// The database refused.
    Db(Error),
    /// It was tried and did not work; the message says what.
    Failed(String),
    /// The command line asks for something that cannot be.
    Usage(String),
    /// The database is damaged in a way that only this program noticed.
    Corrupt(String),
    /// The answer is no, and that is all there is to say.
    Absent,
    /// Nobody reads stdout any more.
    ClosedPipe,
}

impl Failure {
    /// A [`Failure::Failed`] at a path.
    pub fn at(path: &Path, error: impl std::fmt::Display) -> Self {
        Self::Failed(format!("{}: {error}", path.display()))
    }

    /// A failure to write to stdout.
    pub fn of_stdout(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Failed(format!("stdout: {error}")),
        }
    }

    fn code(&self) -> u8 {
        match self {
            Self::ClosedPipe => 0,
            Self::Db(error) if error.is_corruption() => 3,
            Self::Db(Error::InvalidArgument(_)) | Self::Usage(_) => 2,
            Self::Db(_) | Self::Failed(_) | Self::Absent => 1,
            Self::Corrupt(_) => 3,
        }
    }

    /// Whether bytes or files of the database are damaged or gone.
    pub fn is_corruption(&self) -> bool {
        self.code() == 3
    }

    fn message(&self) -> Option<String> {
        match self {
            Self::Db(error) if error.is_corruption() => Some(format!("corruption found: {error}")),
            Self::Db(error) => Some(error.to_string()),
            Self::Corrupt(message) => Some(format!("corruption found: {message}")),
            Self::Failed(message) | Self::Usage(message) => Some(message.clone()),
            Self::Absent | Self::ClosedPipe => None,
        }
    }

    /// Says it on stderr.
    pub fn report(&self) -> ExitCode {
        if let Some(message) = self.message() {
            note(&message);
        }
        ExitCode::from(self.code())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message().unwrap_or_default())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Db(error)
    }
}

/// A line on stderr. That nobody can read it is no reason to fail.
pub fn note(message: &str) {
    writeln!(io::stderr(), "pebble: {message}").ok();
}

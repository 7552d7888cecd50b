//! The error that every component crate returns, and [`Corruption`], which names damaged bytes.
//!
//! Errors are cheap to clone, because a cursor that met one repeats it for the rest of its life.

use std::fmt;
use std::io;
use std::sync::Arc;

/// Result of the component crates.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong in a component (log, table, manifest, cursor). The engine adds the kinds that only it can know.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a call; the inner error names the operation and the path.
    #[error("{0}")]
    Io(Arc<io::Error>),
    /// Bytes on disk are not what was written.
    #[error("{0}")]
    Corruption(Box<Corruption>),
    /// A file that must exist does not.
    #[error("missing file {file}")]
    MissingFile {
        /// Name of the file.
        file: Box<str>,
    },
    /// The file was written in a format that this build does not know: a newer one, or one that was never released.
    #[error("{file}: format version {found} is none that this build reads; the newest is {max}")]
    UnsupportedVersion {
        /// Name of the file.
        file: Box<str>,
        /// The version found in the file.
        found: u32,
        /// The newest version this build reads.
        max: u32,
    },
    /// The file is right, but was made with a codec that this build was compiled without; nothing was changed.
    #[error(
        "{file}: blocks are compressed with {codec}, and this build is without; build with the feature {codec}"
    )]
    UnsupportedCodec {
        /// Name of the file.
        file: Box<str>,
        /// The codec, and the cargo feature that brings it.
        codec: &'static str,
    },
    /// The caller broke a documented limit or order; nothing has changed.
    #[error("invalid argument: {0}")]
    InvalidArgument(Box<str>),
}

impl Error {
    /// An [`Error::InvalidArgument`] with this message.
    pub fn invalid(message: impl Into<Box<str>>) -> Self {
        Self::InvalidArgument(message.into())
    }

    /// The same error, with the file named if it tells of a file's content and does not name one yet.
    pub fn in_file(self, file: &str) -> Self {
        match self {
            Self::Corruption(corruption) => Self::Corruption(Box::new(corruption.in_file(file))),
            Self::UnsupportedCodec { file: unnamed, codec } if unnamed.is_empty() => {
                Self::UnsupportedCodec { file: file.into(), codec }
            }
            other => other,
        }
    }

    /// Whether this is damage on disk: [`Error::Corruption`] or [`Error::MissingFile`].
    pub fn is_corruption(&self) -> bool {
        matches!(self, Self::Corruption(_) | Self::MissingFile { .. })
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl From<Corruption> for Error {
    fn from(corruption: Corruption) -> Self {
        Self::Corruption(Box::new(corruption))
    }
}

/// Damaged bytes: where they are, what they should have been, what they were. Never holds a user's key or value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// Name of the file, empty until a caller that knows it fills it in.
    pub file: Box<str>,
    /// Byte offset in the file (or in the slice that was decoded, until a caller adds its base).
    pub offset: u64,
    /// What does not hold, in a few words: `"block checksum"`, `"record length"`.
    pub what: &'static str,
    /// What was expected: a checksum, a length, a bound.
    pub expected: u64,
    /// What was found.
    pub got: u64,
}

impl Corruption {
    /// A corruption at `offset` in a file that is not named yet.
    pub fn new(what: &'static str, offset: u64, expected: u64, got: u64) -> Self {
        Self { file: Box::from(""), offset, what, expected, got }
    }

    /// Names the file, unless it is named already.
    pub fn in_file(mut self, file: &str) -> Self {
        if self.file.is_empty() {
            self.file = file.into();
        }
        self
    }

    /// Adds the offset of the decoded slice within its file.
    pub fn at(mut self, base: u64) -> Self {
        self.offset = self.offset.saturating_add(base);
        self
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = if self.file.is_empty() { "bytes" } else { &self.file };
        write!(
            f,
            "{file}: corrupt {} at offset {}: expected {:#x}, got {:#x}",
            self.what, self.offset, self.expected, self.got
        )
    }
}

impl std::error::Error for Corruption {}

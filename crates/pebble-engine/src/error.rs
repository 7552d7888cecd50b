//! The one error of the store: few kinds, each of which tells the caller what to do.

use std::io;
use std::path::Path;
use std::sync::Arc;

use pebble_format::Corruption;

use crate::stats::StallReason;

/// Result of every call on a database.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and so what to do. Cheap to clone; never holds a user's key or value.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a call; the inner error names the operation and the path. Nothing is lost:
    /// retry, or look at the cause.
    #[error("{0}")]
    Io(Arc<io::Error>),
    /// The disk is full. The write was not applied and is not visible; reads go on, and writes succeed again when
    /// there is space.
    #[error("no space: {0}")]
    NoSpace(Arc<io::Error>),
    /// Bytes on disk are not what was written. Restore the file, or open in a recovery mode.
    #[error("{0}")]
    Corruption(Box<Corruption>),
    /// A file of the database is gone. Restore it; an empty database is never made in its place.
    #[error("missing file {file}")]
    MissingFile {
        /// Name of the file within the directory.
        file: Box<str>,
    },
    /// A newer build wrote this file, or one that was never released. Open it with that build; nothing was changed.
    #[error("{file}: format version {found} is none that this build reads; the newest is {max}")]
    UnsupportedVersion {
        /// Name of the file within the directory.
        file: Box<str>,
        /// The version found.
        found: u32,
        /// The newest version that this build reads.
        max: u32,
    },
    /// A table is compressed with a codec that this build was compiled without. Open the database with a build that has
    /// the feature; nothing was changed.
    #[error(
        "{file}: blocks are compressed with {codec}, and this build is without; build with the feature {codec}"
    )]
    UnsupportedCodec {
        /// Name of the file within the directory.
        file: Box<str>,
        /// The codec, and the cargo feature that brings it.
        codec: &'static str,
    },
    /// There is no database at this path, and the caller asked not to create one.
    #[error("no database at {path}")]
    NotADatabase {
        /// The path that was opened.
        path: Box<str>,
    },
    /// Somebody has the database open, in this process or in another.
    #[error("{path} is locked by another open database")]
    Locked {
        /// The path that was opened.
        path: Box<str>,
    },
    /// An earlier failure stopped all writing until the database is opened again. Reads go on.
    #[error("read-only until reopened: {cause}")]
    ReadOnly {
        /// What stopped it.
        cause: Arc<Error>,
    },
    /// A write that was not to wait would have had to. It was not applied: try again, or write less.
    #[error("the write would have to wait: {reason}")]
    Stalled {
        /// What is behind.
        reason: StallReason,
    },
    /// Whether this commit is durable cannot be known: syncing the log failed. It is not visible now; after a
    /// reopen it is there whole or not at all. It is never retried.
    #[error("commit unknown: {cause}")]
    CommitUnknown {
        /// The failure of the sync.
        cause: Arc<Error>,
    },
    /// The caller broke a documented limit. Nothing has changed.
    #[error("invalid argument: {0}")]
    InvalidArgument(Box<str>),
    /// A background thread ended in a panic. Reads go on; reopen to write.
    #[error("background work panicked: {what}")]
    Background {
        /// Which work, and the panic's message.
        what: Box<str>,
    },
    /// The database was closed.
    #[error("the database is closed")]
    Closed,
}

impl Error {
    /// Whether bytes or files on disk are damaged or gone.
    pub fn is_corruption(&self) -> bool {
        match self {
            Self::Corruption(_) | Self::MissingFile { .. } => true,
            Self::ReadOnly { cause } | Self::CommitUnknown { cause } => cause.is_corruption(),
            _ => false,
        }
    }

    /// Whether the same call may succeed later without reopening.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Io(_) | Self::NoSpace(_) | Self::Locked { .. } | Self::Stalled { .. })
    }

    pub(crate) fn invalid(message: impl Into<Box<str>>) -> Self {
        Self::InvalidArgument(message.into())
    }

    pub(crate) fn locked(path: &Path) -> Self {
        Self::Locked { path: path.display().to_string().into() }
    }
}

impl From<pebble_format::Error> for Error {
    fn from(error: pebble_format::Error) -> Self {
        use pebble_format::Error as Component;
        match error {
            Component::Io(source) if pebble_vfs::is_no_space(&source) => Self::NoSpace(source),
            Component::Io(source) => Self::Io(source),
            Component::Corruption(corruption) => Self::Corruption(corruption),
            Component::MissingFile { file } => Self::MissingFile { file },
            Component::UnsupportedVersion { file, found, max } => {
                Self::UnsupportedVersion { file, found, max }
            }
            Component::UnsupportedCodec { file, codec } => Self::UnsupportedCodec { file, codec },
            Component::InvalidArgument(message) => Self::InvalidArgument(message),
            other => Self::Background { what: other.to_string().into() },
        }
    }
}

impl From<Corruption> for Error {
    fn from(corruption: Corruption) -> Self {
        Self::Corruption(Box::new(corruption))
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        pebble_format::Error::from(error).into()
    }
}

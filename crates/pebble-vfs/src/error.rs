//! Errors with their context: which operation, on which path, for which cause.
//!
//! The crate speaks [`io::Error`] so that callers keep its kinds; the context travels as the error's
//! payload. Plain values; no threading rule.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The payload of every error that a file system of this crate returns.
#[derive(Debug)]
pub struct OpError {
    /// The operation, as a transcript would name it: `"open"`, `"write"`, `"sync-dir"`, …
    pub op: &'static str,
    /// The path the operation was about; for a file that is open, the path it was opened under.
    pub path: PathBuf,
    /// The cause, usually an errno.
    pub source: io::Error,
}

impl OpError {
    /// Puts `op` and `path` around `source`, keeping its kind. An error that has its context already
    /// is returned as it is: the innermost context is the precise one.
    pub fn wrap(op: &'static str, path: &Path, source: io::Error) -> io::Error {
        if op_error(&source).is_some() {
            return source;
        }
        io::Error::new(source.kind(), Self { op, path: path.to_path_buf(), source })
    }
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.op, self.path.display(), self.source)
    }
}

impl Error for OpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

/// The context of an error, if it came from a file system of this crate.
pub fn op_error(error: &io::Error) -> Option<&OpError> {
    error.get_ref()?.downcast_ref()
}

/// The errno at the bottom of an error, however often it was wrapped.
pub fn os_code(error: &io::Error) -> Option<i32> {
    if let Some(code) = error.raw_os_error() {
        return Some(code);
    }
    let mut cause: Option<&(dyn Error + 'static)> = error.get_ref().map(|payload| payload as _);
    while let Some(current) = cause {
        if let Some(code) = current.downcast_ref::<io::Error>().and_then(os_code) {
            return Some(code);
        }
        cause = current.source();
    }
    None
}

/// Whether the cause is a lack of space that may come back: a full disk or an exhausted quota.
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        || matches!(os_code(error), Some(libc::ENOSPC | libc::EDQUOT))
}

/// Whether the cause is a lack of descriptors, of this process or of the system. They may come back, and the call has
/// done nothing: only an open fails for that.
pub fn is_no_descriptors(error: &io::Error) -> bool {
    matches!(os_code(error), Some(libc::EMFILE | libc::ENFILE))
}

/// Adds the context of an operation to the error of a result.
pub(crate) trait Context<T> {
    /// See [`OpError::wrap`].
    fn context(self, op: &'static str, path: &Path) -> io::Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, op: &'static str, path: &Path) -> io::Result<T> {
        self.map_err(|source| OpError::wrap(op, path, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errno(code: i32) -> io::Error {
        io::Error::from_raw_os_error(code)
    }

    #[test]
    fn context_keeps_kind_and_code() {
        let error = OpError::wrap("write", Path::new("/db/000001.log"), errno(libc::ENOSPC));
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(os_code(&error), Some(libc::ENOSPC));
        assert!(is_no_space(&error));
        assert!(error.to_string().starts_with("write /db/000001.log: "));
    }

    #[test]
    fn the_innermost_context_wins() {
        let inner = OpError::wrap("write", Path::new("a"), errno(libc::EIO));
        let outer = OpError::wrap("flush", Path::new("b"), inner);
        assert_eq!(op_error(&outer).map(|e| e.op), Some("write"));
    }

    #[test]
    fn a_code_is_found_under_foreign_wrapping() {
        let error = io::Error::other(OpError { op: "sync", path: "x".into(), source: errno(libc::EIO) });
        let twice = io::Error::other(io::Error::other(error));
        assert_eq!(os_code(&twice), Some(libc::EIO));
        assert_eq!(os_code(&io::Error::other("plain")), None);
        assert!(!is_no_space(&twice));
    }

    #[test]
    fn descriptors_are_those_of_the_process_or_the_system() {
        for code in [libc::EMFILE, libc::ENFILE] {
            assert!(is_no_descriptors(&OpError::wrap("sync-dir", Path::new("/db"), errno(code))));
        }
        assert!(!is_no_descriptors(&errno(libc::EIO)));
    }

    #[test]
    fn no_space_is_a_disk_or_a_quota() {
        assert!(is_no_space(&errno(libc::EDQUOT)));
        assert!(is_no_space(&io::ErrorKind::StorageFull.into()));
        assert!(!is_no_space(&errno(libc::EMFILE)));
    }
}

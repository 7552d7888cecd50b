//! What the contract's table of faults says of a failing call: which errors it may become, and whether it may end
//! writing.

use std::path::{Path, PathBuf};

use pebble_db::Error;
use pebble_vfs::fault::{Fault, FaultKind, Op};

use crate::support::kind;

/// The row that a failing call is a case of.
pub fn row(op: Op, path: &Path, fault: FaultKind) -> Option<&'static str> {
    Some(match (fault, op) {
        (FaultKind::Panic, _) => "panic",
        (FaultKind::TooManyFiles, _) => "no-descriptors",
        (FaultKind::FlipBit { .. }, _) => "bit-flip",
        (_, Op::Sync) if is(path, "log") => "log-sync-fails",
        (_, Op::Sync) if is(path, "sst") => "table-sync-fails",
        (_, Op::Sync | Op::SyncDir) => "manifest-sync-fails",
        (FaultKind::NoSpace | FaultKind::ShortWrite, _) if is(path, "log") => "full-disk-log",
        (FaultKind::NoSpace | FaultKind::ShortWrite, _) if is(path, "sst") => "full-disk-flush",
        (_, Op::Read | Op::Map) => "read-error",
        _ => return None,
    })
}

/// Damage is what a flipped bit may become, and nothing else.
pub fn allowed_error(what: &str, fault: &Fault, error: &Error) {
    let allowed: &[&str] = match fault.kind {
        FaultKind::FlipBit { .. } => {
            &["Corruption", "MissingFile", "UnsupportedVersion", "ReadOnly", "NotADatabase"]
        }
        FaultKind::NoSpace | FaultKind::ShortWrite => &["NoSpace", "ReadOnly", "CommitUnknown"],
        FaultKind::Panic => &["Background", "ReadOnly", "CommitUnknown"],
        _ => &["Io", "ReadOnly", "CommitUnknown"],
    };
    assert!(allowed.contains(&kind(error)), "{what} gave {}: {error}", kind(error));
    if matches!(what, "read" | "snapshot" | "counter" | "verify") {
        assert!(reads(fault.op), "{what} failed though the disk reads: {error}");
        assert_ne!(kind(error), "ReadOnly", "{what}: {error}");
    }
}

/// Whether calls that failed may have ended writing until the next open. Nothing else may: not a full disk, not a
/// lack of descriptors, not a file that could not be made, not damage that was read.
pub fn may_stop(hits: &[(Op, PathBuf)], fault: FaultKind) -> bool {
    let table_syncs = hits.iter().filter(|(op, path)| *op == Op::Sync && is(path, "sst")).count();
    hits.iter().any(|(op, path)| match (op, fault) {
        (_, FaultKind::Panic) => true,
        (_, FaultKind::FlipBit { .. } | FaultKind::Interrupted | FaultKind::TooManyFiles) => false,
        (Op::SyncDir, _) => true,
        // A table is written once more under another number; after that it is the end.
        (Op::Sync, _) if is(path, "sst") => table_syncs > 1,
        (Op::Sync, _) => true,
        (Op::Write, _) if named(path, "MANIFEST") => true,
        (Op::Write, FaultKind::Io) if is(path, "log") => true,
        (Op::Rename, _) => named(path, "CURRENT"),
        _ => false,
    })
}

fn named(path: &Path, begin: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(begin))
}

fn is(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// What must be so of a run as a whole.
pub fn whole_run(fault: &Fault, errors: &[String]) {
    if fault.kind == FaultKind::Interrupted {
        assert!(errors.is_empty(), "a signal was seen: {errors:?}");
    }
}

/// Whether a kind of call is one that a read makes.
fn reads(op: Op) -> bool {
    matches!(op, Op::Read | Op::Map | Op::Any)
}

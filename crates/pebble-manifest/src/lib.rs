//! Versions of the tree, and the log of the edits that lead from one to the next.
//!
//! ```text
//!   Edit ──► ManifestState::apply ──► ManifestState { Version, keyspaces, log_first, … }      pure, in memory
//!     │                                    ▲
//!     └────► ManifestLog::append           │ recover
//!                   │                      │
//!             MANIFEST-000007 ─────────────┤       first frame: a whole state; each further one: an edit
//!             CURRENT "MANIFEST-000007\n" ─┘       the one name that decides; only ever replaced whole
//! ```
//!
//! A [`Version`] is immutable and says which tables make the tree. The pure half (`table`, `run`, `version`, `edit`,
//! `state`) does no I/O, and the log half (`log`, `recover`, `current`) does not know what an edit means. The format is
//! told in `docs/format/manifest.md`.
//!
//! Threading: everything is plain data; a [`ManifestLog`] has one owner, and its calls wait for the disk.

#![forbid(unsafe_code)]

mod broken;
mod codec;
mod current;
mod edit;
mod log;
mod recover;
mod run;
mod salvage;
mod state;
mod table;
mod tables;
mod version;

pub use edit::{Edit, NewRun};
pub use log::ManifestLog;
pub use recover::{Recovered, recover};
pub use run::Run;
pub use salvage::{ManifestDamage, Salvaged, salvage};
pub use state::ManifestState;
pub use table::TableMeta;
pub use version::Version;

/// Compiles and runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

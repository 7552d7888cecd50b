//! PebbleTree's memtable. The README follows; how it works stands in `tree.rs`.
//!
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod arena;
mod cursor;
mod dead;
mod filter;
mod finger;
mod heads;
mod memtable;
mod node;
mod ranges;
mod sync;
mod tree;
mod way;
mod windows;
mod writer;

pub use cursor::MemtableCursor;
pub use memtable::Memtable;
pub use writer::{Approach, MemtableWriter};

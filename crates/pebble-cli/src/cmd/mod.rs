//! The verbs, one file each: the arguments, and what is done.

pub mod bench;
pub mod compact;
pub mod delete;
pub mod demo;
pub mod export;
pub mod get;
pub mod import;
pub mod put;
pub mod repair;
pub mod scan;
pub mod simulate;
pub mod stats;
pub mod verify;

//! Compaction: what to merge, which versions stay, and the one data mover, which flush uses too.
//!
//! ```text
//!   plan      Version ─► Plan                 pure: decides
//!   run       cursor ─► Collapse ─► tables    does, on the caller's thread; holds no lock, installs nothing
//!   simulate  Workload ─► plan … ─► Report    says what a policy costs, without a record
//! ```
//!
//! The third step, installing, belongs to the engine. This crate knows neither memtable nor log: a flush is a run
//! whose cursor happens to walk a memtable.
//!
//! Threading: plain functions over what the caller owns.

#![forbid(unsafe_code)]

mod apart;
mod collapse;
mod mover;
mod plan;
mod run;
pub mod simulate;

pub use apart::{Apart, Fetch};
pub use collapse::Collapse;
pub use plan::{
    Busy, Hints, Input, KeyRange, Plan, Policy, Pressure, RangePlan, Reason, UPPER_LEVELS, Wanted, cuts,
    cuts_for, plan, plan_range, pressure, splits,
};
pub use run::{Job, Outputs, RunResult, run, table_meta};

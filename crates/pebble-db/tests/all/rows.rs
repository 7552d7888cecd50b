//! The contract's tables 1 and 2, one test a row, each under the row's id (`docs/contract.md`): the fault as the row
//! states it, what the caller sees, and the state after.
//!
//! What only numbers can show (every bit, every event, every call, hundreds of kills) is in `damage`, `crash`, `faults`
//! and `kill`, and counted to the same rows.

mod bench;
mod callers;
mod ends;
mod failures;
mod files;
mod gate;
mod listen;
mod process;
mod promises;
mod shortage;

//! The program as scripts see it: arguments in; stdout, stderr and an exit code out.

#![allow(clippy::unwrap_used, reason = "helpers of tests stand outside test functions")]

mod demo;
mod faults;
mod readme;
mod repair;
mod rows;
mod support;
mod verbs;

//! Lazy leveling, leveling and tiering side by side, under a few workloads.
//!
//!     cargo run --release -p pebble-compaction --example simulate [live GiB] [flush MiB]

use pebble_compaction::Policy;
use pebble_compaction::simulate::{Keys, Workload, compare};

fn main() {
    let mut numbers = std::env::args().skip(1).map(|arg| arg.parse::<u64>().ok());
    let live = numbers.next().flatten().unwrap_or(2) << 30;
    let flush = numbers.next().flatten().unwrap_or(64) << 20;
    let policies =
        [("lazy", Policy::lazy()), ("leveled", Policy::leveled()), ("tiered 8", Policy::tiered(8))];
    let random = Workload { flush_bytes: flush, ..Workload::overwrites(live) };
    let hot = Workload { keys: Keys::Hot { keys_percent: 5, writes_percent: 90 }, ..random };
    let deletes = Workload { delete_percent: 40, ..random };
    let load = Workload { loaded: false, total_bytes: live, ..random };
    let rising = Workload { keys: Keys::Rising, ..load };
    for workload in [random, hot, deletes, load, rising] {
        println!("{}", compare(&workload, &policies));
    }
}

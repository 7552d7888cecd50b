//! Lazy leveling, leveling and tiering side by side, under a few workloads.
//!
//!     cargo run --release -p pebble-compaction --example simulate [live GiB]

use pebble_compaction::Policy;
use pebble_compaction::simulate::{Keys, Workload, compare};

fn main() {
    let live = std::env::args().nth(1).and_then(|arg| arg.parse().ok()).unwrap_or(2_u64) << 30;
    let policies =
        [("lazy", Policy::lazy()), ("leveled", Policy::leveled()), ("tiered 8", Policy::tiered(8))];
    let random = Workload::overwrites(live);
    let hot = Workload { keys: Keys::Hot { keys_percent: 5, writes_percent: 90 }, ..random };
    let deletes = Workload { delete_percent: 40, ..random };
    let load = Workload { loaded: false, total_bytes: live, ..random };
    let rising = Workload { keys: Keys::Rising, ..load };
    for workload in [random, hot, deletes, load, rising] {
        println!("{}", compare(&workload, &policies));
    }
}

//! Deletes nine records of ten, one by one in random order, and scans what is left: at once, and when it is settled.

use super::read::scan_all;
use super::{Bench, Done, Figures, Limit};
use crate::{Result, quiet};

/// One record of so many stays.
const KEPT: u64 = 10;
/// A scan is repeated until it took so long.
const SCAN_AT_LEAST: f64 = 0.5;

/// Runs it. The rate is of the deletes; a scan's counts the records that are left.
pub fn run(bench: &Bench<'_>) -> Result<(Figures, String)> {
    let store = bench.open()?;
    let store = store.as_ref();
    quiet::wait(store)?;
    let mut deleted_to = 0;
    let mut figures = bench.measure(store, || {
        let mut key = Vec::new();
        let limit = Limit::new(bench.patience(), 64);
        let mut operations = 0;
        let mut id = 0;
        while id < bench.count && !limit.is_over(id) {
            if !id.is_multiple_of(KEPT) {
                bench.records.key(id, &mut key);
                store.delete(&key)?;
                operations += 1;
            }
            id += 1;
        }
        deleted_to = id;
        let seconds = limit.seconds();
        let mut figures = Figures::new();
        figures.insert("scan_fresh", scans(bench, store, left(bench.count, id), true)?);
        Ok(Done { operations, seconds, stopped: id < bench.count, figures, ..Done::default() })
    })?;
    let left = left(bench.count, deleted_to);
    figures.insert("scan_settled", scans(bench, store, left, false)?);
    bench.check(store, |id| (id < bench.count && is_left(id, deleted_to)).then_some(1), left)?;
    Ok((figures, store.settings()))
}

fn is_left(id: u64, deleted_to: u64) -> bool {
    id >= deleted_to || id.is_multiple_of(KEPT)
}

fn left(count: u64, deleted_to: u64) -> u64 {
    (0..count).filter(|id| is_left(*id, deleted_to)).count() as u64
}

/// Records per second of scans; of the first one only if `once`, since tombstones do not stay fresh.
fn scans(bench: &Bench<'_>, store: &dyn crate::store::Store, left: u64, once: bool) -> Result<f64> {
    let limit = Limit::new(bench.patience(), 1);
    let mut sum = 0;
    while sum == 0 || !once && limit.seconds() < SCAN_AT_LEAST {
        let (seen, wrong) = scan_all(bench, store, false)?;
        if seen != left || wrong > 0 {
            return Err(format!("a scan after deletes gave {seen} of {left} records, {wrong} wrong").into());
        }
        sum += seen;
    }
    Ok(sum as f64 / limit.seconds())
}

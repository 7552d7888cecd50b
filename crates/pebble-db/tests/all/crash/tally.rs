//! The figures of a part of the enumeration, and the least that they must come to.

use std::collections::BTreeMap;

use pebble_vfs::Op;

use crate::campaign;
use crate::support::assert_none;

/// The figures of one script.
#[derive(Default)]
pub struct Tally {
    pub events: u64,
    /// The events at which images were taken, by the kind of call.
    pub looked: BTreeMap<Op, u64>,
    pub images: u64,
    pub recoveries: u64,
    /// What did not hold, and in which image. A script goes on after it: the others are of interest too.
    pub failures: Vec<String>,
}

impl Tally {
    pub fn add(&mut self, other: &mut Self) {
        self.events += other.events;
        self.images += other.images;
        self.recoveries += other.recoveries;
        self.failures.append(&mut other.failures);
        for (op, count) in &other.looked {
            *self.looked.entry(*op).or_default() += count;
        }
    }

    /// Prints the figures, holds them against the least there must be, and fails with the first failure.
    pub fn close(&self, what: &str, least: u64) {
        let (events, images, recoveries) = (self.events, self.images, self.recoveries);
        println!("crash, {what}: {events} events, {images} images, {recoveries} images of recoveries");
        println!("crash, {what}: {:?}", self.looked);
        campaign::count(
            &[
                "I1",
                "I2",
                "I3",
                "I5",
                "I7",
                "acknowledged",
                "killed",
                "power-lost",
                "mixed",
                "kill",
                "power-loss",
            ],
            "images",
            images + recoveries,
        );
        assert_none(&self.failures);
        assert!(images + recoveries >= least, "{what}: only {images} + {recoveries} images");
    }
}

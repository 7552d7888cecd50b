//! The workloads: which keys, which values, which operation, and whether what is read is what was written.
//!
//! The n-th random key is a bijection of n, so keys are distinct without a list of them, and the keys of the numbers
//! from `records` on are of the same kind and missing. The value of n is a slice of random bytes, at a place that n
//! says.

use std::ops::Range;
use std::thread;
use std::time::Instant;

use clap::ValueEnum;
use pebble_db::{Db, Keyspace, WriteOptions};

use super::Measured;
use crate::failure::{Failure, Result, note};
use crate::histogram::Histogram;
use crate::mix::{Sequence, scatter};
use crate::text::hex;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Puts, keys ascending
    Fillseq,
    /// Puts, keys in random order
    Fillrandom,
    /// Puts, each on the device before the next of its thread
    Fillsync,
    /// Gets of keys that are there, in random order
    Readrandom,
    /// Gets of keys that are not there
    Readmissing,
    /// One pass over all records in order
    Scan,
}

impl Workload {
    /// All, fills first.
    pub const ALL: [Self; 6] =
        [Self::Fillseq, Self::Fillrandom, Self::Fillsync, Self::Readrandom, Self::Readmissing, Self::Scan];

    /// Whether it writes.
    pub fn fills(self) -> bool {
        matches!(self, Self::Fillseq | Self::Fillrandom | Self::Fillsync)
    }

    /// Each fill has a keyspace of its own; reads are of the random one.
    fn keyspace(self) -> &'static str {
        match self {
            Self::Fillseq => "fillseq",
            Self::Fillsync => "fillsync",
            _ => "fillrandom",
        }
    }
}

const KEY_LEN: u64 = 16;

/// What is put and expected.
pub struct Data {
    seed: u64,
    threads: u16,
    value_len: usize,
    pool: Vec<u8>,
    /// Whether the keyspace that reads are of is filled.
    filled: bool,
}

impl Data {
    pub fn new(seed: u64, value_len: u32, threads: u16) -> Self {
        let value_len = usize::try_from(value_len).unwrap_or(usize::MAX);
        let words = (1 << 17) + value_len.div_ceil(8);
        let pool = (0..words as u64).flat_map(|n| scatter(seed ^ scatter(n)).to_le_bytes()).collect();
        Self { seed, threads, value_len, pool, filled: false }
    }

    /// Bytes of a key and its value.
    pub fn record_len(&self) -> u64 {
        KEY_LEN + self.value_len as u64
    }

    fn key(&self, workload: Workload, n: u64) -> [u8; KEY_LEN as usize] {
        let bytes = match workload {
            Workload::Fillseq => n.to_be_bytes(),
            _ => scatter(n ^ self.seed.rotate_left(32)).to_be_bytes(),
        };
        let mut key = [0; KEY_LEN as usize];
        for (pair, byte) in key.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
            *pair = crate::text::digits(byte);
        }
        key
    }

    fn value(&self, n: u64) -> &[u8] {
        let places = self.pool.len() - self.value_len;
        let at = usize::try_from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20).unwrap_or(0) % places;
        self.pool.get(at..at + self.value_len).unwrap_or_default()
    }

    /// Fills what `workload` reads, if no earlier one has.
    pub fn prepare(&mut self, db: &Db, workload: Workload, records: u64) -> Result<()> {
        if workload.fills() {
            self.filled |= workload == Workload::Fillrandom;
            return Ok(());
        }
        if !self.filled {
            note("filling what is to be read; this is not measured");
            self.run(db, Workload::Fillrandom, records)?;
            // What it still has to write must not be counted as what a later fill wrote.
            db.flush()?;
            self.filled = true;
        }
        Ok(())
    }

    /// Runs a workload over `records` records.
    pub fn run(&self, db: &Db, workload: Workload, records: u64) -> Result<Measured> {
        let keyspace = db.keyspace(workload.keyspace())?;
        let begun = Instant::now();
        let threads = u64::from(self.threads);
        let parts = thread::scope(|scope| {
            let part = |at: u64| {
                let numbers = records * at / threads..records * (at + 1) / threads;
                let keyspace = &keyspace;
                scope.spawn(move || self.part(keyspace, workload, numbers, records))
            };
            let parts: Vec<_> = (0..threads).map(part).collect();
            let join = |part: thread::ScopedJoinHandle<'_, Result<Histogram>>| {
                part.join().unwrap_or_else(|_| Err(Failure::Failed("a thread of the bench panicked".into())))
            };
            parts.into_iter().map(join).collect::<Result<Vec<_>>>()
        })?;
        let time = begun.elapsed();
        let mut latencies = Histogram::new();
        parts.iter().for_each(|part| latencies.add(part));
        Ok(Measured { time, operations: latencies.count(), latencies })
    }

    /// What one thread does.
    fn part(
        &self,
        keyspace: &Keyspace,
        workload: Workload,
        numbers: Range<u64>,
        records: u64,
    ) -> Result<Histogram> {
        let mut clock = Laps { last: Instant::now(), latencies: Histogram::new() };
        match workload {
            Workload::Fillseq | Workload::Fillrandom => {
                self.fill(keyspace, workload, numbers, &WriteOptions::buffered(), &mut clock)?;
            }
            Workload::Fillsync => {
                self.fill(keyspace, workload, numbers, &WriteOptions::sync(), &mut clock)?
            }
            Workload::Readrandom => {
                let mut sequence = Sequence::new(self.seed ^ numbers.start);
                for _ in numbers {
                    let n = sequence.below(records);
                    let value = keyspace.get(self.key(workload, n))?;
                    if value.as_deref() != Some(self.value(n)) {
                        return Err(wrong(&self.key(workload, n)));
                    }
                    clock.lap();
                }
            }
            Workload::Readmissing => {
                for n in numbers {
                    let key = self.key(workload, records + n);
                    if keyspace.get(key)?.is_some() {
                        return Err(wrong(&key));
                    }
                    clock.lap();
                }
            }
            Workload::Scan => self.scan(keyspace, records, &mut clock)?,
        }
        Ok(clock.latencies)
    }

    fn fill(
        &self,
        keyspace: &Keyspace,
        workload: Workload,
        numbers: Range<u64>,
        options: &WriteOptions,
        clock: &mut Laps,
    ) -> Result<()> {
        for n in numbers {
            keyspace.put_with(self.key(workload, n), self.value(n), options)?;
            clock.lap();
        }
        Ok(())
    }

    /// The key says the number, and so the value.
    fn scan(&self, keyspace: &Keyspace, records: u64, clock: &mut Laps) -> Result<()> {
        let mut found = 0;
        for entry in keyspace.iter()? {
            let (key, value) = entry?;
            let n = self.number(&key).filter(|n| *n < records).ok_or_else(|| wrong(&key))?;
            if value != self.value(n) {
                return Err(wrong(&key));
            }
            found += 1;
            clock.lap();
        }
        match found == records {
            true => Ok(()),
            false => Err(Failure::Corrupt(format!("a scan gave {found} of {records} records"))),
        }
    }

    fn number(&self, key: &[u8]) -> Option<u64> {
        let bytes = crate::text::unhex(key).ok()?;
        Some(crate::mix::gather(u64::from_be_bytes(bytes.try_into().ok()?)) ^ self.seed.rotate_left(32))
    }
}

fn wrong(key: &[u8]) -> Failure {
    Failure::Corrupt(format!("the value of key {} is not what was put", hex(key)))
}

/// One clock reading an operation: the end of one is the beginning of the next.
struct Laps {
    last: Instant,
    latencies: Histogram,
}

impl Laps {
    #[inline]
    fn lap(&mut self) {
        let now = Instant::now();
        self.latencies.record(now - self.last);
        self.last = now;
    }
}

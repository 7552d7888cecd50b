//! The workloads A to F of YCSB, by one thread: zipf 0.99 over scrambled ids; D reads what was inserted last.

use super::read::seek_to;
use super::{Bench, Done, Figures, Limit};
use crate::data::{Random, mix};
use crate::store::{Reader, Store};
use crate::{Result, quiet};

const THETA: f64 = 0.99;
/// The longest scan of workload E.
const SCAN_MAX: u64 = 100;

/// Of a hundred operations: reads, overwrites, inserts, scans; the rest reads a record and overwrites it.
struct Mix {
    reads: u64,
    updates: u64,
    inserts: u64,
    scans: u64,
}

fn mix_of(letter: char) -> Result<Mix> {
    let mix = |reads, updates, inserts, scans| Mix { reads, updates, inserts, scans };
    Ok(match letter {
        'A' => mix(50, 50, 0, 0),
        'B' => mix(95, 5, 0, 0),
        'C' => mix(100, 0, 0, 0),
        'D' => mix(95, 0, 5, 0),
        'E' => mix(0, 0, 5, 95),
        'F' => mix(50, 0, 0, 0),
        _ => return Err(format!("YCSB has no workload {letter}").into()),
    })
}

/// Numbers below `count`, the small ones more often (Gray et al., Quickly Generating Billion-Record Synthetic
/// Databases).
struct Zipf {
    count: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    fn new(count: u64) -> Self {
        let zeta_of = |count: u64| (1..=count).map(|i| (i as f64).powf(-THETA)).sum::<f64>();
        let (zeta, two) = (zeta_of(count), zeta_of(2));
        let eta = (1.0 - (2.0 / count as f64).powf(1.0 - THETA)) / (1.0 - two / zeta);
        Self { count: count as f64, alpha: 1.0 / (1.0 - THETA), zeta, eta }
    }

    fn next(&self, random: &mut Random) -> u64 {
        let unit = random.below(1 << 53) as f64 / (1_u64 << 53) as f64;
        let place = unit * self.zeta;
        if place < 1.0 {
            return 0;
        }
        if place < 1.0 + 0.5_f64.powf(THETA) {
            return 1;
        }
        let number = self.count * (self.eta * unit - self.eta + 1.0).powf(self.alpha);
        (number as u64).min(self.count as u64 - 1)
    }
}

/// Runs a workload.
pub fn run(bench: &Bench<'_>, letter: char) -> Result<(Figures, String)> {
    let operations = bench.count.clamp(10_000, 2_000_000) / if letter == 'E' { 5 } else { 1 };
    let inserts = usize::try_from(operations)? / 10;
    let mut versions = Vec::with_capacity(usize::try_from(bench.count)? + inserts);
    versions.resize(usize::try_from(bench.count)?, 1_u32);
    let zipf = Zipf::new(bench.count);
    let store = bench.open()?;
    let store = store.as_ref();
    super::read::warm_up(bench, store)?;
    quiet::wait(store)?;
    let mut client = Client {
        bench,
        store,
        letter,
        versions,
        zipf,
        random: Random::new(7),
        key: Vec::new(),
        value: Vec::new(),
    };
    let figures = bench.measure(store, || client.run(operations))?;
    let versions = client.versions;
    bench.check(store, |id| versions.get(id as usize).copied(), versions.len() as u64)?;
    Ok((figures, store.settings()))
}

struct Client<'a> {
    bench: &'a Bench<'a>,
    store: &'a dyn Store,
    letter: char,
    /// The version of each record; there are as many as this is long.
    versions: Vec<u32>,
    zipf: Zipf,
    random: Random,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Client<'_> {
    fn run(&mut self, operations: u64) -> Result<Done> {
        let mix = mix_of(self.letter)?;
        let mut reader = self.store.reader()?;
        let limit = Limit::new(self.bench.patience(), 64);
        let (mut number, mut writes) = (0, 0);
        while number < operations && !limit.is_over(number) {
            let draw = self.random.below(100);
            let id = self.draw_record();
            if draw < mix.reads {
                self.read(&mut *reader, id)?;
            } else if draw < mix.reads + mix.updates {
                reader.refresh();
                self.update(id)?;
                writes += 1;
            } else if draw < mix.reads + mix.updates + mix.inserts {
                reader.refresh();
                self.versions.push(0);
                self.update(self.versions.len() as u64 - 1)?;
                writes += 1;
            } else if draw < mix.reads + mix.updates + mix.inserts + mix.scans {
                // At least one and at most a hundred.
                let entries = 1 + self.random.below(SCAN_MAX) as usize;
                seek_to(self.bench, &mut *reader, id, entries, number, &mut self.key)?;
            } else {
                self.read(&mut *reader, id)?;
                reader.refresh();
                self.update(id)?;
                writes += 1;
            }
            number += 1;
        }
        Ok(Done {
            operations: number,
            seconds: limit.seconds(),
            user_bytes: writes * self.bench.records.len(),
            stopped: number < operations,
            ..Done::default()
        })
    }

    fn draw_record(&mut self) -> u64 {
        let rank = self.zipf.next(&mut self.random);
        let len = self.versions.len() as u64;
        // Latest first, or popular ones anywhere.
        if self.letter == 'D' { len - 1 - rank } else { mix(rank) % len }
    }

    fn read(&mut self, reader: &mut dyn Reader, id: u64) -> Result<()> {
        self.bench.records.key(id, &mut self.key);
        // An index of `versions`.
        let wanted = Some((id, self.versions[id as usize]));
        let records = &self.bench.records;
        let mut right = false;
        reader.get(&self.key, &mut |value| {
            right = records.names(value) == wanted && records.is_of(id, value, false)
        })?;
        if right { Ok(()) } else { Err(format!("a read of record {id} gave a wrong value or none").into()) }
    }

    fn update(&mut self, id: u64) -> Result<()> {
        // An index of `versions`.
        let version = &mut self.versions[id as usize];
        *version += 1;
        self.bench.records.key(id, &mut self.key);
        self.bench.records.value(id, *version, &mut self.value);
        self.store.put(&self.key, &self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_drawn_as_often_as_zipf_says() {
        let zipf = Zipf::new(1000);
        let mut random = Random::new(1);
        let mut counts = vec![0_u32; 1000];
        (0..200_000).for_each(|_| counts[zipf.next(&mut random) as usize] += 1);
        let share = |rank: usize| f64::from(counts[rank]) / 200_000.0;
        let wanted = |rank: usize| ((rank + 1) as f64).powf(-THETA) / zipf.zeta;
        for rank in [0, 1] {
            assert!(
                (share(rank) / wanted(rank) - 1.0).abs() < 0.05,
                "{rank}: {} {}",
                share(rank),
                wanted(rank)
            );
        }
        // Further down it approximates.
        let (tail, tail_wanted): (f64, f64) = ((500..1000).map(share).sum(), (500..1000).map(wanted).sum());
        assert!((tail / tail_wanted - 1.0).abs() < 0.15, "{tail} {tail_wanted}");
    }

    #[test]
    fn workloads_are_whole() {
        for letter in 'A'..='F' {
            let mix = mix_of(letter).unwrap();
            let sum = mix.reads + mix.updates + mix.inserts + mix.scans;
            assert!(sum == 100 || letter == 'F' && sum == 50);
        }
        assert!(mix_of('G').is_err());
    }
}

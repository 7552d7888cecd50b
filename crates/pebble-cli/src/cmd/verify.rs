//! `pebble verify`: every byte of tables, log and manifest, and every record of every keyspace. Writes nothing.

use std::ops::ControlFlow;

use clap::Args;
use pebble_db::{Components, Damage, Db, Keyspace, Verification, VerifyReport, inspect_with};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::human;
use crate::output::Output;
use crate::place::Place;
use crate::progress::{Progress, Unit};

/// Read and check everything; exit with 3 if something is damaged or missing
///
/// Tables are checked block by block with their indexes, bounds and counts, and the log and the manifest frame by
/// frame; all that is damaged is printed, one line each. If nothing is, every keyspace is walked in both directions,
/// through the log as well, and must be in order and the same both ways. The database is opened for reading only:
/// nothing in its directory is changed.
#[derive(Args)]
pub struct Verify {
    #[command(flatten)]
    place: Place,
    /// Print an object: {"ok":true,"tables":[..],"value_tables":[..],"keyspaces":[..]}, or
    /// {"ok":false,"error":"..","damage":[..]}
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer {
    ok: bool,
    tables: Vec<Table>,
    value_tables: Vec<Table>,
    keyspaces: Vec<Walked>,
}

#[derive(Serialize)]
struct Damaged {
    ok: bool,
    error: String,
    damage: Vec<Part>,
}

/// A damaged part of a file.
#[derive(Serialize)]
pub struct Part {
    file: String,
    from: u64,
    to: u64,
    reason: String,
}

impl From<&Damage> for Part {
    fn from(damage: &Damage) -> Self {
        let Damage { file, from, to, reason, .. } = damage;
        Self { file: file.to_string(), from: *from, to: *to, reason: reason.to_string() }
    }
}

#[derive(Serialize)]
struct Table {
    blocks: u32,
    records: u64,
    keys: u64,
    tombstones: u64,
    raw_bytes: u64,
}

#[derive(Serialize)]
struct Walked {
    name: String,
    entries: u64,
}

impl Verify {
    pub fn run(&self) -> Result<()> {
        let progress = Progress::new("verify", None, Unit::Bytes);
        let verified = inspect_with(&self.place.db, &Components::default(), |at| {
            progress.set(at.done_bytes);
            ControlFlow::Continue(())
        })?;
        drop(progress);
        let found = match &verified.damage[..] {
            [] => self.place.read(|db| verify(db, &verified)),
            damage => Err(damaged(damage)),
        };
        let mut output = Output::new();
        match &found {
            Ok(answer) if self.json => output.json(answer)?,
            Ok(answer) => output.line(answer.text())?,
            Err(failure) if self.json && failure.is_corruption() => {
                let damage = verified.damage.iter().map(Part::from).collect();
                output.json(&Damaged { ok: false, error: failure.to_string(), damage })?;
            }
            Err(_) => {}
        }
        output.flush()?;
        found.map(|_| ())
    }
}

/// One line for each part, the first of them behind the words that every such failure begins with.
fn damaged(damage: &[Damage]) -> Failure {
    let lines: Vec<String> = damage.iter().map(ToString::to_string).collect();
    Failure::Corrupt(lines.join("\npebble: "))
}

fn verify(db: &Db, verified: &Verification) -> Result<Answer> {
    let of = |tables: &[(u64, VerifyReport)]| tables.iter().map(|(_, report)| Table::new(report)).collect();
    let walk = |name: String| {
        let entries = walk(&db.keyspace(&name)?)?;
        Ok(Walked { name, entries })
    };
    let keyspaces = db.keyspaces().into_iter().map(walk).collect::<Result<_>>()?;
    let (tables, value_tables) = (of(&verified.tables), of(&verified.value_tables));
    Ok(Answer { ok: true, tables, value_tables, keyspaces })
}

/// Walks a keyspace both ways; the number of its entries.
fn walk(keyspace: &Keyspace) -> Result<u64> {
    let progress = Progress::new("verify", None, Unit::Items);
    let snapshot = keyspace.db().snapshot();
    let mut sums = [(0_u64, 0_u64); 2];
    let [forward, backward] = &mut sums;
    let mut previous = None;
    for entry in snapshot.iter(keyspace)? {
        let (key, value) = entry?;
        if previous.as_ref().is_some_and(|previous| *previous >= key) {
            return Err(Failure::Corrupt(format!("keyspace {:?} is not in order", keyspace.name())));
        }
        add(forward, &key, &value);
        previous = Some(key);
        progress.advance(1);
    }
    for entry in snapshot.iter(keyspace)?.rev() {
        let (key, value) = entry?;
        add(backward, &key, &value);
        progress.advance(1);
    }
    if forward != backward {
        let (name, there, back) = (keyspace.name(), forward.0, backward.0);
        return Err(Failure::Corrupt(format!(
            "keyspace {name:?} has {there} entries forward and {back} backward, or not the same ones"
        )));
    }
    Ok(forward.0)
}

/// A count and a sum of hashes, which the order does not change.
fn add(sum: &mut (u64, u64), key: &[u8], value: &[u8]) {
    use crate::mix::{fnv1a, scatter};
    sum.0 += 1;
    sum.1 = sum.1.wrapping_add(scatter(fnv1a(key)) ^ fnv1a(value));
}

impl Table {
    fn new(report: &VerifyReport) -> Self {
        let VerifyReport { blocks, records, keys, tombstones, raw_len, .. } = *report;
        Self { blocks, records, keys, tombstones, raw_bytes: raw_len }
    }
}

impl Answer {
    fn text(&self) -> String {
        let sum = |of: fn(&Table) -> u64| human::count(self.tables.iter().map(of).sum());
        let mut text = format!(
            "tables       {}: {} blocks, {} records, {} keys, {} tombstones, {}\n",
            self.tables.len(),
            sum(|table| u64::from(table.blocks)),
            sum(|table| table.records),
            sum(|table| table.keys),
            sum(|table| table.tombstones),
            human::bytes(self.tables.iter().map(|table| table.raw_bytes).sum()),
        );
        if !self.value_tables.is_empty() {
            let bytes = self.value_tables.iter().map(|table| table.raw_bytes).sum();
            let records = self.value_tables.iter().map(|table| table.records).sum();
            text.push_str(&format!(
                "values apart {}: {} records, {}\n",
                self.value_tables.len(),
                human::count(records),
                human::bytes(bytes)
            ));
        }
        for keyspace in &self.keyspaces {
            text.push_str(&format!(
                "keyspace     {}: {} entries\n",
                keyspace.name,
                human::count(keyspace.entries)
            ));
        }
        text + "everything that was read is right"
    }
}

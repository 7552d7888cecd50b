//! `pebble repair`: a whole database of what is left of a damaged one, in another directory.

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use pebble_db::{Components, Fate, RepairOptions, RepairReport, repair_with};
use serde::Serialize;

use crate::cmd::verify::Part;
use crate::failure::{Failure, Result};
use crate::human;
use crate::output::Output;
use crate::progress::{Progress, Unit};

/// Make a whole database of what is left of a damaged one, in another directory
///
/// The damaged directory is only read, and stays as it is, byte for byte; CURRENT and all manifests may be gone. What
/// becomes of every byte of every file is printed: kept, dropped or unreadable. Of a key whose newest version may have
/// been lost nothing is kept, unless --older-versions asks for the newest one that is left. A keyspace whose name is
/// lost is called recovered- and its number.
#[derive(Args)]
pub struct Repair {
    /// Directory of the damaged database
    #[arg(value_name = "DB")]
    db: PathBuf,
    /// Directory for the whole one; it must be empty, or not be there
    #[arg(long, value_name = "DIR", required_unless_present = "dry_run")]
    to: Option<PathBuf>,
    /// Write nothing; say what would become of each byte
    #[arg(long)]
    dry_run: bool,
    /// Keep versions of keys that may be stale, where the newest may have been lost
    #[arg(long)]
    older_versions: bool,
    /// Print an object: {"extents":[..],"damage":[..],"keyspaces":[..],..}
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer {
    dry_run: bool,
    manifest_believed: bool,
    tables_kept: u64,
    tables_written: u64,
    log_records: u64,
    keyspaces: Vec<String>,
    damage: Vec<Part>,
    extents: Vec<Extent>,
}

#[derive(Serialize)]
struct Extent {
    file: String,
    from: u64,
    to: u64,
    fate: &'static str,
    why: String,
}

impl Repair {
    pub fn run(&self) -> Result<()> {
        let options = RepairOptions::default().dry_run(self.dry_run).older_versions(self.older_versions);
        let to = self.to.clone().unwrap_or_default();
        if !self.dry_run && to.as_os_str().is_empty() {
            return Err(Failure::Usage("--to names no directory".into()));
        }
        let progress = Progress::new("repair", None, Unit::Bytes);
        let report = repair_with(&self.db, &to, options, &Components::default(), |at| {
            progress.set(at.done_bytes);
            ControlFlow::Continue(())
        })?;
        drop(progress);
        let answer = Answer::new(&report, self.dry_run);
        let mut output = Output::new();
        if self.json {
            output.json(&answer)?
        } else {
            output.line(answer.text())?
        }
        output.flush()
    }
}

impl Answer {
    fn new(report: &RepairReport, dry_run: bool) -> Self {
        let extent = |extent: &pebble_db::Extent| Extent {
            file: extent.file.to_string(),
            from: extent.from,
            to: extent.to,
            fate: match extent.fate {
                Fate::Kept => "kept",
                Fate::Dropped => "dropped",
                _ => "unreadable",
            },
            why: extent.why.to_string(),
        };
        Self {
            dry_run,
            manifest_believed: report.manifest_believed,
            tables_kept: report.tables_kept,
            tables_written: report.tables_written,
            log_records: report.log_records,
            keyspaces: report.keyspaces.clone(),
            damage: report.damage.iter().map(Part::from).collect(),
            extents: report.extents.iter().map(extent).collect(),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for Extent { file, from, to, fate, why } in &self.extents {
            text.push_str(&format!("{file:<20} {from:>12} {to:>12}  {fate:<10}  {why}\n"));
        }
        let bytes = |fate| {
            let of = self.extents.iter().filter(|extent| extent.fate == fate);
            human::bytes(of.map(|extent| extent.to - extent.from).sum())
        };
        text.push_str(&format!(
            "kept {}, dropped {}, unreadable {}\n",
            bytes("kept"),
            bytes("dropped"),
            bytes("unreadable")
        ));
        if !self.keyspaces.is_empty() {
            text.push_str(&format!("keyspaces: {}\n", self.keyspaces.join(", ")));
        }
        let done = if self.dry_run { "would be" } else { "were" };
        text + &format!(
            "{} tables {done} taken over, {} written anew, {} records taken from the log",
            human::count(self.tables_kept),
            human::count(self.tables_written),
            human::count(self.log_records)
        )
    }
}

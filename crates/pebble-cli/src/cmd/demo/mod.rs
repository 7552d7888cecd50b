//! `pebble demo`: the main job on real input, killed in the middle, and everything checked.
//!
//! ```text
//!   this process                                    a child of it
//!   corpus ──► feed ─────────── batches ──────────► writers ──► database
//!              count ◄────── acknowledgements ──────────┘           │
//!              SIGKILL ─────────────────────────────► dies          │
//!   reopen ◄────────────────────────────────────────────────────────┘
//!   every acknowledged record there?  every batch whole in both keyspaces?
//!   import the rest, flush, verify; close, reopen, verify
//! ```

mod check;
mod corpus;
mod import;
mod pipe;
mod scratch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use pebble_db::{Db, RecoveryReport};

use self::corpus::{Cap, Corpus};
use self::scratch::Scratch;
use crate::cmd::stats;
use crate::failure::{Failure, Result};
use crate::human;
use crate::mix::Sequence;
use crate::output::Output;
use crate::place::{Missing, Sync, Tuning};

/// Import real files, be killed in the middle, reopen and check every record
///
/// The files are the sources in cargo's registry, or else the Rust toolchain, or else this program, in pieces. A second
/// process imports them with several threads, each batch into two keyspaces at once, and says which batches were
/// acknowledged; it is killed with SIGKILL. Then the database is opened again, held against the input byte for byte,
/// filled to the end and verified. Exits with 3 if anything is missing.
#[derive(Args)]
pub struct Demo {
    /// Work in this new or empty directory and leave the database there [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Import the files of this directory
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    /// Take at most so many bytes
    #[arg(long, value_name = "BYTES", default_value = "200M", value_parser = human::parse_bytes)]
    limit_bytes: u64,
    /// Take at most so many records
    #[arg(long, value_name = "N", default_value = "60000", value_parser = clap::value_parser!(u32).range(1..))]
    limit_records: u32,
    /// Records of a batch, in each of the two keyspaces
    #[arg(long, value_name = "N", default_value = "16", value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Threads that write, and that read when it is verified
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Decides when it is killed [default: from the clock]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[command(flatten)]
    tuning: Tuning,
    #[command(flatten)]
    sync: Sync,
    /// Print an object with all figures at the end instead of the story
    #[arg(long)]
    json: bool,
    #[arg(long, hide = true, requires = "dir")]
    child: bool,
}

impl Demo {
    pub fn run(&self) -> Result<()> {
        match (&self.dir, self.child) {
            (Some(dir), true) => import::child(self, dir),
            _ => self.tell(),
        }
    }

    fn writers(&self) -> usize {
        usize::from(self.threads)
    }

    /// The arguments that the process to be killed takes over.
    fn child_arguments(&self) -> Vec<String> {
        let mut arguments = vec![format!("--threads={}", self.threads)];
        arguments.extend(self.tuning.arguments());
        arguments.extend(self.sync.sync.then(|| "--sync".to_owned()));
        arguments
    }

    fn tell(&self) -> Result<()> {
        let mut story = Story::new(self.json);
        let seed = self.seed.unwrap_or_else(seed_of_the_clock);
        let cap =
            Cap { bytes: self.limit_bytes, items: usize::try_from(self.limit_records).unwrap_or(usize::MAX) };
        let corpus = Corpus::find(self.source.as_deref(), cap)?;
        let batches = import::batches(&corpus, usize::from(self.batch));
        let [Some(_), Some(_), Some(_), Some(_)] = [0, 1, 2, 3].map(|at| batches.get(at)) else {
            return Err(Failure::Failed(format!(
                "{} batches are too few to stop in the middle",
                batches.len()
            )));
        };
        let (items, bytes) = (corpus.items.len() as u64, corpus.bytes);
        story.tell("source", format!("{}: {} files", corpus.name, human::count(corpus.files)))?;
        story.tell(
            "",
            format!("{} records, {}, {} batches", human::count(items), human::bytes(bytes), batches.len()),
        )?;
        story.figure("source", corpus.name.as_str());
        story.figures([
            ("seed", seed),
            ("records", items),
            ("bytes", bytes),
            ("batches", batches.len() as u64),
        ]);

        let scratch = Scratch::new(self.dir.as_deref())?;
        let acknowledged = self.kill_and_check(&mut story, scratch.path(), &corpus, &batches, seed)?;
        self.verify_twice(&mut story, scratch.path(), &corpus)?;
        if let Some(dir) = &self.dir {
            story.tell("left", format!("the database is in {}", dir.display()))?;
        }
        let (found, records) = (human::count(acknowledged), human::count(items));
        story.end(format!(
            "demo: {found} records acknowledged before the kill, {found} found; {records} records in all, every one \
             verified"
        ))
    }

    /// From the first record to the last one: import, kill, reopen, check, import the rest. The number of records that
    /// had been acknowledged, all of which were found.
    fn kill_and_check(
        &self,
        story: &mut Story,
        dir: &Path,
        corpus: &Corpus,
        batches: &[std::ops::Range<usize>],
        seed: u64,
    ) -> Result<u64> {
        let quarter = batches.len() as u64 / 4;
        let kill_at = quarter + Sequence::new(seed).below(2 * quarter);
        let kill_at = usize::try_from(kill_at).unwrap_or(1).max(1);
        let killed = import::import_and_kill(self, dir, corpus, batches, kill_at)?;
        let of = |numbers: &mut dyn Iterator<Item = usize>| {
            let items = numbers.filter_map(|number| corpus.items.get(batches.get(number)?.clone())).flatten();
            items.fold((0, 0), |(count, bytes), item| (count + 1, bytes + item.len()))
        };
        let (acknowledged, bytes) = of(&mut killed.acknowledged.iter().copied());
        story.tell(
            "import",
            format!(
                "{} threads; killed with SIGKILL after {} of {} batches (--seed {seed})",
                self.threads,
                killed.acknowledged.len(),
                batches.len()
            ),
        )?;
        story.tell("", pace(acknowledged, bytes, killed.time))?;
        story.figures([("acknowledged_records", acknowledged), ("acknowledged_bytes", bytes)]);
        story.time("import_seconds", killed.time);

        let db = self.reopen(story, dir, "reopen")?;
        let survey = check::survey(&db, corpus, batches, &killed.acknowledged)?;
        story.tell(
            "check",
            format!(
                "{} records acknowledged, {} found byte for byte; {} more batches whole, none in part",
                human::count(acknowledged),
                human::count(survey.found),
                survey.unacknowledged
            ),
        )?;
        story.figures([
            ("found_records", survey.found),
            ("unacknowledged_batches", survey.unacknowledged as u64),
        ]);

        let begun = Instant::now();
        import::import_rest(self, &db, corpus, batches, &survey.missing)?;
        let time = begun.elapsed();
        let (rest, bytes) = of(&mut survey.missing.iter().copied());
        story.tell("continue", pace(rest, bytes, time))?;
        story.time("continue_seconds", time);
        let begun = Instant::now();
        db.flush()?;
        story.tell("flush", human::time(begun.elapsed()))?;
        story.time("flush_seconds", begun.elapsed());
        self.verify(story, &db, corpus)?;
        let begun = Instant::now();
        db.close()?;
        story.tell("close", human::time(begun.elapsed()))?;
        story.time("close_seconds", begun.elapsed());
        Ok(acknowledged)
    }

    fn verify_twice(&self, story: &mut Story, dir: &Path, corpus: &Corpus) -> Result<()> {
        let db = self.reopen(story, dir, "reopen")?;
        self.verify(story, &db, corpus)?;
        let tables = db.verify()?;
        let records = tables.iter().map(|table| table.records).sum();
        story.tell(
            "tables",
            format!("{} read and checked, {} records", tables.len(), human::count(records)),
        )?;
        let stats = db.stats();
        for line in stats::levels(&stats) {
            story.tell("tree", line)?;
        }
        let on_disk = scratch::bytes_on_disk(dir)?;
        let given: u64 = corpus.bytes + corpus.items.iter().map(|item| item.fact.len()).sum::<u64>();
        story.tell(
            "disk",
            format!(
                "{} in tables and {} in log segments for {} of keys and values: {:.2} bytes for each",
                human::bytes(on_disk.tables),
                human::bytes(on_disk.log),
                human::bytes(given),
                human::ratio(on_disk.tables + on_disk.log, given),
            ),
        )?;
        story.figures([
            ("disk_table_bytes", on_disk.tables),
            ("disk_log_bytes", on_disk.log),
            ("given_bytes", given),
        ]);
        Ok(db.close()?)
    }

    fn reopen(&self, story: &mut Story, dir: &Path, what: &'static str) -> Result<Db> {
        let begun = Instant::now();
        let db = self.tuning.open(dir, Missing::Refuse)?;
        let time = begun.elapsed();
        let RecoveryReport { clean, replayed, dropped_bytes, last_seqno, orphans, .. } = db.recovery();
        let how = if clean { "it was closed cleanly" } else { "it was not closed" };
        story.tell(what, format!("{}: {how}", human::time(time)))?;
        story.tell(
            "",
            format!(
                "{} records replayed up to seqno {}, {} dropped, {orphans} orphans removed",
                human::count(replayed),
                human::count(last_seqno),
                human::bytes(dropped_bytes)
            ),
        )?;
        story.time(if clean { "reopen_clean_seconds" } else { "reopen_killed_seconds" }, time);
        if !clean {
            story.figures([("replayed_records", replayed), ("dropped_bytes", dropped_bytes)]);
        }
        Ok(db)
    }

    fn verify(&self, story: &mut Story, db: &Db, corpus: &Corpus) -> Result<()> {
        let begun = Instant::now();
        let repeated = check::verify_all(db, corpus, self.writers())?;
        story.tell(
            "verify",
            format!(
                "{} records in each keyspace: got, scanned forward and backward in {}",
                human::count(corpus.items.len() as u64),
                human::time(begun.elapsed()),
            ),
        )?;
        story.tell(
            "",
            format!("the index shows {} contents that several files have", human::count(repeated)),
        )?;
        story.time("verify_seconds", begun.elapsed());
        Ok(())
    }
}

fn pace(records: u64, bytes: u64, time: Duration) -> String {
    format!(
        "{} records, {} in {}: {:.0} records/s, {:.1} MB/s",
        human::count(records),
        human::bytes(bytes),
        human::time(time),
        human::rate(records, time),
        human::rate(bytes, time) / 1e6
    )
}

fn seed_of_the_clock() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::from(since.subsec_nanos())
}

/// What the demo prints: lines as they happen, or one object at the end.
struct Story {
    output: Output,
    json: bool,
    figures: BTreeMap<&'static str, serde_json::Value>,
}

impl Story {
    fn new(json: bool) -> Self {
        Self { output: Output::new(), json, figures: BTreeMap::new() }
    }

    fn tell(&mut self, what: &str, text: String) -> Result<()> {
        if self.json {
            return Ok(());
        }
        self.output.line(format!("{what:10} {text}"))?;
        self.output.flush()
    }

    fn figure(&mut self, name: &'static str, value: impl Into<serde_json::Value>) {
        self.figures.insert(name, value.into());
    }

    fn figures<const N: usize>(&mut self, figures: [(&'static str, u64); N]) {
        figures.into_iter().for_each(|(name, value)| self.figure(name, value));
    }

    fn time(&mut self, name: &'static str, time: Duration) {
        self.figure(name, time.as_secs_f64());
    }

    fn end(mut self, text: String) -> Result<()> {
        match self.json {
            true => self.output.json(&self.figures)?,
            false => self.output.line(text)?,
        }
        self.output.flush()
    }
}

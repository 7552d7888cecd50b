//! Medians, spreads and ratios of the contest's lines, and the table that says what was reached.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::report::{Better, number};
use crate::rows::{COMMON, FIGURES, Goal, ROWS, Row, Target, figure};
use crate::store::is_lsm;

/// PebbleTree's name in the lines.
pub const OWN: &str = "pebble";

/// A row's figures of one engine, over its rounds.
#[derive(Default)]
struct Cell {
    figures: BTreeMap<String, Vec<f64>>,
    settings: String,
    error: Option<String>,
    rounds: usize,
    records: f64,
}

/// All lines, by row and engine.
pub struct Results {
    cells: BTreeMap<(String, String), Cell>,
    /// In the order of their first line.
    engines: Vec<String>,
}

/// What a goal came to.
pub struct Verdict {
    /// How PebbleTree stands: how many times better than the peer, or the figure itself.
    pub reached: f64,
    /// The peer that counts, with its figure; none for a target that is a number.
    pub peer: Option<(String, f64)>,
    /// Whether it is enough.
    pub met: bool,
}

impl Results {
    /// Of the lines of one contest.
    pub fn new(lines: &[Value]) -> Self {
        let mut cells: BTreeMap<(String, String), Cell> = BTreeMap::new();
        let mut engines: Vec<String> = Vec::new();
        for line in lines {
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            let engine = text("engine");
            if !engines.contains(&engine) {
                engines.push(engine.clone());
            }
            let cell = cells.entry((text("row"), engine)).or_default();
            cell.rounds += 1;
            if let Some(error) = line["error"].as_str() {
                cell.error = Some(error.to_owned());
                continue;
            }
            cell.settings = text("settings");
            cell.records = line["records"].as_f64().unwrap_or_default();
            for (key, value) in line["figures"].as_object().into_iter().flatten() {
                cell.figures.entry(key.clone()).or_default().extend(value.as_f64());
            }
        }
        Self { cells, engines }
    }

    /// The most rounds of any row.
    pub fn rounds(&self) -> usize {
        self.cells.values().map(|cell| cell.rounds).max().unwrap_or_default()
    }

    /// The engines that took part.
    pub fn engines(&self) -> &[String] {
        &self.engines
    }

    /// The rows that ran, in the report's order.
    pub fn rows(&self) -> impl Iterator<Item = &'static Row> {
        ROWS.iter().filter(|row| self.engines.iter().any(|engine| self.cell(row.name, engine).is_some()))
    }

    fn cell(&self, row: &str, engine: &str) -> Option<&Cell> {
        self.cells.get(&(row.to_owned(), engine.to_owned()))
    }

    fn values(&self, row: &str, engine: &str, key: &str) -> &[f64] {
        self.cell(row, engine).and_then(|cell| cell.figures.get(key)).map_or(&[], Vec::as_slice)
    }

    /// The median of a figure over the rounds.
    pub fn median(&self, row: &str, engine: &str, key: &str) -> Option<f64> {
        median(self.values(row, engine, key))
    }

    /// The peer with the best median among those that `counts` lets count.
    pub fn best_peer(&self, row: &str, key: &str, counts: impl Fn(&str) -> bool) -> Option<(String, f64)> {
        let better = figure(key)?.better;
        let peers = self.engines.iter().filter(|engine| *engine != OWN && counts(engine));
        let medians = peers.filter_map(|engine| Some((engine.clone(), self.median(row, engine, key)?)));
        medians.reduce(|best, next| if ahead(better, next.1, best.1) > 1.0 { next } else { best })
    }

    /// What a goal of a row came to; `None` if somebody's figure is missing. `records` is of the row.
    pub fn verdict(&self, row: &Row, goal: &Goal, records: f64) -> Option<Verdict> {
        let key = goal.figure;
        let better = figure(key)?.better;
        let own = self.median(row.name, OWN, key)?;
        let (times, peer) = match goal.target {
            Target::AtMost(most) => return Some(Verdict { reached: own, peer: None, met: own <= most }),
            Target::AtLeast(least) => return Some(Verdict { reached: own, peer: None, met: own >= least }),
            Target::Best(times) => (times, self.best_peer(row.name, key, |_| true)?),
            Target::BestAt(small, from, large) => {
                (if records >= from { large } else { small }, self.best_peer(row.name, key, |_| true)?)
            }
            Target::Lsm(times) => (times, self.best_peer(row.name, key, is_lsm)?),
            Target::RocksDb(times) => (times, self.best_peer(row.name, key, |engine| engine == "rocksdb")?),
        };
        // Of the same rounds, so that a busy minute hits both.
        let (mine, theirs) = (self.values(row.name, OWN, key), self.values(row.name, &peer.0, key));
        let ratios: Vec<f64> =
            mine.iter().zip(theirs).map(|(mine, theirs)| ahead(better, *mine, *theirs)).collect();
        let reached = median(&ratios)?;
        Some(Verdict { reached, peer: Some(peer), met: reached >= times })
    }

    fn records(&self, row: &str) -> f64 {
        self.cell(row, OWN).map_or(0.0, |cell| cell.records)
    }

    /// The whole report.
    pub fn markdown(&self, about: &str, charts: &[String]) -> String {
        let mut text = format!("# The contest\n\n{about}\n");
        for chart in charts {
            text += &format!("![{chart}]({chart})\n");
        }
        self.add_goals(&mut text);
        for kind in FIGURES {
            self.add_figure(&mut text, kind.key);
        }
        self.add_failures(&mut text);
        self.add_settings(&mut text);
        text
    }

    fn add_goals(&self, text: &mut String) {
        *text += "\n## Targets\n\n`reached` is how many times better PebbleTree is than the peer that counts, the \
                  median over the rounds; below 1 it is worse.\n\n";
        *text +=
            "| row | figure | target | reached | PebbleTree | peer | met |\n|---|---|---|---|---|---|---|\n";
        let (mut met, mut all) = (0, 0);
        for row in self.rows() {
            for goal in row.goals.iter().chain(COMMON) {
                let records = self.records(row.name);
                let Some(verdict) = self.verdict(row, goal, records) else { continue };
                let own = self.median(row.name, OWN, goal.figure);
                let (title, unit) = figure(goal.figure).map_or(("", ""), |kind| (kind.title, kind.unit));
                let peer = verdict.peer.as_ref();
                let peer =
                    peer.map_or("".to_owned(), |(name, value)| format!("{name} {}", number(Some(*value))));
                let times = if verdict.peer.is_some() { " x" } else { "" };
                all += 1;
                met += u32::from(verdict.met);
                *text += &format!(
                    "| {} | {title} | {} | {}{times} | {} {unit} | {peer} | {} |\n",
                    row.name,
                    target_name(goal.target, records),
                    number(Some(verdict.reached)),
                    number(own),
                    if verdict.met { "yes" } else { "**no**" },
                );
            }
        }
        *text += &format!("\n{met} of {all} met.\n");
    }

    fn add_figure(&self, text: &mut String, key: &str) {
        let rows: Vec<&Row> = self
            .rows()
            .filter(|row| self.engines.iter().any(|engine| !self.values(row.name, engine, key).is_empty()))
            .collect();
        let Some(kind) = figure(key).filter(|_| !rows.is_empty()) else { return };
        let unit = if kind.unit.is_empty() { String::new() } else { format!(", {}", kind.unit) };
        *text += &format!("\n## {}{unit}\n\n| row | {} |\n|---|", kind.title, self.engines.join(" | "));
        *text += &"---|".repeat(self.engines.len());
        *text += "\n";
        for row in rows {
            let cells: Vec<String> =
                self.engines.iter().map(|engine| self.shown(row.name, engine, key)).collect();
            *text += &format!("| {} | {} |\n", row.name, cells.join(" | "));
        }
    }

    /// A median with its spread over the rounds, and a star if the time limit ended it.
    fn shown(&self, row: &str, engine: &str, key: &str) -> String {
        let values = self.values(row, engine, key);
        let Some(median) = median(values) else { return String::new() };
        let stopped = self.median(row, engine, "stopped").is_some_and(|stopped| stopped > 0.0);
        let star = if stopped && key.ends_with("rate") { "*" } else { "" };
        let (low, high) =
            values.iter().fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
        match values.len() {
            0 | 1 => format!("{}{star}", number(Some(median))),
            _ => format!(
                "{}{star} ±{:.0} %",
                number(Some(median)),
                50.0 * (high - low) / median.abs().max(1e-9)
            ),
        }
    }

    fn add_failures(&self, text: &mut String) {
        let failed = self.cells.iter().filter_map(|(place, cell)| Some((place, cell.error.as_ref()?)));
        let lines: String =
            failed.map(|((row, engine), error)| format!("- {engine}, {row}: {error}\n")).collect();
        if !lines.is_empty() {
            *text += &format!("\n## Failed\n\n{lines}");
        }
    }

    fn add_settings(&self, text: &mut String) {
        *text += "\n## Settings\n\n";
        for engine in &self.engines {
            let mut settings: Vec<&str> = self
                .cells
                .iter()
                .filter(|((_, name), _)| name == engine)
                .map(|(_, cell)| cell.settings.as_str())
                .collect();
            settings.retain(|settings| !settings.is_empty());
            settings.sort_unstable_by_key(|settings| settings.len());
            settings.dedup();
            // A row with a setting of its own repeats the others'.
            if let Some(settings) = settings.first() {
                *text += &format!("- {engine}: {settings}\n");
            }
        }
        *text += "\nA star: the time limit ended it, and the rate is of what was done until then. redb and sled sync \
                  each write in every row, since what they do not sync is lost with the process.\n";
    }
}

fn target_name(target: Target, records: f64) -> String {
    match target {
        Target::Best(times) => format!("≥ {times:.2} x best peer"),
        Target::BestAt(small, from, large) => {
            format!("≥ {:.2} x best peer", if records >= from { large } else { small })
        }
        Target::Lsm(times) => format!("≥ {times:.2} x best LSM"),
        Target::RocksDb(times) => format!("≥ {times:.2} x RocksDB"),
        Target::AtMost(most) => format!("≤ {most}"),
        Target::AtLeast(least) => format!("≥ {least}"),
    }
}

/// How many times better `own` is; below 1 it is worse.
pub fn ahead(better: Better, own: f64, peer: f64) -> f64 {
    match better {
        // Neither wrote a table, say.
        _ if own == peer => 1.0,
        Better::Lower => peer / own.max(1e-9),
        _ => own / peer.max(1e-9),
    }
}

/// The middle one; of two the mean.
fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(row: &str, key: &str, engines: &[(&str, &[f64])]) -> Vec<Value> {
        let of = |engine: &str, value: f64| {
            let figures = json!({key: value});
            json!({"row": row, "engine": engine, "records": 1e6, "settings": "s", "figures": figures})
        };
        engines.iter().flat_map(|(engine, values)| values.iter().map(|value| of(engine, *value))).collect()
    }

    fn row(name: &str) -> &'static Row {
        ROWS.iter().find(|row| row.name == name).unwrap()
    }

    fn judge(results: &Results, name: &str, key: &'static str, target: Target) -> (f64, bool) {
        let verdict = results.verdict(row(name), &Goal { figure: key, target }, 1e6).unwrap();
        (verdict.reached, verdict.met)
    }

    #[test]
    fn a_target_is_held_to_the_peer_that_counts() {
        let engines: &[(&str, &[f64])] =
            &[("pebble", &[10.0, 30.0, 20.0]), ("rocksdb", &[2.0, 2.0, 2.0]), ("lmdb", &[5.0, 10.0, 10.0])];
        let results = Results::new(&lines("fillseq", "rate", engines));
        assert_eq!(results.rounds(), 3);
        // By the rounds: 2, 3 and 2 times the best one.
        assert_eq!(judge(&results, "fillseq", "rate", Target::Best(2.0)), (2.0, true));
        assert_eq!(judge(&results, "fillseq", "rate", Target::Best(2.5)), (2.0, false));
        assert_eq!(judge(&results, "fillseq", "rate", Target::BestAt(2.5, 1e6, 2.0)), (2.0, true));
        assert_eq!(judge(&results, "fillseq", "rate", Target::BestAt(2.5, 2e6, 2.0)), (2.0, false));
        assert_eq!(judge(&results, "fillseq", "rate", Target::Lsm(11.0)), (10.0, false));
        assert_eq!(judge(&results, "fillseq", "rate", Target::RocksDb(10.0)), (10.0, true));
        assert_eq!(judge(&results, "fillseq", "rate", Target::AtMost(19.0)), (20.0, false));
        assert_eq!(judge(&results, "fillseq", "rate", Target::AtLeast(20.0)), (20.0, true));
    }

    #[test]
    fn less_is_better_where_it_is() {
        let engines: &[(&str, &[f64])] = &[("pebble", &[2.0]), ("rocksdb", &[8.0]), ("lmdb", &[4.0])];
        let results = Results::new(&lines("reopen-killed", "open_ms", engines));
        assert_eq!(judge(&results, "reopen-killed", "open_ms", Target::Best(2.5)), (2.0, false));
        assert_eq!(judge(&results, "reopen-killed", "open_ms", Target::RocksDb(4.0)), (4.0, true));
        let none =
            Results::new(&lines("fillseq", "write_amp_tables", &[("pebble", &[0.0]), ("rocksdb", &[0.0])]));
        assert_eq!(judge(&none, "fillseq", "write_amp_tables", Target::Lsm(1.0)), (1.0, true));
    }

    #[test]
    fn a_failure_is_told_and_nothing_is_made_up() {
        let mut lines = lines("fillseq", "rate", &[("pebble", &[10.0])]);
        lines.push(json!({"row": "fillseq", "engine": "sled", "error": "it broke"}));
        let results = Results::new(&lines);
        let goal = Goal { figure: "rate", target: Target::Best(1.0) };
        assert!(results.verdict(row("fillseq"), &goal, 1e6).is_none());
        let text = results.markdown("about", &[]);
        assert!(text.contains("- sled, fillseq: it broke") && text.contains("0 of 0 met"), "{text}");
    }
}

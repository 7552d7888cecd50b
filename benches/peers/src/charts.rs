//! Bar charts as SVG, written by hand: a bar for each engine in each row, as long as its share of the row's best.

use std::fs;
use std::path::Path;

use crate::Result;
use crate::report::{Better, number};
use crate::results::{OWN, Results, ahead};
use crate::rows::{FigureKind, Row, figure};

/// Charts: a file's name, a title, and what it shows of which rows.
const CHARTS: &[(&str, &str, &str, &[&str])] = &[
    (
        "writes",
        "Writes, operations per second",
        "rate",
        &["fill", "overwrite", "large-fill", "small-fill", "delete"],
    ),
    ("reads", "Reads, operations per second", "rate", &["read", "seek", "large-read", "small-read"]),
    ("ycsb", "YCSB, operations per second", "rate", &["ycsb"]),
    ("memory", "Anonymous memory at its peak, MB", "anonymous_mb", &[""]),
    ("cpu", "CPU seconds per million operations", "cpu_per_million", &[""]),
    ("device", "Bytes to the device per user byte", "write_amp_device", &[""]),
    ("space", "Disk per live byte", "space_amp", &[""]),
];

const LABEL_WIDTH: f64 = 150.0;
const BAR_WIDTH: f64 = 420.0;
const WIDTH: f64 = LABEL_WIDTH + BAR_WIDTH + 110.0;
const BAR: f64 = 11.0;
const GAP: f64 = 10.0;
const TOP: f64 = 58.0;

/// PebbleTree stands out; peers share the rest of the palette.
const COLOURS: &[&str] = &["#4c78a8", "#72b7b2", "#b279a2", "#9d755d", "#bab0ac", "#eeca3b"];
const OWN_COLOUR: &str = "#e45756";

/// Writes those charts that have a row, and gives their files' names.
pub fn write(out: &Path, scale: &str, results: &Results) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (name, title, key, rows) in CHARTS {
        let Some(kind) = figure(key) else { continue };
        let has = |row: &&Row| {
            results.engines().iter().any(|engine| results.median(row.name, engine, key).is_some())
        };
        let wanted = |row: &&Row| rows.iter().any(|prefix| row.name.starts_with(prefix));
        let rows: Vec<&Row> = results.rows().filter(wanted).filter(has).collect();
        if !rows.is_empty() {
            let file = format!("{name}-{scale}.svg");
            fs::write(out.join(&file), chart(title, kind, &rows, results))?;
            names.push(file);
        }
    }
    Ok(names)
}

fn colour(results: &Results, engine: &str) -> &'static str {
    let peers = results.engines().iter().filter(|name| *name != OWN);
    match peers.enumerate().find(|(_, name)| *name == engine) {
        Some((index, _)) => COLOURS[index % COLOURS.len()],
        None => OWN_COLOUR,
    }
}

fn chart(title: &str, kind: &FigureKind, rows: &[&Row], results: &Results) -> String {
    let mut body = String::new();
    let mut y = TOP;
    for row in rows {
        let bars: Vec<(&String, f64)> = results
            .engines()
            .iter()
            .filter_map(|engine| Some((engine, results.median(row.name, engine, kind.key)?)))
            .collect();
        let longest = bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
        let middle = y + bars.len() as f64 * BAR / 2.0 + 4.0;
        body += &text(LABEL_WIDTH - 8.0, middle, "end", "#222", row.name);
        for (engine, value) in bars {
            let width = (BAR_WIDTH * value / longest).max(1.0);
            body += &format!(
                "<rect x=\"{LABEL_WIDTH}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{}\"/>\n",
                BAR - 1.0,
                colour(results, engine),
            );
            body += &text(LABEL_WIDTH + width + 4.0, y + BAR - 2.0, "start", "#555", &number(Some(value)));
            y += BAR;
        }
        if let Some((_, peer)) = results.best_peer(row.name, kind.key, |_| true)
            && let Some(own) = results.median(row.name, OWN, kind.key)
        {
            let ratio = format!("{:.2} x", ahead(kind.better, own, peer));
            body += &text(WIDTH - 6.0, middle, "end", "#222", &ratio);
        }
        y += GAP;
    }
    let better = if kind.better == Better::Lower { "shorter is better" } else { "longer is better" };
    let head = format!("{title} ({better}; at the right PebbleTree against the best peer)");
    let mut legend = text(8.0, 18.0, "start", "#000", &head);
    for (index, engine) in results.engines().iter().enumerate() {
        let x = 8.0 + 100.0 * index as f64;
        legend += &format!(
            "<rect x=\"{x}\" y=\"30\" width=\"10\" height=\"10\" fill=\"{}\"/>\n",
            colour(results, engine)
        );
        legend += &text(x + 14.0, 39.0, "start", "#222", engine);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y:.0}\" width=\"{WIDTH}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         {legend}{body}</svg>\n"
    )
}

fn text(x: f64, y: f64, anchor: &str, fill: &str, what: &str) -> String {
    let what = what.replace('&', "&amp;").replace('<', "&lt;");
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{fill}\">{what}</text>\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_share() {
        let line =
            |engine: &str, rate: f64| json!({"row": "fillseq", "engine": engine, "figures": {"rate": rate}});
        let results = Results::new(&[line("pebble", 400.0), line("a<b", 100.0)]);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(write(dir.path(), "1m", &results).unwrap(), ["writes-1m.svg"]);
        let chart = fs::read_to_string(dir.path().join("writes-1m.svg")).unwrap();
        assert!(chart.contains("width=\"420.0\"") && chart.contains("width=\"105.0\""), "{chart}");
        assert!(chart.contains("4.00 x") && chart.contains("a&lt;b") && !chart.contains("a<b"));
        assert_eq!(chart.matches("<text").count(), chart.matches("</text>").count());
    }
}

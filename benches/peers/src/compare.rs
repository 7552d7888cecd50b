//! Every engine in a child process of its own, interleaved, so that a busy minute of the machine hits all of them,
//! and none gets memory or a page cache of files that another left.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::Result;
use crate::report::{Better, Figure, number};
use crate::store::EngineName;

/// Figures of one child.
type Figures = Vec<Figure>;

/// Runs the command line of this process for each engine, `rounds` times, and prints medians and ratios.
pub fn run(program: &str, rounds: usize) -> Result<()> {
    let engines = EngineName::merging();
    if engines.len() < 2 {
        return Err("this build knows no peer; build it with --features rocksdb,fjall".into());
    }
    let mut runs: Vec<Vec<Figures>> = vec![Vec::new(); engines.len()];
    for round in 0..rounds.max(1) {
        let mut order: Vec<usize> = (0..engines.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            eprintln!("== round {}: {}", round + 1, engines[index].name());
            runs[index].push(child(engines[index], round)?);
        }
    }
    print(program, &engines, &runs);
    Ok(())
}

fn child(engine: EngineName, round: usize) -> Result<Figures> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut child = Command::new(std::env::current_exe()?)
        .args(child_arguments(&arguments, engine.name(), round))
        .stdout(Stdio::piped())
        .spawn()?;
    let mut figures = Vec::new();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line?;
            if let Some(figure) = Figure::from_json(&line) {
                println!("{line}");
                figures.push(figure);
            }
        }
    }
    match child.wait()? {
        status if status.success() => Ok(figures),
        status => Err(format!("{}: {status}", engine.name()).into()),
    }
}

/// The arguments of this process as one engine in one round needs them: it compares nothing, and no two children
/// write to one file.
fn child_arguments(own: &[String], engine: &str, round: usize) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut words = own.iter();
    while let Some(word) = words.next() {
        let (name, joined) = word.split_once('=').map_or((word.as_str(), None), |(name, v)| (name, Some(v)));
        match name {
            "--compare" => {}
            "--rounds" if joined.is_some() => {}
            "--rounds" => drop(words.next()),
            "--seconds-csv" => {
                let file = joined.or_else(|| words.next().map(String::as_str)).unwrap_or_default();
                arguments.push(format!("--seconds-csv={file}.{engine}.{}", round + 1));
            }
            _ => arguments.push(word.clone()),
        }
    }
    arguments.extend(["--engine".to_owned(), engine.to_owned()]);
    arguments
}

fn print(program: &str, engines: &[EngineName], runs: &[Vec<Figures>]) {
    let mut head = format!("\n{program:<32} {:<6}", "");
    for (index, engine) in engines.iter().enumerate() {
        head += &format!(" {:>12}", engine.name());
        head += if index == 0 { "" } else { "  pebble ahead" };
    }
    let mut lines = vec![head];
    for (row, figure) in runs[0][0].iter().enumerate() {
        let of = |index: usize| runs[index].iter().map(move |figures| figures[row].value);
        let mut line = format!("{:<32} {:<6}", figure.name, figure.unit);
        let mut json = json!({"program": program, "figure": figure.name, "unit": figure.unit});
        for (index, engine) in engines.iter().enumerate() {
            let value = median(of(index));
            line += &format!(" {:>12}", number(value));
            json[engine.name()] = json!(value);
            if index > 0 {
                let ahead = median(of(0).zip(of(index)).map(|(own, peer)| ahead(figure.better, own?, peer?)));
                line += &format!(" {:>13}", ahead.map_or_else(String::new, |ahead| format!("{ahead:.2} x")));
                json[format!("pebble ahead of {}", engine.name())] = json!(ahead);
            }
        }
        lines.push(line);
        println!("{json}");
    }
    println!("{}", lines.join("\n"));
}

/// How many times better `own` is; below 1 it is worse.
fn ahead(better: Better, own: f64, peer: f64) -> Option<f64> {
    let ratio = match better {
        Better::Higher => own / peer,
        Better::Lower => peer / own,
        Better::Neither => return None,
    };
    ratio.is_finite().then_some(ratio)
}

/// The middle one of those that there are; of two the mean.
fn median(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let mut values: Vec<f64> = values.flatten().collect();
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
    use super::*;

    #[test]
    fn a_child_gets_what_is_its_own() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let cases = [
            (
                "overwrite --compare --live 2G --rounds 3 --dir d",
                "overwrite --live 2G --dir d --engine fjall",
            ),
            ("merge --rounds=3 --compare --dir=d", "merge --dir=d --engine fjall"),
            (
                "overwrite --seconds-csv a.csv --compare",
                "overwrite --seconds-csv=a.csv.fjall.2 --engine fjall",
            ),
            ("overwrite --compare --seconds-csv=a", "overwrite --seconds-csv=a.fjall.2 --engine fjall"),
        ];
        for (own, wanted) in cases {
            assert_eq!(child_arguments(&words(own), "fjall", 1), words(wanted));
        }
    }

    #[test]
    fn medians_and_ratios() {
        assert_eq!(median([Some(3.0), None, Some(1.0), Some(2.0)].into_iter()), Some(2.0));
        assert_eq!(median([Some(1.0), Some(2.0)].into_iter()), Some(1.5));
        assert_eq!(median([None].into_iter()), None);
        assert_eq!(ahead(Better::Higher, 4.0, 2.0), Some(2.0));
        assert_eq!(ahead(Better::Lower, 4.0, 2.0), Some(0.5));
        assert_eq!(ahead(Better::Lower, 0.0, 2.0), None);
        assert_eq!(ahead(Better::Neither, 4.0, 2.0), None);
    }
}

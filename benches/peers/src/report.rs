//! Figures, as JSON lines for programs and as a table for people.

use serde_json::{Value, json};

use crate::Result;
use crate::store::EngineName;

/// Which of two figures is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// The higher one.
    Higher,
    /// The lower one.
    Lower,
    /// It is told for information.
    Neither,
}

impl Better {
    fn name(self) -> &'static str {
        match self {
            Self::Higher => "higher",
            Self::Lower => "lower",
            Self::Neither => "neither",
        }
    }

    fn parse(name: &str) -> Self {
        match name {
            "higher" => Self::Higher,
            "lower" => Self::Lower,
            _ => Self::Neither,
        }
    }
}

/// One line of a report.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Printed, and in JSON.
    pub name: String,
    /// Such as `MB`.
    pub unit: String,
    /// How two are compared.
    pub better: Better,
    /// `None` where the engine does not tell.
    pub value: Option<f64>,
}

/// What one run of one engine gave.
pub struct Report {
    program: &'static str,
    engine: EngineName,
    figures: Vec<Figure>,
}

impl Report {
    /// Without figures yet.
    pub fn new(program: &'static str, engine: EngineName) -> Self {
        Self { program, engine, figures: Vec::new() }
    }

    /// Adds a figure.
    pub fn add(&mut self, name: &str, unit: &str, better: Better, value: impl Into<Option<f64>>) {
        let (name, unit, value) = (name.to_owned(), unit.to_owned(), value.into());
        self.figures.push(Figure { name, unit, better, value: value.filter(|value| value.is_finite()) });
    }

    /// Prints a JSON line for each figure, then the table.
    pub fn print(&self) -> Result<()> {
        let engine = self.engine.name();
        for figure in &self.figures {
            println!("{}", figure.to_json(self.program, engine));
        }
        println!("\n{:<32} {:<6} {:>12}", self.program, "", engine);
        for figure in &self.figures {
            println!("{:<32} {:<6} {:>12}", figure.name, figure.unit, number(figure.value));
        }
        Ok(())
    }
}

impl Figure {
    fn to_json(&self, program: &str, engine: &str) -> Value {
        json!({
            "program": program, "engine": engine, "figure": self.name, "unit": self.unit,
            "better": self.better.name(), "value": self.value,
        })
    }

    /// Reads a line of [`Report::print`]; `None` for any other.
    pub fn from_json(line: &str) -> Option<Self> {
        let line: Value = serde_json::from_str(line).ok()?;
        let text = |key: &str| line[key].as_str().map(str::to_owned);
        Some(Self {
            name: text("figure")?,
            unit: text("unit")?,
            better: Better::parse(&text("better")?),
            value: line["value"].as_f64(),
        })
    }
}

/// A figure with the digits that matter.
pub fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value.abs() >= 1000.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.3}"),
    }
}

/// Bytes as megabytes of 1,000,000.
pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_read_back() {
        for better in [Better::Higher, Better::Lower, Better::Neither] {
            for value in [Some(1.25), Some(1e9), None] {
                let figure = Figure { name: "a b".into(), unit: "MB".into(), better, value };
                assert_eq!(Figure::from_json(&figure.to_json("p", "e").to_string()), Some(figure));
            }
        }
        for line in ["", "overwrite   pebble", "{}", "{\"figure\": 1}"] {
            assert_eq!(Figure::from_json(line), None);
        }
    }
}

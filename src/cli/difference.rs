//! In what two stored runs differ.

use super::columns::{heading, shown};
use crate::experiment::filter::{Kind, Subject, run_predicates};
use crate::store::{SAID_OF_RUNS, Stored};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use std::collections::BTreeSet;

/// Differing fields and measures; accuracies are fractions.
#[derive(Serialize)]
pub struct Difference {
    configuration: Vec<Field>,
    metrics: Vec<Measure>,
}

#[derive(Serialize)]
struct Field {
    key: String,
    /// `None` where the run has no such field.
    a: Option<String>,
    b: Option<String>,
}

#[derive(Serialize)]
struct Measure {
    key: &'static str,
    a: Option<f64>,
    b: Option<f64>,
    /// `a - b`, where both are known.
    difference: Option<f64>,
}

impl Difference {
    pub fn between(a: &Stored, b: &Stored) -> Self {
        let fields = [a, b].map(Stored::configuration);
        let keys: BTreeSet<&String> = fields.iter().flat_map(|fields| fields.iter().map(|(key, _)| key)).collect();
        let [of_a, of_b] = [0, 1].map(|side: usize| {
            let fields = &fields[side];
            move |key: &str| fields.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone())
        });
        let configuration = keys.into_iter().map(|key| Field { key: key.clone(), a: of_a(key), b: of_b(key) });
        let measures = run_predicates()
            .filter(|(name, kind, _)| matches!(kind, Kind::Number | Kind::Fraction) && !SAID_OF_RUNS.contains(name));
        let metrics = measures.map(|(key, ..)| {
            let [a, b] = [a, b].map(|run| run.values(key)?.first()?.parse::<f64>().ok());
            Measure { key, a, b, difference: a.zip(b).map(|(a, b)| a - b) }
        });
        Self {
            configuration: configuration.filter(|field| field.a != field.b).collect(),
            metrics: metrics.filter(|measure| measure.a != measure.b).collect(),
        }
    }

    /// Prints both tables; accuracies in percent.
    pub fn print(&self, a: &Stored, b: &Stored) {
        say!("A  {}/{}\nB  {}/{}", a.experiment, a.record.run_id, b.experiment, b.record.run_id);
        let none = || "–".to_string();
        if self.configuration.is_empty() {
            say!("the same configuration");
        } else {
            let mut table = Table::new();
            table.load_style(presets::NOTHING).set_header(["configuration", "A", "B"]);
            for Field { key, a, b } in &self.configuration {
                table.add_row([key.clone(), a.clone().unwrap_or_else(none), b.clone().unwrap_or_else(none)]);
            }
            say!("{table}");
        }
        if self.metrics.is_empty() {
            say!("the same metrics");
            return;
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["metrics", "A", "B", "A - B"]);
        for measure in &self.metrics {
            let number = |value: Option<f64>| value.map_or_else(none, |value| shown(measure.key, &value.to_string()));
            let sign = if measure.difference.is_some_and(|difference| difference > 0.0) { "+" } else { "" };
            let difference = format!("{sign}{}", number(measure.difference));
            table.add_row([heading(measure.key), number(measure.a), number(measure.b), difference]);
        }
        table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        say!("{table}");
    }
}

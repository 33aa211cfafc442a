//! What quantizing did to each layer, as rows that a terminal or a page shows.

use super::digits::significant;
use ptq::quant::diagnosis::{ActDiagnosis, BINS, Diagnosis, UnitDiagnosis, WeightDiagnosis};
use serde::Serialize;
use std::fmt::Write;

/// Width of a bin and height of a histogram, in units of its path.
const BIN: usize = 2;
const HEIGHT: f64 = 32.0;
/// Bins that a terminal shows as one character.
const MERGED: usize = 3;
/// From few to many.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Of one run.
#[derive(Serialize)]
pub struct Layers {
    /// Images that activations and outputs were seen on.
    pub images: usize,
    pub weights: Vec<WeightRow>,
    pub acts: Vec<ActRow>,
}

/// A layer's weight.
#[derive(Serialize)]
pub struct WeightRow {
    /// Of the first layer of a unit.
    pub unit: Option<UnitCells>,
    pub layer: String,
    pub shape: String,
    pub bits: String,
    pub sqnr: String,
    /// Of the channels, the smallest and the largest.
    pub scales: String,
    /// SVG paths in a box of 96 x 32.
    pub before: String,
    pub after: String,
    /// The same two as a line of text each.
    #[serde(skip)]
    pub bars: [String; 2],
}

/// A unit beside the first of its layers.
#[derive(Serialize)]
pub struct UnitCells {
    pub name: String,
    /// Number of its layers.
    pub layers: usize,
    /// Of its output.
    pub sqnr: String,
}

/// An activation quantizer.
#[derive(Serialize)]
pub struct ActRow {
    /// Of the first quantizer of a unit.
    pub unit: Option<(String, usize)>,
    pub tensor: String,
    pub bits: u32,
    pub scale: String,
    pub range: String,
    /// In percent.
    pub clipped: String,
}

impl Layers {
    pub fn new(diagnosis: &Diagnosis) -> Self {
        Self {
            images: diagnosis.images,
            weights: diagnosis.units.iter().flat_map(weight_rows).collect(),
            acts: diagnosis.units.iter().flat_map(act_rows).collect(),
        }
    }
}

fn weight_rows(unit: &UnitDiagnosis) -> impl Iterator<Item = WeightRow> {
    let cells =
        || UnitCells { name: unit.unit.clone(), layers: unit.weights.len(), sqnr: decibels(unit.output_sqnr_db) };
    unit.weights.iter().enumerate().map(move |(index, weight)| weight_row((index == 0).then(cells), weight))
}

fn weight_row(unit: Option<UnitCells>, weight: &WeightDiagnosis) -> WeightRow {
    let shape: Vec<String> = weight.shape.iter().map(usize::to_string).collect();
    let [before, after] = [&weight.histogram.before, &weight.histogram.after];
    WeightRow {
        unit,
        layer: weight.node.clone(),
        shape: shape.join(" x "),
        bits: weight.bits.map_or("32".to_string(), |bits| bits.to_string()),
        sqnr: decibels(weight.sqnr_db),
        scales: weight.scales.map_or(String::new(), |[low, high]| span(low, high)),
        before: steps(before),
        after: steps(after),
        bars: [before, after].map(|counts| bars(counts)),
    }
}

fn act_rows(unit: &UnitDiagnosis) -> impl Iterator<Item = ActRow> {
    let row = move |(index, act): (usize, &ActDiagnosis)| ActRow {
        unit: (index == 0).then(|| (unit.unit.clone(), unit.acts.len())),
        tensor: act.tensor.clone(),
        bits: act.bits,
        scale: significant(act.scale),
        range: span(act.range[0], act.range[1]),
        clipped: format!("{:.2}", 100.0 * act.clipped),
    };
    unit.acts.iter().enumerate().map(row)
}

/// Nothing is lost where there is no noise.
fn decibels(ratio: Option<f64>) -> String {
    ratio.map_or("exact".to_string(), |ratio| format!("{ratio:.1} dB"))
}

fn span(low: f64, high: f64) -> String {
    format!("{} to {}", significant(low), significant(high))
}

/// The share of the fullest bin that each has.
fn heights(counts: &[u64]) -> impl Iterator<Item = f64> {
    let most = counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    counts.iter().map(move |count| *count as f64 / most)
}

/// SVG path of a histogram as an area.
fn steps(counts: &[u64]) -> String {
    let mut path = format!("M0 {HEIGHT:.0}");
    for (bin, height) in heights(counts).enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(path, "V{:.1}H{}", HEIGHT * (1.0 - height), BIN * (bin + 1));
    }
    let _ = write!(path, "V{HEIGHT:.0}Z");
    path
}

/// A histogram as text: nothing where a bin is empty.
fn bars(counts: &[u64]) -> String {
    let merged: Vec<u64> = counts.chunks(MERGED).map(|bins| bins.iter().sum()).collect();
    let bar = |height: f64| match height {
        0.0 => ' ',
        _ => BARS[((height * BARS.len() as f64) as usize).min(BARS.len() - 1)],
    };
    heights(&merged).map(bar).collect()
}

// Both agree on the box that `details.html` draws.
const _: () = assert!(BIN * BINS == 96);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_areas_and_bars() {
        assert_eq!(steps(&[0, 4, 2]), "M0 32V32.0H2V0.0H4V16.0H6V32Z");
        assert_eq!(bars(&[0, 0, 0, 1, 0, 0, 2, 2, 4]), " ▂█");
        assert_eq!((steps(&[]), bars(&[])), ("M0 32V32Z".to_string(), String::new()));
    }

    #[test]
    fn what_loses_nothing_is_exact() {
        assert_eq!([decibels(None), decibels(Some(12.34))], ["exact", "12.3 dB"]);
    }
}

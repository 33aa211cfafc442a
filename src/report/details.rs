//! Everything that pages show of one run beside its line in a table.

use super::digits::significant;
use super::layers::Layers;
use super::picture;
use crate::error::Result;
use crate::store::record::Record;
use crate::store::{PixelPairs, Stored, read_layers, read_log, read_traces};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ptq::recon::trace::UnitTrace;
use serde::Serialize;
use std::fmt::Write;

/// Size of a curve, in units of its path.
const CURVE: (f64, f64) = (150.0, 40.0);
/// Points of a curve.
const POINTS: usize = 50;

/// What `details.html` shows.
#[derive(Serialize)]
pub struct Details {
    pub facts: Vec<(&'static str, String)>,
    pub curves: Vec<Curve>,
    /// What quantizing did to each; `None` where the run has not kept it.
    pub layers: Option<Layers>,
    /// Data of a URL.
    pub pictures: Option<String>,
    pub log: Option<String>,
    /// The resolved cell as TOML.
    pub cell: String,
    /// What of the folder could not be read.
    pub problems: Vec<String>,
}

/// Losses of one phase of a unit.
#[derive(Serialize)]
pub struct Curve {
    pub unit: String,
    pub phase: String,
    /// SVG path in a box of 150 x 40, on a logarithmic scale.
    pub path: String,
    pub first: String,
    pub last: String,
    pub wall_s: String,
}

/// The details of `run`. A damaged file of its folder is named in them: it is no reason to have no page.
pub fn details(run: &Stored) -> Result<Details> {
    let mut problems = Vec::new();
    let traces = read_traces(&run.folder).unwrap_or_else(|error| {
        problems.push(error.to_string());
        Vec::new()
    });
    let layers = read_layers(&run.folder).unwrap_or_else(|error| {
        problems.push(error.to_string());
        None
    });
    let pictures = PixelPairs::read(run).and_then(|pixels| pixels.as_ref().map(picture::sheet).transpose());
    let pictures = pictures.unwrap_or_else(|error| {
        problems.push(error.to_string());
        None
    });
    Ok(Details {
        facts: facts(run),
        curves: traces.iter().map(curve).collect(),
        layers: layers.as_ref().map(Layers::new),
        pictures: pictures.map(|png| data_url("image/png", &png)),
        log: read_log(&run.folder),
        cell: run.record.cell.to_toml()?,
        problems,
    })
}

/// `content` as the address of itself.
pub fn data_url(media_type: &str, content: &[u8]) -> String {
    format!("data:{media_type};base64,{}", STANDARD.encode(content))
}

/// A fraction in percent, with the two decimals that a table has.
pub fn percent(fraction: f64) -> String {
    format!("{:.2}", 100.0 * fraction)
}

fn facts(run: &Stored) -> Vec<(&'static str, String)> {
    let record = &run.record;
    let Record { cost, provenance, hashes, metrics, .. } = record;
    let memory =
        cost.peak_memory_bytes.map_or("unknown".to_string(), |bytes| format!("{:.0} MiB", bytes as f64 / 1_048_576.0));
    let mut facts = Vec::new();
    if let Some(error) = &record.error {
        facts.push(("failed", error.clone()));
    }
    if let Some(metrics) = metrics {
        let accuracy = format!(
            "{} % on {} test images, {} % on the calibration images; full precision {} %",
            percent(metrics.test_top1),
            metrics.test_images,
            percent(metrics.calib_top1),
            percent(metrics.fp_test_top1)
        );
        facts.push(("accuracy", accuracy));
    }
    if !run.annotations.tags.is_empty() {
        facts.push(("tags", run.annotations.tags.iter().map(String::as_str).collect::<Vec<_>>().join(", ")));
    }
    facts.extend(run.annotations.notes.iter().map(|note| ("note", note.text.clone())));
    facts.extend([
        ("cost", format!("{:.1} s wall, {:.1} s processor, peak memory {memory}", cost.wall_s, cost.cpu_s)),
        (
            "made by",
            format!(
                "harness {} ({}), method revision {}",
                provenance.crate_version,
                provenance.git_revision,
                record.made_with()
            ),
        ),
        ("made on", format!("{} with {} threads", provenance.device, provenance.threads)),
        ("grid", provenance.grid.clone()),
        (
            "weights",
            format!("{}, SHA-256 {}", record.weights_source.as_deref().unwrap_or(&record.cell.weights), hashes.weights),
        ),
    ]);
    facts.extend(record.data_source.iter().map(|source| ("data", source.clone())));
    facts.extend([
        ("calibration", format!("SHA-256 {}", hashes.calib)),
        ("test images", format!("SHA-256 {}", hashes.test)),
    ]);
    facts
}

fn curve(trace: &UnitTrace) -> Curve {
    let end = |loss: Option<&f64>| loss.map_or("–".to_string(), |loss| significant(*loss));
    Curve {
        unit: trace.unit.clone(),
        phase: trace.phase.clone(),
        path: path(&trace.iterations, &trace.loss),
        first: end(trace.loss.first()),
        last: end(trace.loss.last()),
        wall_s: format!("{:.1}", trace.wall_s),
    }
}

/// SVG path of losses over iterations: the largest loss at the top, the smallest at the bottom, logarithms between. What
/// is not positive and finite leaves a gap.
pub fn path(iterations: &[usize], loss: &[f64]) -> String {
    let usable = |loss: &f64| loss.is_finite() && *loss > 0.0;
    let logs = || loss.iter().filter(|loss| usable(loss)).map(|loss| loss.ln());
    let (low, high) = (logs().fold(f64::INFINITY, f64::min), logs().fold(f64::NEG_INFINITY, f64::max));
    let last = iterations.last().copied().unwrap_or(0).max(1) as f64;
    let count = iterations.len().min(loss.len());
    let step = count.div_ceil(POINTS).max(1);
    let mut path = String::new();
    let mut pen_is_up = true;
    for index in (0..count).filter(|index| index % step == 0 || index + 1 == count) {
        if !usable(&loss[index]) {
            pen_is_up = true;
            continue;
        }
        let x = CURVE.0 * iterations[index] as f64 / last;
        let y = if high > low { CURVE.1 * (high - loss[index].ln()) / (high - low) } else { CURVE.1 / 2.0 };
        let command = if pen_is_up { 'M' } else { 'L' };
        // Writing to a string cannot fail.
        let _ = write!(path, "{command}{x:.0} {y:.0}");
        pen_is_up = false;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_logarithmic_and_have_gaps_where_losses_are_not_numbers() {
        assert_eq!(path(&[1, 2, 3], &[100.0, 10.0, 1.0]), "M50 0L100 20L150 40");
        assert_eq!(path(&[1, 2, 3, 4], &[4.0, f64::NAN, 0.0, 4.0]), "M38 20M150 20");
        assert_eq!(path(&[], &[]), "");
        // A trace cut by hand.
        assert_eq!(path(&[1, 2], &[1.0]), "M75 20");
        let many: Vec<usize> = (1..=1000).collect();
        let losses: Vec<f64> = many.iter().map(|t| 1.0 / *t as f64).collect();
        let path = path(&many, &losses);
        assert!(path.ends_with("L150 40") && path.len() < 500, "{path}");
    }
}

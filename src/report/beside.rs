//! Ours beside the published numbers.

use super::accuracy::{Block, Row, Spread};
use super::statistics::unpaired_noise;
use crate::error::{Error, Result};
use crate::published::{self, CALIB_IMAGES, Kind, Networks, Published, PublishedResult};
use polars::prelude::{Column, DataFrame};
use ptq::methods;
use ptq::recipe::{Bits, Setting};
use serde::Serialize;
use std::collections::BTreeMap;

/// How far our full-precision top-1 may be from a published one of the same checkpoint: image decoders and resizing
/// differ, and so do the published values of one checkpoint.
const SAME_CHECKPOINT: f64 = 0.001;

/// One published number, and ours of the same network, method and bits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Beside {
    pub arch: String,
    /// How many test images the number is of.
    pub test_images: usize,
    pub bits: Bits,
    /// Title of the method, with our variant in brackets.
    pub method: String,
    /// `None`, like source and number, where nothing was published.
    #[serde(serialize_with = "as_text")]
    pub kind: Option<Kind>,
    pub setting: Setting,
    pub source: Option<String>,
    /// A fraction, as are the others.
    pub published: Option<f64>,
    /// Mean over the seeds; `None` where no run of the method is finished.
    pub ours: Option<f64>,
    pub seeds: usize,
    /// Ours minus published, where they may be compared.
    pub difference: Option<f64>,
    /// Why there are both and no difference.
    pub reason: Option<String>,
}

fn as_text<S: serde::Serializer>(kind: &Option<Kind>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    match kind {
        Some(kind) => serializer.collect_str(kind),
        None => serializer.serialize_none(),
    }
}

/// Every published number of the block's network at its bits: kinds apart, then methods from the simplest to the latest,
/// in the order of the file. Empty for networks and data sets of which nothing is published.
pub fn beside(block: &Block, published: &Published) -> Vec<Beside> {
    let Some((networks, arch)) = published_network(block) else { return Vec::new() };
    let reason = reason(block, (networks, arch), published);
    let mut lines: Vec<(&PublishedResult, Beside)> = Vec::new();
    for result in published.results.iter().filter(|result| result.networks == networks) {
        let (Some(top1), Some(column)) =
            (result.top1.get(arch), block.bits.iter().position(|bits| *bits == result.bits))
        else {
            continue;
        };
        let ours: Vec<&Row> = block.rows.iter().filter(|row| row.method == result.method).collect();
        let values = ours.iter().filter_map(|row| Some((row.title(), row.entries[column].summary.as_ref()?)));
        let mut values: Vec<(String, Option<(Spread, usize)>)> =
            values.map(|(title, summary)| (title, Some((summary.test, summary.n)))).collect();
        if values.is_empty() {
            values.push((published::title(&result.method).to_string(), None));
        }
        for (method, ours) in values {
            let mut reasons: Vec<String> = reason.iter().cloned().collect();
            if result.setting != block.setting {
                reasons.push(format!("8-bit setting {} there, {} here", result.setting, block.setting));
            }
            let top1_ours = ours.map(|(spread, _)| spread.mean);
            let line = Beside {
                arch: block.arch.clone(),
                test_images: networks.test_images,
                bits: result.bits,
                method,
                kind: Some(result.kind),
                setting: result.setting,
                source: Some(result.source.clone()),
                published: Some(*top1),
                ours: top1_ours,
                seeds: ours.map_or(0, |(_, n)| n),
                difference: top1_ours.filter(|_| reasons.is_empty()).map(|ours| ours - top1),
                reason: top1_ours.filter(|_| !reasons.is_empty()).map(|_| reasons.join("; ")),
            };
            lines.push((result, line));
        }
    }
    let order = |method: &str| {
        let position = methods::METHODS.iter().position(|known| known.name == method);
        position.unwrap_or(methods::METHODS.len())
    };
    lines.sort_by_key(|(result, _)| (result.kind, order(&result.method)));
    lines.into_iter().map(|(_, line)| line).collect()
}

/// Our results of a network with published numbers of which nothing was published: method and bits together.
pub fn unpublished(block: &Block, published: &Published) -> Vec<Beside> {
    let Some((networks, arch)) = published_network(block) else { return Vec::new() };
    let is_published = |method: &str, bits: Bits| {
        let mut results = published.results.iter().filter(|result| result.networks == networks);
        results.any(|result| result.method == method && result.bits == bits && result.top1.contains_key(arch))
    };
    let entries = block.rows.iter().flat_map(|row| block.bits.iter().zip(&row.entries).map(move |entry| (row, entry)));
    let entries = entries.filter(|(row, (bits, _))| !is_published(&row.method, **bits));
    let lines = entries.filter_map(|(row, (bits, entry))| {
        let summary = entry.summary.as_ref()?;
        Some(Beside {
            arch: block.arch.clone(),
            test_images: networks.test_images,
            bits: *bits,
            method: row.title(),
            kind: None,
            setting: block.setting,
            source: None,
            published: None,
            ours: Some(summary.test.mean),
            seeds: summary.n,
            difference: None,
            reason: None,
        })
    });
    lines.collect()
}

/// A published over-fitting gap, and ours of the same network, method and bits; fractions.
#[derive(Clone, Debug, PartialEq)]
pub struct Overfitting<'a> {
    pub bits: Bits,
    pub method: String,
    pub source: &'a str,
    /// Top-1 on the calibration images minus test.
    pub published: f64,
    /// Mean over the seeds, where a run is finished.
    pub ours: Option<f64>,
}

/// Every published over-fitting gap of the block's network at its bits.
pub fn overfitting<'a>(block: &Block, published: &'a Published) -> Vec<Overfitting<'a>> {
    let Some((_, arch)) = published_network(block) else { return Vec::new() };
    let tables = published.overfits.iter().filter(|table| table.arch == arch);
    let tables = tables.filter_map(|table| Some((table, block.bits.iter().position(|bits| *bits == table.bits)?)));
    let gaps = tables.flat_map(|(table, column)| {
        table.rows.iter().map(move |(method, test, calib)| {
            let own = block.rows.iter().find(|row| row.method == *method && row.variant.is_none());
            Overfitting {
                bits: table.bits,
                method: published::title(method).to_string(),
                source: &table.source,
                published: calib - test,
                ours: own.and_then(|row| Some(row.entries[column].summary.as_ref()?.gap.mean)),
            }
        })
    });
    gaps.collect()
}

/// Published full-precision top-1 of the block's network, with sources.
pub fn full_precision<'a>(block: &Block, published: &'a Published) -> Vec<(&'a str, f64)> {
    let Some((networks, arch)) = published_network(block) else { return Vec::new() };
    let rows = published.full_precision.iter().filter(|row| row.networks == networks);
    rows.filter_map(|row| Some((row.source.as_str(), *row.top1.get(arch)?))).collect()
}

/// What a reader must know of the differences to published numbers; `None` where there are none.
pub fn noise_note(lines: &[Beside]) -> Option<String> {
    let compared = lines.iter().filter(|line| line.difference.is_some());
    let mut noises: BTreeMap<usize, f64> = BTreeMap::new();
    for (test_images, top1) in compared.filter_map(|line| Some((line.test_images, line.published?))) {
        let noise = noises.entry(test_images).or_default();
        *noise = noise.max(unpaired_noise(top1, test_images));
    }
    let noises = noises.into_iter().map(|(test_images, noise)| {
        format!(
            "Differences to published numbers are not paired: on {test_images} images, up to {:.1} points are within the \
             sampling noise of two accuracies (95 %).",
            100.0 * noise
        )
    });
    noises.reduce(|all, note| format!("{all} {note}"))
}

fn published_network(block: &Block) -> Option<(&'static Networks, &'static str)> {
    published::find(&block.dataset, &block.arch)
}

/// Why no number of the block may be compared with published ones.
fn reason(block: &Block, (networks, arch): (&Networks, &str), published: &Published) -> Option<String> {
    let known = published.full_precision.iter().filter(|row| row.networks == networks);
    let known: Vec<f64> = known.filter_map(|row| row.top1.get(arch).copied()).collect();
    let (low, high) = known.iter().fold((f64::MAX, f64::MIN), |(low, high), fp| (low.min(*fp), high.max(*fp)));
    let ours = block.fp_test_top1.unwrap_or(f64::NAN);
    let mut reasons = Vec::new();
    if block.test_images != Some(networks.test_images) {
        let count = block.test_images.map_or("another number of".to_string(), |images| images.to_string());
        reasons.push(format!("measured on {count} test images, there on {}", networks.test_images));
    } else if !known.iter().any(|fp| (fp - ours).abs() <= SAME_CHECKPOINT) {
        let range = match known.is_empty() {
            true => "unknown".to_string(),
            false => format!("{:.2} to {:.2}", 100.0 * low, 100.0 * high),
        };
        reasons.push(format!("another checkpoint: full precision {:.2} here, {range} there", 100.0 * ours));
    }
    if block.calib_images != CALIB_IMAGES {
        reasons.push(format!("{} calibration images, there {CALIB_IMAGES}", block.calib_images));
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// One row per published number; accuracies are fractions.
pub fn frame(lines: &[Beside]) -> Result<DataFrame> {
    let text = |name: &str, of: &dyn Fn(&Beside) -> String| {
        Column::new(name.into(), lines.iter().map(of).collect::<Vec<String>>())
    };
    let number = |name: &str, of: &dyn Fn(&Beside) -> Option<f64>| {
        Column::new(name.into(), lines.iter().map(of).collect::<Vec<Option<f64>>>())
    };
    let columns = vec![
        text("arch", &|line| line.arch.clone()),
        text("bits", &|line| line.bits.to_string()),
        text("method", &|line| line.method.clone()),
        text("kind", &|line| line.kind.map_or(String::new(), |kind| kind.to_string())),
        text("setting", &|line| line.setting.to_string()),
        text("source", &|line| line.source.clone().unwrap_or_default()),
        number("published_top1", &|line| line.published),
        number("test_top1_mean", &|line| line.ours),
        Column::new("n".into(), lines.iter().map(|line| line.seeds as u64).collect::<Vec<_>>()),
        number("difference", &|line| line.difference),
        Column::new("not_compared".into(), lines.iter().map(|line| line.reason.clone()).collect::<Vec<_>>()),
    ];
    DataFrame::new(lines.len(), columns).map_err(|error| Error::Report(format!("cannot make a data frame: {error}")))
}

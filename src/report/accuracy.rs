//! The accuracy table: methods against bit widths, mean and standard deviation over seeds.

use crate::error::Result;
use crate::experiment::Metric;
use crate::store::record::{Record, Status};
use polars::prelude::*;
use ptq::methods;
use ptq::recipe::{Bits, Setting};
use std::collections::{BTreeMap, BTreeSet};

/// Runs that may stand in one table: same network, data, setting and number of calibration images.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    pub arch: String,
    pub weights: String,
    pub weights_sha256: String,
    pub dataset: String,
    pub setting: Setting,
    pub calib_images: usize,
    /// Full-precision top-1 on the test set, if any run is finished.
    pub fp_test_top1: Option<f64>,
    /// How many test images, likewise.
    pub test_images: Option<usize>,
    /// From many bits to few.
    pub bits: Vec<Bits>,
    /// In the order of [`methods::METHODS`].
    pub rows: Vec<Row>,
}

/// One method, or one variant of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub method: String,
    /// The variant's name, and what else tells the row from others of its method.
    pub variant: Option<String>,
    /// Per entry of [`Block::bits`].
    pub entries: Vec<Entry>,
}

/// One configuration over its seeds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// `None` unless a run is finished.
    pub summary: Option<Summary>,
    /// Run id and error of each failed run.
    pub failed: Vec<(String, String)>,
}

/// Top-1 over the finished runs of an entry, as fractions.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    pub n: usize,
    pub test: Spread,
    pub calib: Spread,
    /// Calibration minus test.
    pub gap: Spread,
}

/// Mean and sample standard deviation (`n - 1`; `None` for one value).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub mean: f64,
    pub std: Option<f64>,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Self { mean, std: (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()) }
    }

    /// In another unit.
    pub fn scaled(self, factor: f64) -> Self {
        Self { mean: factor * self.mean, std: self.std.map(|std| factor * std) }
    }
}

impl Row {
    /// As printed: `QDrop`, or `QDrop (no-drop)` for a variant.
    pub fn title(&self) -> String {
        let method = methods::find(&self.method).map_or(self.method.as_str(), |method| method.title);
        match &self.variant {
            None => method.to_string(),
            Some(variant) => format!("{method} ({variant})"),
        }
    }
}

impl Block {
    /// Whether the entry of `row` is the best of column `column` (ties included).
    pub fn is_best(&self, row: &Row, column: usize, value: impl Fn(&Summary) -> f64) -> bool {
        let entry = |row: &Row| row.entries[column].summary.as_ref().map(&value);
        let best = self.rows.iter().filter_map(entry).fold(f64::NEG_INFINITY, f64::max);
        entry(row) == Some(best)
    }
}

/// Groups `records` into blocks, in the order in which the first record comes that has their network, data and setting, and from few
/// calibration images to many.
pub fn blocks(records: &[Record]) -> Vec<Block> {
    let mut families = Vec::new();
    let mut groups: BTreeMap<(usize, usize), Vec<&Record>> = BTreeMap::new();
    for record in records {
        let cell = &record.cell;
        let own = (&cell.arch, &record.hashes.weights, &cell.dataset, cell.setting);
        let family = families.iter().position(|family| *family == own).unwrap_or_else(|| {
            families.push(own);
            families.len() - 1
        });
        groups.entry((family, cell.calib_images)).or_default().push(record);
    }
    groups.into_values().map(|members| block(&members)).collect()
}

/// Of records that differ in bits, method, variant and seed at most.
fn block(members: &[&Record]) -> Block {
    let Record { cell, hashes, .. } = members[0];
    let mut block = Block {
        arch: cell.arch.clone(),
        weights: cell.weights.clone(),
        weights_sha256: hashes.weights.clone(),
        dataset: cell.dataset.clone(),
        setting: cell.setting,
        calib_images: cell.calib_images,
        fp_test_top1: None,
        test_images: None,
        bits: Vec::new(),
        rows: Vec::new(),
    };
    let metrics = members.iter().find_map(|record| record.metrics.as_ref());
    block.fp_test_top1 = metrics.map(|metrics| metrics.fp_test_top1);
    block.test_images = metrics.map(|metrics| metrics.test_images);
    block.bits = members.iter().map(|record| record.cell.bits).collect();
    block.bits.sort_by_key(|bits| std::cmp::Reverse((bits.w + bits.a, bits.w)));
    block.bits.dedup();
    let position = |name: &str| methods::METHODS.iter().position(|method| method.name == name);
    let variants = variants(members);
    let mut names: Vec<(String, Option<String>)> =
        members.iter().zip(&variants).map(|(record, variant)| (record.cell.method.clone(), variant.clone())).collect();
    names.sort_by_key(|(method, variant)| (position(method), variant.clone()));
    names.dedup();
    block.rows = names
        .into_iter()
        .map(|(method, variant)| {
            let entry = |bits: &Bits| {
                let of = |(record, own): &(&&Record, &Option<String>)| {
                    record.cell.bits == *bits && record.cell.method == method && **own == variant
                };
                entry(&members.iter().zip(&variants).filter(of).map(|(record, _)| *record).collect::<Vec<_>>())
            };
            Row { entries: block.bits.iter().map(entry).collect(), method, variant }
        })
        .collect();
    block
}

/// Per record what tells it from others of its method: the name of its variant, and the fields in which the runs of that
/// variant differ (`drop-input 0.5`), since an entry is a mean over seeds and never over configurations.
fn variants(members: &[&Record]) -> Vec<Option<String>> {
    // Told apart by blocks, rows and columns already, or averaged over.
    const KNOWN: [&str; 10] =
        ["arch", "weights", "dataset", "data", "bits", "method", "variant", "setting", "calib-images", "seed"];
    let fields: Vec<BTreeMap<String, String>> = members
        .iter()
        .map(|record| {
            let mut fields = record.cell.fields();
            fields.retain(|key, _| !KNOWN.contains(&key.as_str()));
            fields
        })
        .collect();
    let name = |record: &Record| (record.cell.method.clone(), record.cell.variant.clone());
    let mut differing: BTreeMap<(String, Option<String>), (usize, BTreeSet<String>)> = BTreeMap::new();
    for (index, record) in members.iter().enumerate() {
        let (first, keys) = differing.entry(name(record)).or_insert((index, BTreeSet::new()));
        let both = fields[*first].keys().chain(fields[index].keys());
        keys.extend(both.filter(|key| fields[*first].get(*key) != fields[index].get(*key)).cloned());
    }
    let variant = |(record, fields): (&&Record, &BTreeMap<String, String>)| {
        let keys = differing.get(&name(record)).map(|(_, keys)| keys).into_iter().flatten();
        let value = |key: &String| {
            let value = fields.get(key).map_or("none", String::as_str);
            format!("{} {value}", key.trim_start_matches("recipe."))
        };
        let parts: Vec<String> = record.cell.variant.iter().cloned().chain(keys.map(value)).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    };
    members.iter().zip(&fields).map(variant).collect()
}

fn entry(runs: &[&Record]) -> Entry {
    let failed = runs.iter().filter(|run| run.status == Status::Failed);
    let failed = failed.map(|run| (run.run_id.clone(), run.error.clone().unwrap_or_default())).collect();
    let n = runs.iter().filter(|run| run.metrics.is_some()).count();
    let spread =
        |metric: Metric| Spread::of(&runs.iter().filter_map(|run| run.fact(metric.fact())).collect::<Vec<_>>());
    let summary = (n > 0).then(|| Summary {
        n,
        test: spread(Metric::TEST),
        calib: spread(Metric::CALIB),
        gap: spread(Metric::GAP),
    });
    Entry { summary, failed }
}

/// The table in long form, one row per entry that has a finished run; accuracies are fractions.
pub fn long_frame(blocks: &[Block]) -> Result<DataFrame> {
    let entries: Vec<(&Block, &Row, Bits, &Summary)> = blocks
        .iter()
        .flat_map(|block| block.rows.iter().map(move |row| (block, row)))
        .flat_map(|(block, row)| {
            let entries = block.bits.iter().zip(&row.entries);
            entries.filter_map(move |(bits, entry)| Some((block, row, *bits, entry.summary.as_ref()?)))
        })
        .collect();
    let text = |name: &str, f: &dyn Fn(&Block, &Row, Bits) -> String| {
        Column::new(name.into(), entries.iter().map(|(block, row, bits, _)| f(block, row, *bits)).collect::<Vec<_>>())
    };
    let number = |name: &str, f: &dyn Fn(&Summary) -> Option<f64>| {
        Column::new(name.into(), entries.iter().map(|(.., summary)| f(summary)).collect::<Vec<_>>())
    };
    let columns = vec![
        text("arch", &|block, _, _| block.arch.clone()),
        text("dataset", &|block, _, _| block.dataset.clone()),
        text("setting", &|block, _, _| block.setting.to_string()),
        Column::new(
            "calib_images".into(),
            entries.iter().map(|(block, ..)| block.calib_images as u64).collect::<Vec<_>>(),
        ),
        text("bits", &|_, _, bits| bits.to_string()),
        text("method", &|_, row, _| row.method.clone()),
        Column::new("variant".into(), entries.iter().map(|(_, row, ..)| row.variant.clone()).collect::<Vec<_>>()),
        Column::new("n".into(), entries.iter().map(|(.., summary)| summary.n as u64).collect::<Vec<_>>()),
        number("test_top1_mean", &|s| Some(s.test.mean)),
        number("test_top1_std", &|s| s.test.std),
        number("calib_top1_mean", &|s| Some(s.calib.mean)),
        number("gap_mean", &|s| Some(s.gap.mean)),
    ];
    DataFrame::new(entries.len(), columns)
        .map_err(|error| crate::Error::Report(format!("cannot make a data frame: {error}")))
}

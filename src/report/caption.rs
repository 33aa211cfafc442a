//! What stands around a table: which experiment it is of, and what a reader must know to trust it.

use super::accuracy::Block;
use super::statistics::unpaired_noise;
use crate::data;
use crate::store::record::Record;
use ptq::arch;
use ptq::recipe::Setting;
use std::collections::{BTreeMap, BTreeSet};

/// Network, data, which layers stay at 8 bits, calibration sample and checkpoint.
pub fn caption(block: &Block) -> String {
    let title = arch::find(&block.arch).map_or(block.arch.as_str(), |arch| arch.title);
    let dataset = data::find(&block.dataset).map_or(block.dataset.as_str(), |dataset| dataset.title);
    let spared = match block.setting {
        Setting::Qdrop => "the first and last layers' weights and the last layer's input stay at 8 bits",
        Setting::Brecq => "the first and last layers' weights and the second and last layers' inputs stay at 8 bits",
    };
    // The one published recipe whose quantizers differ from its setting.
    let brecq = block.rows.iter().any(|row| row.method == "brecq");
    let exception = match arch::find(&block.arch).filter(|_| brecq).map(|arch| arch.family) {
        Some(arch::Family::ResNet) => {
            "; BRECQ, as published, leaves the last layer's input of ResNets at the activations' width"
        }
        Some(arch::Family::RegNet) => {
            "; BRECQ, as published, leaves the last layer's input of RegNets at the activations' width"
        }
        Some(arch::Family::MnasNet) => {
            "; BRECQ, as published, reconstructs MNasNet layer by layer and quantizes what layers compute, but no sum"
        }
        Some(arch::Family::MobileNetV2) | None => "",
    };
    format!(
        "{title} on {dataset}: top-1 in percent. Setting \"{}\": {spared}{exception}. {} calibration images; {} weights, \
         SHA-256 {:.8}.",
        block.setting, block.calib_images, block.weights, block.weights_sha256
    )
}

/// How many seeds an entry has, where not all have the same number; revisions of the harness, where there are several.
pub fn notes(records: &[Record], blocks: &[Block]) -> Vec<String> {
    let mut notes = Vec::new();
    let entries = blocks.iter().flat_map(|block| &block.rows).flat_map(|row| &row.entries);
    let counts: BTreeSet<usize> = entries.map(|entry| entry.summary.as_ref().map_or(0, |summary| summary.n)).collect();
    match (counts.iter().max(), counts.len()) {
        (Some(n), 1) => notes
            .push(format!("Each entry is of {n} seed{}.", if *n == 1 { "" } else { "s: mean ± standard deviation" })),
        (Some(n), _) => notes.push(format!(
            "Entries are of up to {n} seeds (their number in brackets where it is less): mean ± standard deviation."
        )),
        (None, _) => {}
    }
    let revisions: BTreeSet<&str> = records.iter().map(|record| record.provenance.git_revision.as_str()).collect();
    if revisions.len() > 1 {
        let listed: Vec<&str> = revisions.iter().copied().collect();
        notes.push(format!("The runs come from different revisions of the harness: {}.", listed.join(", ")));
    }
    if revisions.iter().any(|revision| revision.ends_with("-dirty")) {
        notes.push("Some runs were made with uncommitted changes (revisions that end in -dirty).".to_string());
    }
    notes
}

/// Which methods ran with other values than their published recipe, and in which fields.
pub fn departures_note(records: &[Record]) -> Option<String> {
    let mut by_fields: BTreeMap<Vec<String>, BTreeSet<String>> = BTreeMap::new();
    for cell in records.iter().map(|record| &record.cell) {
        let departures = cell.departures();
        if !departures.is_empty() {
            let variant = cell.variant.as_ref().map_or(String::new(), |variant| format!(" ({variant})"));
            let title = format!("{}{variant}", crate::published::title(&cell.method));
            by_fields.entry(departures).or_default().insert(title);
        }
    }
    let listed = by_fields.iter().map(|(fields, titles)| {
        let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
        format!("{}: {}", titles.join(", "), fields.join(", "))
    });
    let listed: Vec<String> = listed.collect();
    (!listed.is_empty()).then(|| format!("Not the published recipe: {}.", listed.join("; ")))
}

/// From which difference on two accuracies that are not paired differ at all: on the smallest test set, for the accuracy
/// whose sampling noise is largest.
pub fn unpaired_note(records: &[Record]) -> Option<String> {
    let metrics = records.iter().filter_map(|record| record.metrics.as_ref()).filter(|metrics| metrics.test_images > 0);
    let noises = metrics.map(|metrics| (unpaired_noise(metrics.test_top1, metrics.test_images), metrics.test_images));
    let (noise, images) = noises.max_by(|a, b| a.0.total_cmp(&b.0))?;
    Some(format!(
        "On {images} test images, two accuracies that are compared without pairing the images differ by up to {:.1} points \
         by chance (95 %); `harness compare` pairs them.",
        100.0 * noise
    ))
}

/// The largest number of seeds of any entry.
pub fn most_seeds(blocks: &[Block]) -> usize {
    let entries = blocks.iter().flat_map(|block| &block.rows).flat_map(|row| &row.entries);
    entries.filter_map(|entry| entry.summary.as_ref()).map(|summary| summary.n).max().unwrap_or(0)
}

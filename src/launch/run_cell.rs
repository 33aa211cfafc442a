//! One cell, from its inputs to its metrics.

use super::evaluate::{EVAL_BATCH, evaluate, predict, top1};
use super::gate::{FullPrecisionCache, check_folding};
use super::inputs::{Inputs, Loader};
use super::ranges::RangeCache;
use super::transform::TransformCache;
use super::usage::sensible_memory_bytes;
use crate::data::preprocess::Preprocess;
use crate::error::{Error, Result};
use crate::experiment::{Cell, Keep};
use crate::store::record::Metrics;
use crate::store::removal::over_limit;
use crate::store::{Pictures, Predictions};
use candle_core::Tensor;
use ptq::augment::Normalisation;
use ptq::checkpoint::{Saved, save};
use ptq::graph::Network;
use ptq::graph::fold_bn::fold_bn;
use ptq::meta::config::Meta;
use ptq::meta::nets::TransformNet;
use ptq::meta::terms::Terms;
use ptq::meta::train::Trainable;
use ptq::ops::device::set_precision;
use ptq::quant::diagnosis::Diagnosis;
use ptq::quant::model::{Mode, QuantModel};
use ptq::quantize::added::{Added, transformed};
use ptq::quantize::resume::TrainedUnits;
use ptq::quantize::{Calibration, reconstruct};
use ptq::recon::activations::Memory;
use ptq::recon::event::{Control, Event};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tracing::info_span;

/// Images that a cell's pictures show.
const PICTURES: usize = 8;
/// How large transform networks and ranges together may grow.
const CACHE_LIMIT_BYTES: u64 = 2 << 30;
/// Calibration images that a diagnosis looks at.
const DIAGNOSED: usize = 64;

/// What the cells of a process share: results remembered in a folder, and the memory for activations.
pub struct Resources {
    pub full_precision: FullPrecisionCache,
    pub transforms: TransformCache,
    pub ranges: RangeCache,
    pub memory: Memory,
    /// Images per pass of an evaluation, at most; without influence on any result.
    pub eval_batch: usize,
    /// Those of the folder's parts that grow.
    growing: [PathBuf; 2],
}

impl Resources {
    /// `memory_bytes`: how much of the activations of calibration images is kept in memory, that of a GPU where it computes, which then has
    /// a quarter of the host's free memory beside. The rest goes to a file without a name in `folder`.
    pub fn new(folder: &Path, memory_bytes: u64) -> Self {
        Self {
            full_precision: FullPrecisionCache::new(folder),
            transforms: TransformCache::new(folder),
            ranges: RangeCache::new(folder),
            // Several processes may share a machine.
            memory: Memory::with_pinned(memory_bytes, sensible_memory_bytes() / 2, &folder.join("activations")),
            eval_batch: EVAL_BATCH,
            growing: [TransformCache::folder(folder), RangeCache::folder(folder)],
        }
    }

    /// The folders below `folder` that entries are kept in.
    pub fn parts(folder: &Path) -> Vec<PathBuf> {
        let all = [FullPrecisionCache::folder, TransformCache::folder, RangeCache::folder, Loader::cache];
        all.map(|part| part(folder)).into()
    }

    /// Removes the least recently used of what has grown beyond 2 GiB. What another process removes first is no error.
    fn trim(&self) {
        for entry in over_limit(&self.growing, CACHE_LIMIT_BYTES) {
            entry.remove().ok();
        }
    }
}

/// What a finished cell leaves.
pub struct CellResult {
    pub metrics: Metrics,
    pub predictions: Predictions,
    pub preprocess: Preprocess,
    /// What quantizing did to each layer.
    pub diagnosis: Diagnosis,
    /// Of the transform network, if there is one.
    pub pictures: Option<Pictures>,
    /// The quantized network, where it is kept.
    pub model: Option<Saved>,
    /// The transform network, where there is one and it is kept.
    pub transform: Option<HashMap<String, Tensor>>,
}

/// Checks the inputs, quantizes the network as the cell says, going on from what is there of an `earlier` attempt, and measures it; the
/// networks that `keep` names are part of the result.
pub fn run_cell(
    cell: &Cell,
    inputs: &Inputs,
    resources: &Resources,
    keep: Keep,
    earlier: Option<&dyn TrainedUnits>,
    control: &Control,
) -> Result<CellResult> {
    set_precision(inputs.calib.images.device(), cell.precision)?;
    let (network, fp_test_top1) = checked(cell, inputs, resources, control)?;
    let net = resources.transforms.network(cell, inputs, control)?;
    let normalisation = Normalisation { mean: inputs.preprocess.mean.clone(), std: inputs.preprocess.std.clone() };
    let calib = Calibration {
        images: &inputs.calib.images,
        memory: &resources.memory,
        trained: &inputs.network,
        added: Added {
            augment: &cell.augment,
            normalisation: Some(&normalisation),
            transform: trainable(cell, net.as_ref()),
            labels: &inputs.calib.labels,
        },
    };
    let model = info_span!("starting ranges").in_scope(|| resources.ranges.prepared(cell, &network, inputs))?;
    resources.trim();
    let train = || reconstruct(model, &calib, &cell.recipe, cell.seed, earlier, control);
    let model = info_span!("reconstruction").in_scope(train)?;
    let measure = || measured(&model, inputs, fp_test_top1, resources.eval_batch, control);
    let (metrics, predictions) = info_span!("evaluation").in_scope(measure)?;
    let diagnosis = info_span!("diagnosis").in_scope(|| diagnosed(&model, calib.images))?;
    let pictures = calib.added.transform.as_ref().map(|transform| pictures(transform, calib.images, control));
    let (channels, height, width) = inputs.test.size();
    let placed = (cell.bits, cell.recipe.batch_norm);
    let save_model = || Ok::<_, Error>(save(&model, network.arch, [channels, height, width], placed)?);
    let kept_net = net.as_ref().filter(|_| keep.transform);
    Ok(CellResult {
        metrics,
        predictions,
        preprocess: inputs.preprocess.clone(),
        diagnosis,
        pictures: pictures.transpose()?,
        model: keep.model.then(save_model).transpose()?,
        transform: kept_net.map(|net| net.parameters.tensors()).transpose()?,
    })
}

/// The network folded as `cell` says, and its accuracy in full precision; tells which images were skipped.
///
/// Errors: accuracy or folding is not as it must be, see [`super::gate`].
fn checked(cell: &Cell, inputs: &Inputs, resources: &Resources, control: &Control) -> Result<(Network, f64)> {
    let skipped = inputs.sample.skipped.iter().cloned();
    skipped.for_each(|problem| (control.observe)(Event::Skipped { problem }));
    let measure = || resources.full_precision.accuracy(inputs, resources.eval_batch, control);
    let fp_test_top1 = info_span!("full-precision accuracy").in_scope(measure)?;
    let network = fold_bn(&inputs.network, cell.recipe.batch_norm)?;
    let check = || check_folding(&inputs.network, &network, &inputs.calib.images, control);
    info_span!("check of BatchNorm folding").in_scope(check)?;
    Ok((network, fp_test_top1))
}

/// The classes that the quantized network gives test and calibration images, and how many are right.
fn measured(
    model: &QuantModel,
    inputs: &Inputs,
    fp_test_top1: f64,
    eval_batch: usize,
    control: &Control,
) -> Result<(Metrics, Predictions)> {
    let quantized = |x: &Tensor| model.logits(x, Mode::HARD);
    let calib = predict(&inputs.calib, eval_batch, control, quantized)?;
    let test = evaluate(&inputs.test, eval_batch, control, quantized)?;
    let metrics = Metrics {
        fp_test_top1,
        test_top1: test.top1(),
        calib_top1: top1(&calib, &inputs.calib.labels),
        test_images: test.classes.len(),
        skipped_images: test.skipped,
        skipped_calib_images: inputs.sample.skipped.len(),
    };
    let predictions = Predictions {
        test: test.classes,
        calib,
        test_labels: test.labels,
        calib_labels: inputs.calib.labels.clone(),
        calib_indices: inputs.sample.indices.clone(),
    };
    Ok((metrics, predictions))
}

/// What quantizing did to each layer, seen on the first calibration images.
fn diagnosed(model: &QuantModel, images: &Tensor) -> Result<Diagnosis> {
    let n = images.dim(0)?.min(DIAGNOSED);
    Ok(Diagnosis::new(model, &images.narrow(0, 0, n)?)?)
}

/// The first calibration images beside their transforms.
fn pictures(transform: &Trainable, images: &Tensor, control: &Control) -> Result<Pictures> {
    // A whole batch goes through the network, whose BatchNorm layers see batches.
    let n = images.dim(0)?.min(transform.meta.batch);
    let t_x = transformed(transform, &images.narrow(0, 0, n)?, control)?;
    let shown = n.min(PICTURES);
    Ok(Pictures { x: images.narrow(0, 0, shown)?, t_x: t_x.narrow(0, 0, shown)? })
}

/// The transform network of `cell` with its training.
pub(super) fn trainable<'a>(cell: &'a Cell, net: Option<&'a TransformNet>) -> Option<Trainable<'a>> {
    let (meta, terms): (&Meta, &Terms) = (cell.meta.as_ref()?, cell.terms.as_ref()?);
    Some(Trainable { net: net?, meta, terms })
}

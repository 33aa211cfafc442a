//! One cell, from its inputs to its metrics.

use super::evaluate::{predict, top1};
use super::gate::{FullPrecisionCache, check_folding};
use super::inputs::Inputs;
use crate::error::Result;
use crate::experiment::Cell;
use crate::graph::fold_bn::fold_bn;
use crate::quant::model::Mode;
use crate::recon::event::Control;
use crate::recon::quantize;
use crate::store::Predictions;
use crate::store::record::{Metrics, UnitTrace};

/// What a finished cell leaves.
pub struct CellResult {
    pub metrics: Metrics,
    pub traces: Vec<UnitTrace>,
    pub predictions: Predictions,
}

/// Checks the inputs, quantizes the network as the cell says, and measures it.
pub fn run_cell(cell: &Cell, inputs: &Inputs, cache: &FullPrecisionCache, control: &Control) -> Result<CellResult> {
    let fp_test_top1 = cache.accuracy(inputs, control)?;
    let network = fold_bn(&inputs.network, cell.recipe.batch_norm)?;
    check_folding(&inputs.network, &network, &inputs.calib.images, control)?;
    let (model, traces) =
        quantize(&network, &inputs.calib.images, (cell.bits, cell.setting), &cell.recipe, cell.seed, control)?;
    let quantized = |x: &_| model.units.iter().try_fold(Clone::clone(x), |x, unit| unit.forward(&x, Mode::HARD));
    let calib = predict(&inputs.calib, control, quantized)?;
    let test = predict(&inputs.test, control, quantized)?;
    let metrics = Metrics {
        fp_test_top1,
        test_top1: top1(&test, &inputs.test.labels),
        calib_top1: top1(&calib, &inputs.calib.labels),
        test_images: test.len(),
    };
    let (test_labels, calib_labels) = (inputs.test.labels.clone(), inputs.calib.labels.clone());
    Ok(CellResult { metrics, traces, predictions: Predictions { test, calib, test_labels, calib_labels } })
}

//! What a kept transform network does, for `evaluate --transformed`.

use crate::data::Split;
use crate::error::Result;
use crate::experiment::Cell;
use crate::launch::{EVAL_BATCH, Transformed, predict, top1};
use crate::store::SavedTransform;
use candle_core::Tensor;
use comfy_table::{Table, presets};
use ptq::graph::Network;
use ptq::graph::forward::through;
use ptq::quant::model::{Mode, QuantModel};
use ptq::recon::event::Control;

/// Says how far `transform` moves the calibration images of `cell`, which the quantized network took for `classes`, and what it and the
/// full-precision network, if that is to be had, make of both.
pub fn print(
    cell: &Cell,
    transform: &SavedTransform,
    (images, classes): (&Split, &[u32]),
    (model, full_precision): (&QuantModel, Option<&Network>),
    control: &Control,
) -> Result<()> {
    let transformed = Transformed::new(cell, &transform.net, images, control)?;
    let sha256 =
        transform.sha256.as_deref().map_or("no SHA-256 to compare: kept by an older harness".to_string(), |sha256| {
            format!("SHA-256 {sha256:.16}, as its file says")
        });
    say!("transform          {}, {sha256}", transform.net.config.net.0.name);
    say!(
        "change of pixels   {:.4} on average, {:.4} at most, of normalised images",
        transformed.mean_change,
        transformed.largest_change
    );
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["", "originals", "transformed", "same class"]);
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let mut add = |what: &str, shares: [String; 3]| {
        table.add_row([what.to_string()].into_iter().chain(shares));
    };
    let quantized = transformed.compared(classes, control, |x: &Tensor| model.logits(x, Mode::HARD))?;
    let shares = [quantized.top1, quantized.transformed_top1, quantized.unchanged].map(percent);
    add("quantized top-1", shares);
    if let Some(network) = full_precision {
        let logits = |x: &Tensor| through(network.units.iter(), x);
        let own = predict(images, EVAL_BATCH, control, logits)?;
        let compared = transformed.compared(&own, control, logits)?;
        add("full precision", [compared.top1, compared.transformed_top1, compared.unchanged].map(percent));
        let both = [top1(classes, &own), top1(&quantized.classes, &compared.classes)].map(percent);
        let [originals, of_transformed] = both;
        add("both agree", [originals, of_transformed, String::new()]);
    }
    say!("{table}");
    Ok(())
}

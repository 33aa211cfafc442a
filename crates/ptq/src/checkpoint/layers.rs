//! What quantizing did to each layer: bits, bytes, and how far its weight is from the full-precision one.

use crate::error::{Error, Result};
use crate::graph::Network;
use crate::quant::diagnosis::sqnr_db;
use crate::quant::model::QuantModel;
use crate::quant::packing::packed_len;

/// A convolution or linear layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    pub node: String,
    pub shape: Vec<usize>,
    /// `None`: not quantized.
    pub bits: Option<u32>,
    /// Of levels, scales and zero points, or of the weight itself.
    pub bytes: usize,
    /// Signal-to-quantization-noise ratio of the weight in decibels, infinite where it is the full-precision one; `None` without that.
    pub sqnr_db: Option<f64>,
}

impl Layer {
    /// Number of weights.
    pub fn weights(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The layers of `model`, beside those of `full_precision`, whose BatchNorm is folded as the model's.
///
/// Errors: a network without one of these layers, or with one of another shape.
pub fn layers(model: &QuantModel, full_precision: Option<&Network>) -> Result<Vec<Layer>> {
    let originals = full_precision.map(|network| network.units.iter().flat_map(|unit| &unit.nodes).collect::<Vec<_>>());
    let mut layers = Vec::new();
    for unit in &model.units {
        for (node, quantizer) in unit.fp.nodes.iter().zip(&unit.weights) {
            let Some(own) = node.op.weight() else { continue };
            let weight = quantizer.as_ref().map_or_else(|| Ok(own.clone()), |quantizer| quantizer.hard())?;
            let sqnr_db = originals.as_ref().map(|originals| {
                let original =
                    originals.iter().find(|other| other.name == node.name).and_then(|other| other.op.weight());
                match original.filter(|original| original.dims() == weight.dims()) {
                    Some(original) => sqnr_db(original, &weight),
                    None => Err(Error::Shape {
                        op: "layers",
                        problem: format!(
                            "the full-precision network has no {} of shape {:?}",
                            node.name,
                            weight.dims()
                        ),
                    }),
                }
            });
            let shape = weight.dims().to_vec();
            let bits = quantizer.as_ref().map(|quantizer| quantizer.bits);
            let (count, channels) = (weight.elem_count(), shape.first().copied().unwrap_or(0));
            let bytes = match bits {
                Some(bits) => packed_len(count, bits).unwrap_or(usize::MAX) + channels * 2 * size_of::<f32>(),
                None => count * size_of::<f32>(),
            };
            layers.push(Layer { node: node.name.clone(), shape, bits, bytes, sqnr_db: sqnr_db.transpose()? });
        }
    }
    Ok(layers)
}

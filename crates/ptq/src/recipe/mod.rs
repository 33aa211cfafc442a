//! How a unit is reconstructed: one value per method, one field per axis on which the published methods differ.
//!
//! [`crate::methods`] holds the published values; a grid may override any field ([`RecipeOverride`]).

mod bits;
mod bounds;
mod overridable;

pub use bits::{Bits, Setting};
pub use bounds::{Bounds, Number};
pub(crate) use overridable::overridable;

use crate::ops::fake_quant::ClipOrder;
use serde::{Deserialize, Serialize};

overridable! {
    /// How a network is quantized. Source of the axes: the table in the methods' papers and published code.
    Recipe, RecipeOverride {
        /// What is optimised at once.
        granularity: Granularity,
        /// Whether BatchNorm is folded into the weights before they are quantized.
        batch_norm: BatchNormMode,
        /// Where activations are quantized.
        placement: Placement,
        /// Whether the classifier's input is kept at 8 bits.
        classifier_input_8bit: bool,
        /// Search for the weights' starting scales, per output channel.
        weight_search: RangeSearch,
        /// Search for the activations' starting scales, per tensor.
        act_search: RangeSearch,
        /// How many calibration images the activation search sees.
        act_search_images: usize => Bounds::counts_from(1),
        /// What is upstream of a tensor while its range is searched.
        act_search_prefix: SearchPrefix,
        /// Order of rounding and clipping in activation quantizers; it decides where the gradient of `clip` is cut.
        act_clip: ClipOrder,
        /// What a unit reads while its weights are optimised.
        unit_input: Prefix,
        /// Whether activations inside the unit are quantized while its weights are optimised.
        quantize_acts: bool,
        /// Whether the stem is reconstructed, or only rounded to nearest.
        reconstruct_stem: bool,
        /// Where the error of a convolution is measured that is trained alone: as the only layer of its unit, or layer by layer.
        #[serde(default, skip_serializing_if = "is_zero")]
        conv_target: ConvTarget,
        /// What `drop-input` mixes at the classifier.
        #[serde(default, skip_serializing_if = "is_zero")]
        classifier_mix: ClassifierMix,
        /// Adam steps per unit.
        iterations: usize => Bounds::counts_from(0),
        /// Calibration images per step.
        batch: usize => Bounds::counts_from(0),
        /// How mini-batches are drawn.
        sampling: Sampling,
        /// What is minimised.
        loss: Loss,
        /// Exponent of the reconstruction error.
        loss_exponent: f64 => Bounds::From(1.0),
        /// Constant added to `|dL/dy|` in the Fisher-weighted loss.
        fisher_damping: f64 => Bounds::From(0.0),
        /// Probability that an element of a quantized activation inside a unit is left in full precision.
        drop_inside: f64 => Bounds::Fraction,
        /// Probability that an element of a unit's input is taken from the full-precision prefix.
        drop_input: f64 => Bounds::Fraction,
        /// How weights are rounded.
        #[serde(default, skip_serializing_if = "is_zero")]
        rounding: RoundingName,
        /// Learning rate of what the rounding learns (AdaRound's logits `alpha`, FlexRound's divisors); 0 keeps rounding to nearest.
        alpha_lr: f64 => Bounds::From(0.0),
        /// Learning rate of the weight scales, with cosine decay to 0; 0 keeps them fixed.
        weight_scale_lr: f64 => Bounds::From(0.0),
        /// Learning rate of the activation scales, with cosine decay to 0; 0 keeps them fixed.
        act_scale_lr: f64 => Bounds::From(0.0),
        /// Whether LSQ's gradient is multiplied by `1 / sqrt(numel * q_max)`.
        lsq_gradient_factor: bool,
        /// Weight of the rounding regulariser.
        round_weight: f64 => Bounds::From(0.0),
        /// Fraction of the iterations before the regulariser sets in.
        round_warmup: f64 => Bounds::Fraction,
        /// Exponent `beta` of the regulariser when it sets in.
        round_beta_start: f64 => Bounds::From(1.0),
        /// Exponent `beta` of the regulariser at the end.
        round_beta_end: f64 => Bounds::From(1.0),
        /// Length of a second phase that trains activation scales alone, as a fraction of `iterations`; 0 for none.
        act_phase_frac: f64 => Bounds::From(0.0),
        /// Learning rate of that phase, with cosine decay to 0.
        act_phase_lr: f64 => Bounds::From(0.0),
        /// Exponent of the reconstruction error in that phase.
        act_phase_exponent: f64 => Bounds::From(1.0),
        /// Weight of the prediction difference, `1 / lambda_r` of PD-Quant; 0 for none.
        #[serde(default, skip_serializing_if = "is_zero")]
        prediction_weight: f64 => Bounds::From(0.0),
        /// What its logits are divided by.
        #[serde(default, skip_serializing_if = "is_zero")]
        prediction_temperature: f64 => Bounds::From(0.0),
        /// Adam steps of the distribution correction of a unit's full-precision inputs; 0 for none.
        #[serde(default, skip_serializing_if = "is_zero")]
        correction_iterations: usize => Bounds::counts_from(0),
        /// Learning rate of these steps.
        #[serde(default, skip_serializing_if = "is_zero")]
        correction_lr: f64 => Bounds::From(0.0),
        /// What the distance of a corrected input from the original one is divided by.
        #[serde(default, skip_serializing_if = "is_zero")]
        correction_lambda: f64 => Bounds::From(0.0),
    }
}

/// Fields that came later are left out where they are off, or at what was done before, so that the ids of runs without them stay.
pub(crate) fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Recipe {
    /// The rounding, unless nothing trains it: then rounding to nearest.
    pub fn learned_rounding(&self) -> RoundingName {
        match self.granularity == Granularity::None || self.alpha_lr == 0.0 {
            true => RoundingName::Nearest,
            false => self.rounding,
        }
    }

    /// Adam steps per unit of the second phase.
    pub fn act_phase_iterations(&self) -> usize {
        (self.iterations as f64 * self.act_phase_frac).round() as usize
    }
}

/// How weights are rounded; each is a file of [`crate::quant::weight`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoundingName {
    /// Up or down, softly while it is learned (AdaRound).
    #[default]
    Adaround,
    /// To nearest, divided by learned numbers first (FlexRound).
    Flexround,
    /// To nearest; nothing is learned.
    Nearest,
}

/// What is optimised at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Granularity {
    /// Nothing: weights are rounded to nearest.
    None,
    /// One convolution or linear layer with its activation function.
    Layer,
    /// One unit of the architecture.
    Block,
}

/// What becomes of BatchNorm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchNormMode {
    /// Multiplied into the weights, which are quantized afterwards.
    Folded,
    /// Applied to the output of the quantized convolution with its running statistics.
    Kept,
}

/// Where activations are quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// At the output of each layer: after its activation function, after the sum for the last layer of a block.
    Outputs,
    /// At the input of each layer, one quantizer for all consumers of a tensor.
    Inputs,
    /// At the output of each convolution and linear layer, after its activation function; of a sum the terms that layers
    /// compute are quantized, not the sum.
    LayerOutputs,
}

/// How a starting scale is found; the candidates are described in [`crate::quant::range_search`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RangeSearch {
    /// The whole range of the values.
    MinMax,
    /// 80 shrunk ranges, minimum and maximum together.
    Brecq,
    /// 100 shrunk ranges; weights asymmetric, activations symmetric (unsigned if nothing is negative).
    Genie,
    /// 100 thresholds; two-sided tensors search range and zero point together.
    Qdrop,
}

/// Which network computes a unit's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prefix {
    /// Nothing quantized.
    FullPrecision,
    /// Weights quantized, activations not.
    QuantizedWeights,
    /// Weights and activations quantized.
    Quantized,
}

/// Which network computes the tensors whose ranges are searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SearchPrefix {
    /// Nothing is quantized.
    FullPrecision,
    /// Weights as they are, activations by the ranges just found.
    Quantized,
    /// As a unit's turn comes, the units before it are finished and the unit itself is in its training mode: soft weights,
    /// activations dropped. Where nothing is trained, the same as `quantized`.
    Reconstructed,
    /// The same, but the unit's own weights are rounded to nearest and nothing is dropped.
    ReconstructedNearest,
}

impl SearchPrefix {
    /// Whether the ranges of a unit are searched when its turn comes, not all before.
    pub fn waits(self) -> bool {
        matches!(self, SearchPrefix::Reconstructed | SearchPrefix::ReconstructedNearest)
    }
}

/// How mini-batches are drawn from the calibration sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampling {
    /// One permutation per pass over the sample, cut into batches.
    Epochs,
    /// A fresh permutation every step, its first `batch` entries.
    Permutation,
    /// Independent draws.
    Replacement,
}

/// Where the error of a convolution that is trained alone is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConvTarget {
    /// At the end of the unit. Layer by layer the same as `activation`.
    #[default]
    Unit,
    /// Behind BatchNorm and activation function, before a pooling.
    Activation,
    /// At its own output, before a BatchNorm that is kept, and before the activation function.
    Convolution,
}

/// What of the classifier's input is mixed from both prefixes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClassifierMix {
    /// The elements of the maps that are pooled.
    #[default]
    Maps,
    /// The pooled features, which the linear layer reads.
    Features,
}

/// What reconstruction minimises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// `mean over batch and positions of sum over channels of |y_q - y_fp|^p`.
    Error,
    /// The same with `p = 2`, each element weighted by `(|dL/dy| + damping)^2`.
    Fisher,
}

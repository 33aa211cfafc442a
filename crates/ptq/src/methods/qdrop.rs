//! QDrop (arXiv 2203.05740): activations are randomly left in full precision while rounding is learned.

use crate::arch::ArchSpec;
use crate::ops::fake_quant::ClipOrder;
use crate::recipe::*;

/// The constants of the published code (its ImageNet configuration and command lines).
pub fn recipe(arch: &ArchSpec) -> Recipe {
    Recipe {
        granularity: Granularity::Block,
        batch_norm: BatchNormMode::Folded,
        placement: Placement::Outputs,
        classifier_input_8bit: true,
        weight_search: RangeSearch::Qdrop,
        act_search: RangeSearch::Qdrop,
        act_search_images: 256,
        act_search_prefix: SearchPrefix::FullPrecision,
        act_clip: ClipOrder::RoundThenClip,
        unit_input: Prefix::Quantized,
        quantize_acts: true,
        reconstruct_stem: true,
        // A lone convolution is reconstructed with its activation function: the pooling behind a stem is no part of it.
        conv_target: ConvTarget::Activation,
        classifier_mix: ClassifierMix::Features,
        iterations: 20_000,
        batch: 32,
        sampling: Sampling::Replacement,
        loss: Loss::Error,
        loss_exponent: 2.0,
        fisher_damping: 1.0,
        drop_inside: 0.5,
        drop_input: 0.5,
        rounding: RoundingName::Adaround,
        alpha_lr: 1e-3,
        weight_scale_lr: 0.0,
        act_scale_lr: 4e-5,
        lsq_gradient_factor: true,
        round_weight: super::folded_round_weight(arch.family),
        round_warmup: 0.2,
        round_beta_start: 20.0,
        round_beta_end: 2.0,
        act_phase_frac: 0.0,
        act_phase_lr: 4e-4,
        act_phase_exponent: 2.4,
        prediction_weight: 0.0,
        prediction_temperature: 0.0,
        correction_iterations: 0,
        correction_lr: 0.0,
        correction_lambda: 0.0,
    }
}

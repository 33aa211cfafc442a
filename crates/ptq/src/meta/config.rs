//! What of MetaAug a grid can set beside the [transform network](super::nets) and the weights of its [terms](super::terms): the table
//! `[meta]` of a cell.

use crate::arch::{ArchSpec, Family};
use crate::graph::Role;
use crate::recipe::overridable;
use serde::{Deserialize, Serialize};
use std::ops::Range;

overridable! {
    /// How `T` is trained for each unit.
    Meta, MetaOverride {
        /// Steps per unit; 0 leaves `T` as it was warmed up.
        iterations: usize => Bounds::counts_from(0),
        /// Images per step, transformed.
        batch: usize => Bounds::counts_from(1),
        /// Original images on which the updated unit is judged.
        outer_batch: usize => Bounds::counts_from(1),
        /// The rule of the virtual update of the unit.
        inner: Inner,
        /// Number of virtual updates per step, all on the same transformed images.
        unroll: usize => Bounds::counts_from(1),
        /// Multiplies the recipe's learning rates in the virtual update.
        inner_lr_factor: f64 => Bounds::Positive,
        /// Adam's epsilon in the virtual update.
        inner_eps: f64 => Bounds::Positive,
        /// How the derivative of the virtual update is computed.
        derivative: Derivative,
        /// Temperature of `val-kl`.
        temperature: f64 => Bounds::Positive,
        /// `margin` asks for at least this mean squared change, in normalised pixels.
        eps: f64 => Bounds::From(0.0),
        /// Whether `distribution` compares mixed-up images.
        mixup: bool,
        /// Learning rate of `T`.
        lr: f64 => Bounds::From(0.0),
        /// The gradient of `T` is scaled down to this norm.
        clip_norm: f64 => Bounds::Positive,
        /// Factor of the learning rate when the loss has not improved for `plateau_patience` steps.
        plateau_factor: f64 => Bounds::Positive,
        /// See `plateau_factor`.
        plateau_patience: usize,
        /// Whether stem and classifier see the original images only.
        skip_ends: bool,
        /// Whether `skip-ends` is about the classifier alone.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        reach_stem: bool,
        /// The activation scales from which a unit's virtual updates start, in recipes that search them unit by unit.
        #[serde(default, skip_serializing_if = "ActStart::is_reconstruction")]
        act_start: ActStart,
        /// Which images the updated unit is judged on.
        #[serde(default, skip_serializing_if = "Validation::is_calibration")]
        validation: Validation,
    }
}

impl Meta {
    /// The constants of MetaAug's paper (section 4.1) and published code (`train_meta.py`).
    pub fn published(arch: &ArchSpec) -> Self {
        Self {
            iterations: 500,
            batch: 32,
            outer_batch: 64,
            inner: Inner::Adam,
            unroll: 1,
            inner_lr_factor: 1.0,
            inner_eps: 1e-8,
            derivative: Derivative::Exact,
            temperature: 4.0,
            eps: if arch.name == "resnet50" { 0.3 } else { 0.1 },
            mixup: true,
            lr: 5e-6,
            clip_norm: 0.1,
            plateau_factor: 0.95,
            plateau_patience: 100,
            skip_ends: true,
            // The published code skips units by their names in ResNets and MobileNetV2 (`conv1`, `features.0.0`, `fc`,
            // `classifier.1`), which no other stem has.
            reach_stem: matches!(arch.family, Family::RegNet | Family::MnasNet),
            act_start: ActStart::Nearest,
            validation: Validation::Calibration,
        }
    }

    /// Whether a unit of this role sees transformed images.
    pub fn reaches(&self, role: Role) -> bool {
        match role {
            Role::Block => true,
            Role::Stem => self.reach_stem || !self.skip_ends,
            Role::Classifier => !self.skip_ends,
        }
    }
}

/// How a virtual update changes the unit's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Inner {
    /// Gradient descent, as the paper writes it.
    Sgd,
    /// A fresh Adam, as the published code has it.
    Adam,
    /// As `adam`, but the updated parameters count as constants: first order, `val-kl` and `label-ce` do not reach `T`.
    None,
}

/// The activation scales from which a unit's virtual updates start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActStart {
    /// Those from which its reconstruction will start: the units before it are finished.
    #[default]
    Reconstruction,
    /// Those that a pass over the original images finds while everything is still rounded to nearest.
    Nearest,
}

impl ActStart {
    fn is_reconstruction(&self) -> bool {
        *self == ActStart::Reconstruction
    }
}

/// Which images the transformed ones of a step are drawn from, and which the original ones on which the updated unit is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Validation {
    /// Both from the whole calibration sample, as published: an image may judge what was learned from itself.
    #[default]
    Calibration,
    /// The transformed ones from the first half of the sample, the original ones from the second. Reconstruction sees both.
    HeldOut,
}

impl Validation {
    fn is_calibration(&self) -> bool {
        *self == Validation::Calibration
    }

    /// Positions in a sample of `images` that are transformed, and those that judge.
    pub fn split(self, images: usize) -> (Range<usize>, Range<usize>) {
        match self {
            Validation::Calibration => (0..images, 0..images),
            Validation::HeldOut => (0..images.div_ceil(2), images.div_ceil(2)..images),
        }
    }
}

/// How the derivative of the inner gradient is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Derivative {
    /// Exactly, by differentiating the directional derivative of the inner loss.
    Exact,
    /// By central differences of the inner gradient along that direction: two more first-order passes.
    FiniteDifference,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch;

    #[test]
    fn published_ends_are_skipped_where_the_published_names_of_them_are() {
        let reached = |arch: &str| {
            let meta = Meta::published(arch::find(arch).unwrap());
            [Role::Stem, Role::Block, Role::Classifier].map(|role| meta.reaches(role))
        };
        for arch in ["resnet20", "resnet50", "mobilenetv2-tiny", "mobilenetv2"] {
            assert_eq!(reached(arch), [false, true, false], "{arch}");
        }
        for arch in ["regnetx-600m", "regnetx-3200m", "mnasnet1-0", "mnasnet2-0"] {
            assert_eq!(reached(arch), [true, true, false], "{arch}");
        }
        let all = Meta { skip_ends: false, ..Meta::published(arch::find("resnet20").unwrap()) };
        assert!([Role::Stem, Role::Classifier].iter().all(|role| all.reaches(*role)));
    }
}

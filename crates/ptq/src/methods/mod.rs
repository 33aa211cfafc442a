//! The published recipes, one file per method.

use crate::arch::{ArchSpec, Family};
use crate::recipe::{Recipe, Setting};

/// One method.
pub struct Method {
    /// As written in a grid.
    pub name: &'static str,
    /// As printed in tables.
    pub title: &'static str,
    /// Raised by hand when the numerics of the method change, so that its stored runs become stale.
    pub revision: u32,
    /// Whether it brings the published transform network.
    pub transforms: bool,
    /// The settings of the 8-bit layers that its published code has results in.
    pub settings: &'static [Setting],
    /// The published constants for an architecture.
    pub recipe: fn(&ArchSpec) -> Recipe,
}

/// Of methods that are published in both settings, and of what is no publication's.
const BOTH: &[Setting] = &[Setting::Brecq, Setting::Qdrop];

/// Every known method, from the simplest to the latest.
pub const METHODS: &[Method] = &[
    Method { name: "rtn", title: "RTN", revision: 1, transforms: false, settings: BOTH, recipe: rtn::recipe },
    Method {
        name: "adaround",
        title: "AdaRound",
        revision: 3,
        transforms: false,
        settings: &[Setting::Brecq],
        recipe: adaround::recipe,
    },
    Method {
        name: "brecq",
        title: "BRECQ",
        revision: 3,
        transforms: false,
        settings: &[Setting::Brecq],
        recipe: brecq::recipe,
    },
    Method {
        name: "qdrop",
        title: "QDrop",
        revision: 2,
        transforms: false,
        settings: &[Setting::Qdrop],
        recipe: qdrop::recipe,
    },
    Method {
        name: "flexround",
        title: "FlexRound",
        revision: 1,
        transforms: false,
        settings: &[Setting::Qdrop],
        recipe: flexround::recipe,
    },
    Method {
        name: "pd-quant",
        title: "PD-Quant",
        revision: 2,
        transforms: false,
        settings: &[Setting::Qdrop],
        recipe: pd_quant::recipe,
    },
    Method {
        name: "genie-m",
        title: "Genie-M",
        revision: 2,
        transforms: false,
        settings: BOTH,
        recipe: genie_m::recipe,
    },
    Method {
        name: "metaaug",
        title: "MetaAug",
        revision: 2,
        transforms: true,
        settings: BOTH,
        recipe: metaaug::recipe,
    },
];

mod adaround;
mod brecq;
mod flexround;
mod genie_m;
mod metaaug;
mod pd_quant;
mod qdrop;
mod rtn;

/// The method called `name`.
pub fn find(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.name == name)
}

/// Weight of the rounding regulariser in BRECQ's and QDrop's published command lines.
fn folded_round_weight(family: Family) -> f64 {
    match family {
        Family::ResNet | Family::RegNet => 0.01,
        Family::MobileNetV2 => 0.1,
        Family::MnasNet => 0.2,
    }
}

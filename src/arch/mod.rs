//! Architectures: each a list of units and the names of its weights.

mod mobilenet_v2;
mod resnet;

use crate::error::Result;
use crate::graph::{Network, StateDict, Unit};
use candle_core::{Device, Tensor};
use std::collections::HashMap;

/// Families that the published recipes tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    ResNet,
    MobileNetV2,
    RegNet,
    MnasNet,
}

/// One architecture.
pub struct ArchSpec {
    /// As written in a grid.
    pub name: &'static str,
    /// As printed in tables.
    pub title: &'static str,
    pub family: Family,
    /// Lists the units, taking their tensors; misfits are collected in the dictionary.
    pub build: fn(&mut StateDict) -> Vec<Unit>,
}

/// Every known architecture.
pub const ARCHS: &[ArchSpec] = &[
    ArchSpec { name: "resnet20", title: "ResNet-20", family: Family::ResNet, build: resnet::resnet20 },
    ArchSpec {
        name: "mobilenetv2-tiny",
        title: "MobileNetV2-tiny",
        family: Family::MobileNetV2,
        build: mobilenet_v2::mobilenetv2_tiny,
    },
];

/// The architecture called `name`.
pub fn find(name: &str) -> Option<&'static ArchSpec> {
    ARCHS.iter().find(|arch| arch.name == name)
}

/// Builds `arch` from named tensors; one error lists all that is missing, misshapen or left over.
pub fn load(arch: &'static ArchSpec, tensors: HashMap<String, Tensor>, device: &Device) -> Result<Network> {
    let mut weights = StateDict::new(tensors, device);
    let units = (arch.build)(&mut weights);
    weights.finish(arch.name)?;
    Ok(Network { arch: arch.name, units })
}

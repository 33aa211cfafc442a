//! Architectures: each a list of units and the names of its weights.

use crate::graph::{StateDict, Unit};

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
    pub family: Family,
    /// Lists the units, taking their tensors; misfits are collected in the dictionary.
    pub build: fn(&mut StateDict) -> Vec<Unit>,
    /// Channels, height, width of its input.
    pub input: [usize; 3],
    pub classes: usize,
}

/// Every known architecture.
pub const ARCHS: &[ArchSpec] = &[
    ArchSpec { name: "resnet20", family: Family::ResNet, build: |_| Vec::new(), input: [1, 28, 28], classes: 10 },
    ArchSpec { name: "mobilenetv2-tiny", family: Family::MobileNetV2, build: |_| Vec::new(), input: [1, 28, 28], classes: 10 },
];

/// The architecture called `name`.
pub fn find(name: &str) -> Option<&'static ArchSpec> {
    ARCHS.iter().find(|arch| arch.name == name)
}

//! Architectures: each a list of units and the names of its weights.

mod mobilenet_v2;
mod resnet;

use crate::assets::checkpoint::Checkpoint;
use crate::assets::hub::HubWeights;
use crate::error::Result;
use crate::graph::{Network, StateDict, Unit};
use candle_core::Device;

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
    /// Its weights on the Hugging Face Hub, for cells that name none and data for which none are compiled in.
    pub hub: Option<HubWeights>,
}

/// Every known architecture.
pub const ARCHS: &[ArchSpec] = &[
    ArchSpec { name: "resnet20", title: "ResNet-20", family: Family::ResNet, build: resnet::resnet20, hub: None },
    ArchSpec {
        name: "mobilenetv2-tiny",
        title: "MobileNetV2-tiny",
        family: Family::MobileNetV2,
        build: mobilenet_v2::mobilenetv2_tiny,
        hub: None,
    },
];

/// The architecture called `name`.
pub fn find(name: &str) -> Option<&'static ArchSpec> {
    ARCHS.iter().find(|arch| arch.name == name)
}

/// Builds `arch` from the tensors of a checkpoint.
///
/// Errors: [`Error::Weights`](crate::error::Error::Weights), once, with all that is missing, misshapen, not finite or
/// left over.
pub fn load(arch: &'static ArchSpec, checkpoint: Checkpoint, device: &Device) -> Result<Network> {
    let mut weights = StateDict::new(checkpoint.tensors, device)?;
    let units = (arch.build)(&mut weights);
    weights.finish(arch.name, &checkpoint.source)?;
    Ok(Network { arch: arch.name, units })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Op, Role, Source};
    use std::collections::HashMap;

    /// The units of `name` without weights: their structure does not depend on them.
    pub(super) fn structure(name: &str) -> Vec<Unit> {
        let mut weights = StateDict::new(HashMap::new(), &Device::Cpu).unwrap();
        (find(name).unwrap().build)(&mut weights)
    }

    /// The kinds of a unit's nodes, in order.
    pub(super) fn kinds(unit: &Unit) -> Vec<&'static str> {
        unit.nodes.iter().map(|node| node.op.kind()).collect()
    }

    /// Stride, padding and groups of the convolution called `name`.
    pub(super) fn convolution(units: &[Unit], name: &str) -> [usize; 3] {
        match &units.iter().flat_map(|unit| &unit.nodes).find(|node| node.name == name).unwrap().op {
            Op::Conv(conv) => [conv.geometry.stride, conv.geometry.padding, conv.geometry.groups],
            op => panic!("{name} is a {}", op.kind()),
        }
    }

    #[test]
    fn units_are_well_formed_and_their_names_are_unique() {
        for arch in ARCHS {
            let units = structure(arch.name);
            let roles: Vec<Role> = units.iter().map(|unit| unit.role).collect();
            let (first, last) = (roles.first().copied(), roles.last().copied());
            assert_eq!((first, last), (Some(Role::Stem), Some(Role::Classifier)), "{}", arch.name);
            assert!(roles[1..roles.len() - 1].iter().all(|role| *role == Role::Block), "{}", arch.name);

            let mut names: Vec<&str> =
                units.iter().flat_map(|unit| unit.nodes.iter().map(|node| node.name.as_str())).collect();
            let nodes = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), nodes, "{} uses a name twice", arch.name);

            for unit in &units {
                assert!(unit.consumers(Source::Input).next().is_some(), "{} ignores its input", unit.name);
                for (index, node) in unit.nodes.iter().enumerate() {
                    let inputs = if matches!(node.op, Op::Add) { 2 } else { 1 };
                    assert_eq!(node.inputs.len(), inputs, "{}", node.name);
                    let earlier = |input: &Source| {
                        matches!(input, Source::Input) || matches!(input, Source::Node(i) if *i < index)
                    };
                    assert!(node.inputs.iter().all(earlier), "{} reads a later node", node.name);
                    let read = unit.consumers(Source::Node(index)).next().is_some();
                    assert_eq!(read, index + 1 < unit.nodes.len(), "{} is read by nobody", node.name);
                }
            }
        }
    }
}

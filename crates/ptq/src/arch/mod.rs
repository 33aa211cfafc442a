//! Architectures: each a list of units and the names of its weights.

mod blocks;
mod efficientnet_lite;
pub mod layout;
pub mod made_up;
mod mnasnet;
mod mobilenet_v1;
mod mobilenet_v2;
mod regnet;
mod resnet;

use crate::error::Result;
use crate::graph::{Network, StateDict, Unit};
use candle_core::{Device, Tensor};
use layout::Layout;
use std::collections::HashMap;

/// Families that the published recipes tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    ResNet,
    /// Those of MobileNetV1 and EfficientNet-Lite too, which no published code knows: networks of depthwise convolutions and ReLU6.
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
    /// Channels, height and width of the images it was trained on.
    pub images: [usize; 3],
    pub classes: usize,
    /// Lists the units, taking their tensors; misfits are collected in the dictionary.
    pub build: fn(&mut StateDict) -> Vec<Unit>,
    /// Layouts of its checkpoints other than torchvision's.
    pub layouts: &'static [Layout],
    /// Where its usual weights are published.
    pub published: Option<PublishedWeights>,
}

/// A file of weights in a repository of the Hugging Face Hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedWeights {
    /// `OWNER/NAME`.
    pub repo: &'static str,
    /// Path in it.
    pub file: &'static str,
}

/// Images of Fashion-MNIST, of CIFAR and of ImageNet.
const GREY: [usize; 3] = [1, 28, 28];
const SMALL: [usize; 3] = [3, 32, 32];
const COLOUR: [usize; 3] = [3, 224, 224];

/// timm's weights of that name.
const fn timm(repo: &'static str) -> Option<PublishedWeights> {
    Some(PublishedWeights { repo, file: "model.safetensors" })
}

/// Every known architecture.
pub const ARCHS: &[ArchSpec] = &[
    ArchSpec {
        name: "resnet20",
        title: "ResNet-20",
        family: Family::ResNet,
        images: GREY,
        classes: 10,
        build: resnet::resnet20,
        layouts: CIFAR_LAYOUTS,
        published: None,
    },
    ArchSpec {
        name: "mobilenetv2-tiny",
        title: "MobileNetV2-tiny",
        family: Family::MobileNetV2,
        images: GREY,
        classes: 10,
        build: mobilenet_v2::mobilenetv2_tiny,
        layouts: &[],
        published: None,
    },
    for_cifar("resnet32", "ResNet-32", resnet::resnet32),
    for_cifar("resnet44", "ResNet-44", resnet::resnet44),
    for_cifar("resnet56", "ResNet-56", resnet::resnet56),
    for_cifar("resnet20-identity", "ResNet-20 (identity shortcuts)", resnet::resnet20_identity),
    for_cifar("resnet32-identity", "ResNet-32 (identity shortcuts)", resnet::resnet32_identity),
    for_cifar("resnet44-identity", "ResNet-44 (identity shortcuts)", resnet::resnet44_identity),
    for_cifar("resnet56-identity", "ResNet-56 (identity shortcuts)", resnet::resnet56_identity),
    // In ResNets timm and BRECQ follow torchvision.
    ArchSpec {
        name: "resnet18",
        title: "ResNet-18",
        family: Family::ResNet,
        images: COLOUR,
        classes: 1000,
        build: resnet::resnet18,
        layouts: &[],
        published: timm("timm/resnet18.tv_in1k"),
    },
    ArchSpec {
        name: "resnet50",
        title: "ResNet-50",
        family: Family::ResNet,
        images: COLOUR,
        classes: 1000,
        build: resnet::resnet50,
        layouts: &[],
        published: timm("timm/resnet50.tv_in1k"),
    },
    ArchSpec {
        name: "mobilenetv2",
        title: "MobileNetV2",
        family: Family::MobileNetV2,
        images: COLOUR,
        classes: 1000,
        build: mobilenet_v2::mobilenetv2,
        layouts: &[
            Layout { name: "timm", marker: "conv_stem.weight", rename: mobilenet_v2::timm },
            Layout { name: "BRECQ", marker: "features.1.conv.0.weight", rename: mobilenet_v2::brecq },
        ],
        published: timm("timm/mobilenetv2_100.ra_in1k"),
    },
    ArchSpec {
        name: "regnetx-600m",
        title: "RegNetX-600M",
        family: Family::RegNet,
        images: COLOUR,
        classes: 1000,
        build: regnet::regnetx_600m,
        layouts: REGNET_LAYOUTS,
        published: timm("timm/regnetx_006.pycls_in1k"),
    },
    ArchSpec {
        name: "regnetx-3200m",
        title: "RegNetX-3.2G",
        family: Family::RegNet,
        images: COLOUR,
        classes: 1000,
        build: regnet::regnetx_3200m,
        layouts: REGNET_LAYOUTS,
        published: timm("timm/regnetx_032.pycls_in1k"),
    },
    // BRECQ's MNasNet follows torchvision; timm has none of width 2.
    ArchSpec {
        name: "mnasnet1-0",
        title: "MNasNet 1.0",
        family: Family::MnasNet,
        images: COLOUR,
        classes: 1000,
        build: mnasnet::mnasnet_1,
        layouts: &[Layout { name: "timm", marker: "conv_stem.weight", rename: mnasnet::timm }],
        published: timm("timm/mnasnet_100.rmsp_in1k"),
    },
    ArchSpec {
        name: "mnasnet2-0",
        title: "MNasNet 2.0",
        family: Family::MnasNet,
        images: COLOUR,
        classes: 1000,
        build: mnasnet::mnasnet_2,
        layouts: &[],
        published: None,
    },
    ArchSpec {
        name: "mobilenetv1",
        title: "MobileNetV1",
        family: Family::MobileNetV2,
        images: COLOUR,
        classes: 1000,
        build: mobilenet_v1::mobilenetv1,
        layouts: &[TIMM],
        published: timm("timm/mobilenetv1_100.ra4_e3600_r224_in1k"),
    },
    ArchSpec {
        name: "efficientnet-lite0",
        title: "EfficientNet-Lite0",
        family: Family::MobileNetV2,
        images: [3, 224, 224],
        classes: 1000,
        build: efficientnet_lite::units::<0>,
        layouts: &[TIMM, efficientnet_pytorch(efficientnet_lite::efficientnet_pytorch::<0>)],
        published: timm("timm/tf_efficientnet_lite0.in1k"),
    },
    ArchSpec {
        name: "efficientnet-lite1",
        title: "EfficientNet-Lite1",
        family: Family::MobileNetV2,
        images: [3, 240, 240],
        classes: 1000,
        build: efficientnet_lite::units::<1>,
        layouts: &[TIMM, efficientnet_pytorch(efficientnet_lite::efficientnet_pytorch::<1>)],
        published: timm("timm/tf_efficientnet_lite1.in1k"),
    },
    ArchSpec {
        name: "efficientnet-lite2",
        title: "EfficientNet-Lite2",
        family: Family::MobileNetV2,
        images: [3, 260, 260],
        classes: 1000,
        build: efficientnet_lite::units::<2>,
        layouts: &[TIMM, efficientnet_pytorch(efficientnet_lite::efficientnet_pytorch::<2>)],
        published: timm("timm/tf_efficientnet_lite2.in1k"),
    },
    ArchSpec {
        name: "efficientnet-lite3",
        title: "EfficientNet-Lite3",
        family: Family::MobileNetV2,
        images: [3, 300, 300],
        classes: 1000,
        build: efficientnet_lite::units::<3>,
        layouts: &[TIMM, efficientnet_pytorch(efficientnet_lite::efficientnet_pytorch::<3>)],
        published: timm("timm/tf_efficientnet_lite3.in1k"),
    },
    ArchSpec {
        name: "efficientnet-lite4",
        title: "EfficientNet-Lite4",
        family: Family::MobileNetV2,
        images: [3, 380, 380],
        classes: 1000,
        build: efficientnet_lite::units::<4>,
        layouts: &[TIMM, efficientnet_pytorch(efficientnet_lite::efficientnet_pytorch::<4>)],
        published: timm("timm/tf_efficientnet_lite4.in1k"),
    },
];

/// torchvision has no EfficientNet-Lite and no MobileNetV1: they ask by timm's names.
const TIMM: Layout = Layout { name: "timm", marker: "conv_stem.weight", rename: str::to_string };

const fn efficientnet_pytorch(rename: fn(&str) -> String) -> Layout {
    Layout { name: "EfficientNet-PyTorch", marker: "_conv_stem.weight", rename }
}

// chenyaofo/pytorch-cifar-models follows torchvision.
const CIFAR_LAYOUTS: &[Layout] = &[Layout { name: "akamaster", marker: "linear.weight", rename: resnet::akamaster }];

/// A ResNet for CIFAR.
const fn for_cifar(name: &'static str, title: &'static str, build: fn(&mut StateDict) -> Vec<Unit>) -> ArchSpec {
    ArchSpec {
        name,
        title,
        family: Family::ResNet,
        images: SMALL,
        classes: 10,
        build,
        layouts: CIFAR_LAYOUTS,
        published: None,
    }
}

const REGNET_LAYOUTS: &[Layout] = &[
    Layout { name: "timm", marker: "s1.b1.conv1.conv.weight", rename: regnet::timm },
    Layout { name: "BRECQ", marker: "s1.b1.f.a.weight", rename: regnet::brecq },
];

/// The architecture called `name`.
pub fn find(name: &str) -> Option<&'static ArchSpec> {
    ARCHS.iter().find(|arch| arch.name == name)
}

/// Names and shapes of the tensors of a checkpoint of `arch` in `layout`.
pub fn tensors(arch: &ArchSpec, layout: &Layout) -> Result<Vec<(String, Vec<usize>)>> {
    let mut weights = StateDict::new(HashMap::new(), layout.rename, &Device::Cpu)?;
    (arch.build)(&mut weights);
    Ok(weights.into_asked())
}

/// Shapes of tensors by their names.
pub type Shapes = HashMap<String, Vec<usize>>;

/// The units of `arch` with those of `tensors` that fit, by the names of their nodes, and anything in place of the others; beside them the
/// shapes that they ask for, by name. Numbers of channels and classes that an architecture leaves open are those of `tensors`.
pub fn structure(arch: &ArchSpec, tensors: HashMap<String, Tensor>, device: &Device) -> Result<(Vec<Unit>, Shapes)> {
    let mut weights = StateDict::new(tensors, str::to_string, device)?;
    let units = (arch.build)(&mut weights);
    Ok((units, weights.into_asked().into_iter().collect()))
}

/// Builds `arch` from the `tensors` of a checkpoint, which messages say are of `origin`.
///
/// Errors: [`Error::Weights`](crate::error::Error::Weights), once, with all that is missing, misshapen, not finite or
/// left over.
pub fn load(
    arch: &'static ArchSpec,
    tensors: HashMap<String, Tensor>,
    origin: &str,
    device: &Device,
) -> Result<Network> {
    let layout = layout::detect(arch.layouts, &tensors);
    let mut weights = StateDict::new(tensors, layout.rename, device)?;
    let units = (arch.build)(&mut weights);
    weights.finish(arch.name, origin)?;
    Ok(Network { arch: arch.name, units })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Op, Role, Source};
    use crate::ops::conv::Padding;

    /// The units of `name` without weights: their structure does not depend on them.
    pub(super) fn structure(name: &str) -> Vec<Unit> {
        super::structure(find(name).unwrap(), HashMap::new(), &Device::Cpu).unwrap().0
    }

    /// The kinds of a unit's nodes, in order.
    pub(super) fn kinds(unit: &Unit) -> Vec<&'static str> {
        unit.nodes.iter().map(|node| node.op.kind()).collect()
    }

    /// Stride, padding and groups of the convolution called `name`.
    pub(super) fn convolution(units: &[Unit], name: &str) -> (usize, Padding, usize) {
        match &units.iter().flat_map(|unit| &unit.nodes).find(|node| node.name == name).unwrap().op {
            Op::Conv(conv) => (conv.geometry.stride, conv.geometry.padding, conv.geometry.groups),
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

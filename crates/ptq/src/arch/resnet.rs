//! Residual networks of basic blocks (He et al., arXiv 1512.03385).

use crate::graph::{Op, Role, Source, StateDict, Unit, UnitBuilder};
use crate::ops::conv::{Geometry, Padding};
use crate::ops::pool::Pool;

const EPS: f64 = 1e-5;

/// ResNet-20 for CIFAR with projections as shortcuts; without weights for images of one channel, as the embedded one.
pub fn resnet20(weights: &mut StateDict) -> Vec<Unit> {
    for_cifar(weights, 3, basic_block, 1)
}

/// ResNet-32 for CIFAR with projections as shortcuts.
pub fn resnet32(weights: &mut StateDict) -> Vec<Unit> {
    for_cifar(weights, 5, basic_block, 3)
}

/// ResNet-44 for CIFAR with projections as shortcuts.
pub fn resnet44(weights: &mut StateDict) -> Vec<Unit> {
    for_cifar(weights, 7, basic_block, 3)
}

/// ResNet-56 for CIFAR with projections as shortcuts.
pub fn resnet56(weights: &mut StateDict) -> Vec<Unit> {
    for_cifar(weights, 9, basic_block, 3)
}

/// ResNet-20 for CIFAR with identities as shortcuts.
pub fn resnet20_identity(weights: &mut StateDict) -> Vec<Unit> {
    for_cifar(weights, 3, identity_block, 3)
}

/// ResNet-32 for CIFAR with identities as shortcuts.
pub fn resnet32_identity(weights: &mut StateDict) -> Vec<Unit> {
    for_cifar(weights, 5, identity_block, 3)
}

/// ResNet-44 for CIFAR with identities as shortcuts.
pub fn resnet44_identity(weights: &mut StateDict) -> Vec<Unit> {
    for_cifar(weights, 7, identity_block, 3)
}

/// ResNet-56 for CIFAR with identities as shortcuts.
pub fn resnet56_identity(weights: &mut StateDict) -> Vec<Unit> {
    for_cifar(weights, 9, identity_block, 3)
}

/// The name that a tensor has in akamaster/pytorch_resnet_cifar10.
pub fn akamaster(name: &str) -> String {
    name.replace("downsample", "shortcut").replace("fc.", "linear.")
}

/// Networks of section 4.2 there: 3 stages of `blocks` blocks, 16, 32 and 64 channels; for as many image channels and classes
/// as the weights have (`image_channels` and 10 without any).
fn for_cifar(weights: &mut StateDict, blocks: usize, block: Block, image_channels: usize) -> Vec<Unit> {
    let image_channels = weights.size("conv1.weight", 1).unwrap_or(image_channels);
    let classes = weights.size("fc.weight", 0).unwrap_or(10);
    let stem = cifar_stem(weights, image_channels, 16);
    network(weights, stem, &[(16, blocks), (32, blocks), (64, blocks)], 16, block, classes)
}

/// ResNet-18 for ImageNet (table 1 there).
pub fn resnet18(weights: &mut StateDict) -> Vec<Unit> {
    let stem = imagenet_stem(weights);
    network(weights, stem, &[(64, 2), (128, 2), (256, 2), (512, 2)], 64, basic_block, 1000)
}

/// ResNet-50 for ImageNet, with the stride in the 3x3 convolutions, as torchvision has it.
pub fn resnet50(weights: &mut StateDict) -> Vec<Unit> {
    let stem = imagenet_stem(weights);
    network(weights, stem, &[(256, 3), (512, 4), (1024, 6), (2048, 3)], 64, bottleneck, 1000)
}

/// Builds a block from its name, channels and stride.
type Block = fn(&mut StateDict, &str, (usize, usize), usize) -> Unit;

/// `stem`, then `stages` of (channels, number of blocks), each but the first of which halves the image, then the classifier.
fn network(
    weights: &mut StateDict,
    stem: Unit,
    stages: &[(usize, usize)],
    mut channels: usize,
    block: Block,
    classes: usize,
) -> Vec<Unit> {
    let mut units = vec![stem];
    for (stage, &(width, blocks)) in stages.iter().enumerate() {
        for index in 0..blocks {
            let stride = if stage > 0 && index == 0 { 2 } else { 1 };
            units.push(block(weights, &format!("layer{}.{index}", stage + 1), (channels, width), stride));
            channels = width;
        }
    }
    units.push(classifier(weights, channels, classes));
    units
}

/// 3x3 convolution, BatchNorm, ReLU.
fn cifar_stem(weights: &mut StateDict, c_in: usize, c_out: usize) -> Unit {
    let mut unit = UnitBuilder::new(weights, "stem", Role::Stem);
    let x = unit.conv("conv1", Source::Input, (c_in, c_out), 3, geometry(1, 1));
    let x = unit.batch_norm("bn1", x, c_out, EPS);
    unit.push("relu", Op::Relu, &[x]);
    unit.finish()
}

/// 7x7 convolution with stride 2, BatchNorm, ReLU, 3x3 max pooling with stride 2.
///
/// To the published codes the pooling belongs to no unit: see [`ConvTarget`](crate::recipe::ConvTarget).
fn imagenet_stem(weights: &mut StateDict) -> Unit {
    let mut unit = UnitBuilder::new(weights, "stem", Role::Stem);
    let x = unit.conv("conv1", Source::Input, (3, 64), 7, geometry(2, 3));
    let x = unit.batch_norm("bn1", x, 64, EPS);
    let x = unit.push("relu", Op::Relu, &[x]);
    unit.max_pool("maxpool", x, Pool { kernel: 3, stride: 2, padding: 1 });
    unit.finish()
}

/// Two 3x3 convolutions and a shortcut, which is a [`projection`] where the shape changes.
fn basic_block(weights: &mut StateDict, name: &str, channels: (usize, usize), stride: usize) -> Unit {
    block_with(projection, weights, name, channels, stride)
}

/// A [`basic_block`] with an [`identity`] in place of the projection.
fn identity_block(weights: &mut StateDict, name: &str, channels: (usize, usize), stride: usize) -> Unit {
    block_with(identity, weights, name, channels, stride)
}

fn block_with(
    shortcut: Shortcut,
    weights: &mut StateDict,
    name: &str,
    (c_in, c_out): (usize, usize),
    stride: usize,
) -> Unit {
    let mut unit = UnitBuilder::new(weights, name, Role::Block);
    let x = unit.conv(&format!("{name}.conv1"), Source::Input, (c_in, c_out), 3, geometry(stride, 1));
    let x = unit.batch_norm(&format!("{name}.bn1"), x, c_out, EPS);
    let x = unit.push(format!("{name}.relu1"), Op::Relu, &[x]);
    let x = unit.conv(&format!("{name}.conv2"), x, (c_out, c_out), 3, geometry(1, 1));
    let x = unit.batch_norm(&format!("{name}.bn2"), x, c_out, EPS);
    let sum = residual_sum(&mut unit, name, x, (c_in, c_out), stride, shortcut);
    unit.push(format!("{name}.relu2"), Op::Relu, &[sum]);
    unit.finish()
}

/// 1x1, 3x3 and 1x1 convolutions, the first two with a quarter of the channels, and a shortcut as in [`basic_block`].
fn bottleneck(weights: &mut StateDict, name: &str, (c_in, c_out): (usize, usize), stride: usize) -> Unit {
    let width = c_out / 4;
    let mut unit = UnitBuilder::new(weights, name, Role::Block);
    let x = unit.conv(&format!("{name}.conv1"), Source::Input, (c_in, width), 1, geometry(1, 0));
    let x = unit.batch_norm(&format!("{name}.bn1"), x, width, EPS);
    let x = unit.push(format!("{name}.relu1"), Op::Relu, &[x]);
    let x = unit.conv(&format!("{name}.conv2"), x, (width, width), 3, geometry(stride, 1));
    let x = unit.batch_norm(&format!("{name}.bn2"), x, width, EPS);
    let x = unit.push(format!("{name}.relu2"), Op::Relu, &[x]);
    let x = unit.conv(&format!("{name}.conv3"), x, (width, c_out), 1, geometry(1, 0));
    let x = unit.batch_norm(&format!("{name}.bn3"), x, c_out, EPS);
    let sum = residual_sum(&mut unit, name, x, (c_in, c_out), stride, projection);
    unit.push(format!("{name}.relu3"), Op::Relu, &[sum]);
    unit.finish()
}

/// Builds what brings the input of the block of this name to other channels and a stride.
type Shortcut = fn(&mut UnitBuilder, &str, (usize, usize), usize) -> Source;

/// 1x1 convolution and BatchNorm: option B in section 3.3 there.
fn projection(unit: &mut UnitBuilder, name: &str, channels: (usize, usize), stride: usize) -> Source {
    let x = unit.conv(&format!("{name}.downsample.0"), Source::Input, channels, 1, geometry(stride, 0));
    unit.batch_norm(&format!("{name}.downsample.1"), x, channels.1, EPS)
}

/// The pixels at the stride, and zeros for the channels that are missing: option A.
fn identity(unit: &mut UnitBuilder, name: &str, (c_in, c_out): (usize, usize), stride: usize) -> Source {
    let op = Op::PaddedIdentity { stride, padding: (c_out - c_in) / 2 };
    unit.push(format!("{name}.shortcut"), op, &[Source::Input])
}

/// `x` plus the input of the unit, by way of `shortcut` where the shape changes.
fn residual_sum(
    unit: &mut UnitBuilder,
    name: &str,
    x: Source,
    (c_in, c_out): (usize, usize),
    stride: usize,
    shortcut: Shortcut,
) -> Source {
    let shortcut = match stride != 1 || c_in != c_out {
        false => Source::Input,
        true => shortcut(unit, name, (c_in, c_out), stride),
    };
    unit.push(format!("{name}.add"), Op::Add, &[x, shortcut])
}

fn classifier(weights: &mut StateDict, features: usize, classes: usize) -> Unit {
    let mut unit = UnitBuilder::new(weights, "classifier", Role::Classifier);
    let x = unit.push("avgpool", Op::GlobalAvgPool, &[Source::Input]);
    let x = unit.push("flatten", Op::Flatten, &[x]);
    unit.linear("fc", x, (features, classes));
    unit.finish()
}

fn geometry(stride: usize, padding: usize) -> Geometry {
    Geometry { stride, padding: Padding::Each(padding), groups: 1 }
}

#[cfg(test)]
mod tests {
    use super::super::Family;
    use super::super::tests::{convolution, kinds, structure};
    use super::*;

    #[test]
    fn resnet20_has_a_unit_per_block() {
        let units = structure("resnet20");
        let names: Vec<&str> = units.iter().map(|unit| unit.name.as_str()).collect();
        let blocks = (1..=3).flat_map(|stage| (0..3).map(move |index| format!("layer{stage}.{index}")));
        let expected: Vec<String> =
            ["stem".to_string()].into_iter().chain(blocks).chain(["classifier".to_string()]).collect();
        assert_eq!(names, expected);
        // 19 convolutions of 3x3, 2 shortcuts of 1x1, 1 linear layer.
        assert_eq!(units.iter().flat_map(|unit| &unit.nodes).filter(|node| node.op.weight().is_some()).count(), 22);
    }

    #[test]
    fn networks_for_cifar_have_as_many_layers_as_they_are_called_after() {
        for arch in super::super::ARCHS.iter().filter(|arch| arch.family == Family::ResNet && arch.classes == 10) {
            let units = structure(arch.name);
            let weighted = |unit: &Unit| unit.nodes.iter().filter(|node| node.op.weight().is_some()).count();
            let layers: usize = units.iter().map(weighted).sum();
            let is_identity = arch.name.ends_with("-identity");
            let projections = if is_identity { 0 } else { 2 };
            let depth: usize = arch.name.trim_start_matches("resnet").trim_end_matches("-identity").parse().unwrap();
            assert_eq!(layers, depth + projections, "{}", arch.name);

            let second = units.iter().find(|unit| unit.name == "layer2.0").unwrap();
            let shortcut = Op::PaddedIdentity { stride: 2, padding: 8 };
            let has_shortcut = second.nodes.iter().any(|node| format!("{:?}", node.op) == format!("{shortcut:?}"));
            assert_eq!(has_shortcut, is_identity, "{}", arch.name);
        }
    }

    #[test]
    fn shortcuts_are_convolutions_where_the_shape_changes_only() {
        let units = structure("resnet20");
        let body = ["conv", "batch-norm", "relu", "conv", "batch-norm"];
        for unit in &units[1..=9] {
            let downsamples = unit.name == "layer2.0" || unit.name == "layer3.0";
            let shortcut: &[&str] = if downsamples { &["conv", "batch-norm"] } else { &[] };
            assert_eq!(kinds(unit), [&body[..], shortcut, &["add", "relu"]].concat(), "{}", unit.name);
            let add = &unit.nodes[unit.nodes.len() - 2];
            let shortcut = if downsamples { Source::Node(6) } else { Source::Input };
            assert_eq!(add.inputs, [Source::Node(4), shortcut], "{}", unit.name);

            let stride = if downsamples { 2 } else { 1 };
            assert_eq!(convolution(&units, &format!("{}.conv1", unit.name)), (stride, Padding::Each(1), 1));
            assert_eq!(convolution(&units, &format!("{}.conv2", unit.name)), (1, Padding::Each(1), 1));
            if downsamples {
                assert_eq!(convolution(&units, &format!("{}.downsample.0", unit.name)), (2, Padding::Each(0), 1));
                assert_eq!(unit.nodes[5].inputs, [Source::Input]);
            }
        }
    }
}

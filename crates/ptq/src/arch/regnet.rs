//! RegNetX (Radosavovic et al., arXiv 2003.13678), with torchvision's names.

use crate::graph::{Op, Role, Source, StateDict, Unit, UnitBuilder};
use crate::ops::conv::{Geometry, Padding};

const EPS: f64 = 1e-5;
/// Channels of the first convolution.
const STEM: usize = 32;

/// What tells the members of the family apart.
struct Config {
    /// Channels and number of blocks.
    stages: [(usize, usize); 4],
    /// Channels of a group of the 3x3 convolutions.
    group: usize,
}

/// 600 million multiply-adds (table 8 there).
pub fn regnetx_600m(weights: &mut StateDict) -> Vec<Unit> {
    units(weights, &Config { stages: [(48, 1), (96, 3), (240, 5), (528, 7)], group: 24 })
}

/// 3.2 billion multiply-adds.
pub fn regnetx_3200m(weights: &mut StateDict) -> Vec<Unit> {
    units(weights, &Config { stages: [(96, 2), (192, 6), (432, 15), (1008, 2)], group: 48 })
}

fn units(weights: &mut StateDict, config: &Config) -> Vec<Unit> {
    let mut units = vec![stem(weights)];
    let mut channels = STEM;
    for (stage, (width, blocks)) in config.stages.into_iter().enumerate() {
        for index in 0..blocks {
            let name = format!("trunk_output.block{0}.block{0}-{index}", stage + 1);
            let stride = if index == 0 { 2 } else { 1 };
            units.push(bottleneck(weights, &name, (channels, width), width / config.group, stride));
            channels = width;
        }
    }
    let mut unit = UnitBuilder::new(weights, "classifier", Role::Classifier);
    let x = unit.push("avgpool", Op::GlobalAvgPool, &[Source::Input]);
    let x = unit.push("flatten", Op::Flatten, &[x]);
    unit.linear("fc", x, (channels, 1000));
    units.push(unit.finish());
    units
}

/// 3x3 convolution with stride 2, BatchNorm, ReLU.
fn stem(weights: &mut StateDict) -> Unit {
    let mut unit = UnitBuilder::new(weights, "stem", Role::Stem);
    conv_bn_relu(&mut unit, "stem", Source::Input, (3, STEM), 3, (2, 1));
    unit.finish()
}

/// 1x1, grouped 3x3 and 1x1 convolutions of the same width, and a shortcut, which is a 1x1 convolution where the shape
/// changes.
fn bottleneck(
    weights: &mut StateDict,
    name: &str,
    (c_in, c_out): (usize, usize),
    groups: usize,
    stride: usize,
) -> Unit {
    let mut unit = UnitBuilder::new(weights, name, Role::Block);
    let x = conv_bn_relu(&mut unit, &format!("{name}.f.a"), Source::Input, (c_in, c_out), 1, (1, 1));
    let x = conv_bn_relu(&mut unit, &format!("{name}.f.b"), x, (c_out, c_out), 3, (stride, groups));
    let x = conv_bn(&mut unit, &format!("{name}.f.c"), x, (c_out, c_out), 1, (1, 1));
    let shortcut = match stride != 1 || c_in != c_out {
        false => Source::Input,
        true => conv_bn(&mut unit, &format!("{name}.proj"), Source::Input, (c_in, c_out), 1, (stride, 1)),
    };
    let sum = unit.push(format!("{name}.add"), Op::Add, &[x, shortcut]);
    unit.push(format!("{name}.relu"), Op::Relu, &[sum]);
    unit.finish()
}

/// `<name>.0` convolution, `<name>.1` BatchNorm.
fn conv_bn(
    unit: &mut UnitBuilder,
    name: &str,
    x: Source,
    channels: (usize, usize),
    kernel: usize,
    (stride, groups): (usize, usize),
) -> Source {
    let geometry = Geometry { stride, padding: Padding::Each(kernel / 2), groups };
    let x = unit.conv(&format!("{name}.0"), x, channels, kernel, geometry);
    unit.batch_norm(&format!("{name}.1"), x, channels.1, EPS)
}

fn conv_bn_relu(
    unit: &mut UnitBuilder,
    name: &str,
    x: Source,
    channels: (usize, usize),
    kernel: usize,
    geometry: (usize, usize),
) -> Source {
    let x = conv_bn(unit, name, x, channels, kernel, geometry);
    unit.push(format!("{name}.2"), Op::Relu, &[x])
}

/// torchvision's name in the layout of timm: `trunk_output.block2.block2-0.f.a.0.weight` is `s2.b1.conv1.conv.weight`.
pub fn timm(name: &str) -> String {
    in_stages(name, |part| match part {
        "f.a.0" => "conv1.conv",
        "f.a.1" => "conv1.bn",
        "f.b.0" => "conv2.conv",
        "f.b.1" => "conv2.bn",
        "f.c.0" => "conv3.conv",
        "f.c.1" => "conv3.bn",
        "proj.0" => "downsample.conv",
        _ => "downsample.bn",
    })
}

/// The same in the layout of the checkpoints released with BRECQ: `s2.b1.f.a.weight`.
pub fn brecq(name: &str) -> String {
    in_stages(name, |part| match part {
        "f.a.0" => "f.a",
        "f.a.1" => "f.a_bn",
        "f.b.0" => "f.b",
        "f.b.1" => "f.b_bn",
        "f.c.0" => "f.c",
        "f.c.1" => "f.c_bn",
        "proj.0" => "proj",
        _ => "bn",
    })
}

/// What both layouts share: stem, head, and blocks counted from 1 in stages; `of_block` names the parts of a block.
fn in_stages(name: &str, of_block: fn(&str) -> &'static str) -> String {
    let block = || {
        let (_, rest) = name.strip_prefix("trunk_output.")?.split_once('.')?;
        let (block, rest) = rest.strip_prefix("block")?.split_once('.')?;
        let (stage, index) = block.split_once('-')?;
        let (part, tensor) = rest.rsplit_once('.')?;
        Some(format!("s{stage}.b{}.{}.{tensor}", index.parse::<usize>().ok()? + 1, of_block(part)))
    };
    let ends =
        || name.replacen("stem.0.", "stem.conv.", 1).replacen("stem.1.", "stem.bn.", 1).replacen("fc.", "head.fc.", 1);
    block().unwrap_or_else(ends)
}

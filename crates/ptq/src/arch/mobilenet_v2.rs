//! MobileNetV2 (Sandler et al., arXiv 1801.04381), with torchvision's names.

use super::blocks::{InvertedResidual, Layer, Names, Style, classifier};
use crate::graph::{Op, Role, StateDict, Unit};

const STYLE: Style = Style { rectifier: Op::Relu6, eps: 1e-5, is_same_padded: false };

/// What tells the members of the family apart.
struct Config {
    /// Channels of the images.
    input: usize,
    /// Channels and stride of the first convolution.
    stem: (usize, usize),
    stages: &'static [Stage],
    /// Channels of the last convolution.
    last: usize,
    classes: usize,
}

/// A run of inverted residuals; a row of the paper's table 2.
struct Stage {
    expansion: usize,
    channels: usize,
    repeats: usize,
    /// Of the first block; the others have 1.
    stride: usize,
}

/// A small one for 28x28 grey images.
const TINY: Config = Config {
    input: 1,
    stem: (16, 1),
    stages: &[
        Stage { expansion: 1, channels: 16, repeats: 1, stride: 1 },
        Stage { expansion: 4, channels: 24, repeats: 2, stride: 2 },
        Stage { expansion: 4, channels: 32, repeats: 2, stride: 2 },
        Stage { expansion: 4, channels: 64, repeats: 2, stride: 1 },
    ],
    last: 128,
    classes: 10,
};

/// The one of the paper's table 2, for ImageNet.
const FULL: Config = Config {
    input: 3,
    stem: (32, 2),
    stages: &[
        Stage { expansion: 1, channels: 16, repeats: 1, stride: 1 },
        Stage { expansion: 6, channels: 24, repeats: 2, stride: 2 },
        Stage { expansion: 6, channels: 32, repeats: 3, stride: 2 },
        Stage { expansion: 6, channels: 64, repeats: 4, stride: 2 },
        Stage { expansion: 6, channels: 96, repeats: 3, stride: 1 },
        Stage { expansion: 6, channels: 160, repeats: 3, stride: 2 },
        Stage { expansion: 6, channels: 320, repeats: 1, stride: 1 },
    ],
    last: 1280,
    classes: 1000,
};

/// MobileNetV2 of width 1 for ImageNet.
pub fn mobilenetv2(weights: &mut StateDict) -> Vec<Unit> {
    units(weights, &FULL)
}

/// torchvision's name in the layout of timm: `features.2.conv.1.0.weight` is `blocks.1.0.conv_dw.weight`.
pub fn timm(name: &str) -> String {
    let Some((index, part, tensor)) = feature(name) else { return name.replace("classifier.1.", "classifier.") };
    let mut first = 1;
    for (stage, Stage { repeats, .. }) in FULL.stages.iter().enumerate() {
        if (first..first + repeats).contains(&index) {
            return format!("blocks.{stage}.{}.{}.{tensor}", index - first, timm_part(part, stage == 0));
        }
        first += repeats;
    }
    let (conv, norm) = if index == 0 { ("conv_stem", "bn1") } else { ("conv_head", "bn2") };
    format!("{}.{tensor}", if part == "0" { conv } else { norm })
}

/// Position of a feature, the part of it, and the tensor of that: `features.2.conv.1.0.weight` is 2, `conv.1.0`, `weight`.
fn feature(name: &str) -> Option<(usize, &str, &str)> {
    let (index, rest) = name.strip_prefix("features.")?.split_once('.')?;
    let (part, tensor) = rest.rsplit_once('.')?;
    Some((index.parse().ok()?, part, tensor))
}

fn timm_part(part: &str, is_separable: bool) -> &'static str {
    match (part, is_separable) {
        ("conv.0.0", true) => "conv_dw",
        ("conv.1", true) => "conv_pw",
        ("conv.0.0", false) => "conv_pw",
        ("conv.0.1", _) => "bn1",
        ("conv.1.0", _) => "conv_dw",
        ("conv.1.1", _) | ("conv.2", true) => "bn2",
        ("conv.2", false) => "conv_pwl",
        _ => "bn3",
    }
}

/// The same in the layout of the checkpoints released with BRECQ, whose layers are counted without nesting.
pub fn brecq(name: &str) -> String {
    let Some((index, part, tensor)) = feature(name) else { return name.to_string() };
    let is_separable = index == 1;
    let position = match (part, is_separable) {
        ("conv.0.0", _) => 0,
        ("conv.0.1", _) => 1,
        ("conv.1.0", _) | ("conv.1", true) => 3,
        ("conv.1.1", _) | ("conv.2", true) => 4,
        ("conv.2", false) => 6,
        ("conv.3", false) => 7,
        _ => return name.to_string(),
    };
    format!("features.{index}.conv.{position}.{tensor}")
}

/// A small MobileNetV2 for 28x28 grey images and 10 classes.
pub fn mobilenetv2_tiny(weights: &mut StateDict) -> Vec<Unit> {
    units(weights, &TINY)
}

fn units(weights: &mut StateDict, config: &Config) -> Vec<Unit> {
    let (mut channels, stride) = config.stem;
    let stem = Layer::dense((config.input, channels), 3, stride);
    let mut units = vec![STYLE.rectified_unit(weights, "features.0", Role::Stem, &names("features.0"), stem)];
    for stage in config.stages {
        for index in 0..stage.repeats {
            let name = format!("features.{}", units.len());
            // Without expansion the other layers are counted from 0.
            let first = usize::from(stage.expansion != 1);
            let layer = |position: usize| format!("{name}.conv.{position}");
            let block = InvertedResidual {
                channels: (channels, stage.channels),
                expansion: stage.expansion,
                kernel: 3,
                stride: if index == 0 { stage.stride } else { 1 },
                expand: names(&layer(0)),
                depthwise: names(&layer(first)),
                project: [layer(first + 1), layer(first + 2), String::new()],
            };
            units.push(STYLE.inverted_residual(weights, &name, &block));
            channels = stage.channels;
        }
    }
    let name = format!("features.{}", units.len());
    let last = Layer::pointwise((channels, config.last));
    units.push(STYLE.rectified_unit(weights, &name, Role::Block, &names(&name), last));
    units.push(classifier(weights, "classifier.1", config.last, config.classes));
    units
}

/// The layers of what torchvision calls `ConvNormActivation`.
fn names(name: &str) -> Names {
    [0, 1, 2].map(|position| format!("{name}.{position}"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{convolution, kinds, structure};
    use crate::graph::Source;
    use crate::ops::conv::Padding;

    #[test]
    fn mobilenetv2_tiny_has_a_unit_per_inverted_residual_and_one_for_the_last_convolution() {
        let units = structure("mobilenetv2-tiny");
        let names: Vec<&str> = units.iter().map(|unit| unit.name.as_str()).collect();
        let features: Vec<String> = (0..=8).map(|index| format!("features.{index}")).collect();
        assert_eq!(names[..9], features);
        assert_eq!(names[9..], ["classifier"]);
        let conv_bn_relu6 = ["conv", "batch-norm", "relu6"];
        assert_eq!((kinds(&units[0]), kinds(&units[8])), (conv_bn_relu6.to_vec(), conv_bn_relu6.to_vec()));
        assert_eq!(kinds(&units[9]), ["global-avg-pool", "flatten", "linear"]);
        // Stem, 2 + 6 x 3 in the blocks, last convolution, linear layer.
        assert_eq!(units.iter().flat_map(|unit| &unit.nodes).filter(|node| node.op.weight().is_some()).count(), 23);
    }

    #[test]
    fn inverted_residuals_expand_filter_depthwise_project_and_add_where_the_shape_stays() {
        let units = structure("mobilenetv2-tiny");
        // Per block: hidden channels, stride of the depthwise convolution, whether the input is added.
        let blocks = [
            (16, 1, true),
            (64, 2, false),
            (96, 1, true),
            (96, 2, false),
            (128, 1, true),
            (128, 1, false),
            (256, 1, true),
        ];
        for (index, (unit, (hidden, stride, adds))) in units[1..8].iter().zip(blocks).enumerate() {
            let expand: &[&str] = if index == 0 { &[] } else { &["conv", "batch-norm", "relu6"] };
            let add: &[&str] = if adds { &["add"] } else { &[] };
            let body = ["conv", "batch-norm", "relu6", "conv", "batch-norm"];
            assert_eq!(kinds(unit), [expand, &body, add].concat(), "{}", unit.name);
            let depthwise = if index == 0 { "0.0" } else { "1.0" };
            let geometry = convolution(&units, &format!("{}.conv.{depthwise}", unit.name));
            assert_eq!(geometry, (stride, Padding::Each(1), hidden), "{}", unit.name);
            if adds {
                let add = &unit.nodes[unit.nodes.len() - 1];
                assert_eq!(add.inputs, [Source::Node(unit.nodes.len() - 2), Source::Input], "{}", unit.name);
            }
        }
    }
}

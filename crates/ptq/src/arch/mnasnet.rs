//! MNasNet-B1 (Tan et al., arXiv 1807.11626), with torchvision's names.

use super::blocks::{InvertedResidual, Layer, Names, Style, classifier};
use crate::graph::{Op, Role, StateDict, Unit};

const STYLE: Style = Style { rectifier: Op::Relu, eps: 1e-5, is_same_padded: false };
/// Channels of the last convolution.
const LAST: usize = 1280;

/// A run of inverted residuals: expansion, channels at width 1, kernel, repeats, stride of the first.
const STAGES: [(usize, usize, usize, usize, usize); 6] =
    [(3, 24, 3, 3, 2), (3, 40, 5, 3, 2), (6, 80, 5, 3, 2), (6, 96, 3, 2, 1), (6, 192, 5, 4, 2), (6, 320, 3, 1, 1)];

/// Width 1.
pub fn mnasnet_1(weights: &mut StateDict) -> Vec<Unit> {
    units(weights, 1)
}

/// Width 2, which BRECQ and its successors quantize.
pub fn mnasnet_2(weights: &mut StateDict) -> Vec<Unit> {
    units(weights, 2)
}

/// The layers in front of the first inverted residual are units of their own, as in the published codes.
fn units(weights: &mut StateDict, width: usize) -> Vec<Unit> {
    let (stem, separable) = (32 * width, 16 * width);
    let unit = |position: usize| (format!("layers.{position}"), names("layers", position));
    let (name, layers) = unit(0);
    let mut units = vec![STYLE.rectified_unit(weights, &name, Role::Stem, &layers, Layer::dense((3, stem), 3, 2))];
    let (name, layers) = unit(3);
    units.push(STYLE.rectified_unit(weights, &name, Role::Block, &layers, Layer::depthwise(stem, 3, 1)));
    let (name, layers) = unit(6);
    units.push(STYLE.linear_unit(weights, &name, Role::Block, &layers, Layer::pointwise((stem, separable))));
    let mut channels = separable;
    for (stage, (expansion, base, kernel, repeats, stride)) in STAGES.into_iter().enumerate() {
        for index in 0..repeats {
            let name = format!("layers.{}.{index}", stage + 8);
            let [expand, depthwise, project] = [0, 3, 6].map(|position| {
                let [conv, norm, _] = names(&format!("{name}.layers"), position);
                [conv, norm, format!("{name}.layers.{}", position + 2)]
            });
            let (channels_in, stride) = (channels, if index == 0 { stride } else { 1 });
            channels = base * width;
            let block = InvertedResidual {
                channels: (channels_in, channels),
                expansion,
                kernel,
                stride,
                expand,
                depthwise,
                project,
            };
            units.push(STYLE.inverted_residual(weights, &name, &block));
        }
    }
    let (name, layers) = unit(14);
    units.push(STYLE.rectified_unit(weights, &name, Role::Block, &layers, Layer::pointwise((channels, LAST))));
    units.push(classifier(weights, "classifier.1", LAST, 1000));
    units
}

/// The layers from `position` of a list on.
fn names(list: &str, position: usize) -> Names {
    let conv = format!("{list}.{position}");
    let rectifier = format!("{conv}.relu");
    [conv, format!("{list}.{}", position + 1), rectifier]
}

/// torchvision's name in the layout of timm: `layers.9.1.layers.3.weight` is `blocks.2.1.conv_dw.weight`.
pub fn timm(name: &str) -> String {
    let renamed = || {
        let (layer, tensor) = name.strip_prefix("layers.")?.rsplit_once('.')?;
        let part = match layer {
            "0" => "conv_stem",
            "1" => "bn1",
            "3" => "blocks.0.0.conv_dw",
            "4" => "blocks.0.0.bn1",
            "6" => "blocks.0.0.conv_pw",
            "7" => "blocks.0.0.bn2",
            "14" => "conv_head",
            "15" => "bn2",
            _ => {
                let (block, part) = layer.split_once(".layers.")?;
                let (stage, index) = block.split_once('.')?;
                let part = match part {
                    "0" => "conv_pw",
                    "1" => "bn1",
                    "3" => "conv_dw",
                    "4" => "bn2",
                    "6" => "conv_pwl",
                    _ => "bn3",
                };
                return Some(format!("blocks.{}.{index}.{part}.{tensor}", stage.parse::<usize>().ok()? - 7));
            }
        };
        Some(format!("{part}.{tensor}"))
    };
    renamed().unwrap_or_else(|| name.replace("classifier.1.", "classifier."))
}

//! EfficientNet-Lite (github tensorflow/tpu, `models/official/efficientnet/lite`): EfficientNet (Tan and Le, arXiv 1905.11946)
//! without squeeze-and-excitation, with ReLU6, and with a stem and a head that do not grow. With timm's names.

use super::blocks::{InvertedResidual, Layer, Style, classifier, timm_names as names};
use crate::graph::{Op, Role, StateDict, Unit};

const STYLE: Style = Style { rectifier: Op::Relu6, eps: 1e-3, is_same_padded: true };
/// Channels of the first and of the last convolution.
const STEM: usize = 32;
const LAST: usize = 1280;

/// A run of inverted residuals at width and depth 1.
struct Stage {
    expansion: usize,
    channels: usize,
    kernel: usize,
    repeats: usize,
    /// Of the first block; the others have 1.
    stride: usize,
}

const STAGES: [Stage; 7] = [
    Stage { expansion: 1, channels: 16, kernel: 3, repeats: 1, stride: 1 },
    Stage { expansion: 6, channels: 24, kernel: 3, repeats: 2, stride: 2 },
    Stage { expansion: 6, channels: 40, kernel: 5, repeats: 2, stride: 2 },
    Stage { expansion: 6, channels: 80, kernel: 3, repeats: 3, stride: 2 },
    Stage { expansion: 6, channels: 112, kernel: 5, repeats: 3, stride: 1 },
    Stage { expansion: 6, channels: 192, kernel: 5, repeats: 4, stride: 2 },
    Stage { expansion: 6, channels: 320, kernel: 3, repeats: 1, stride: 1 },
];

/// Factors of channels and of repeats of Lite0 to Lite4.
const MEMBERS: [(f64, f64); 5] = [(1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8)];

/// Channels and repeats of stage number `stage` of member `LITE`. The first and the last stage are not repeated more often.
fn size<const LITE: usize>(stage: usize) -> (usize, usize) {
    let ((width, depth), Stage { channels, repeats, .. }) = (MEMBERS[LITE], &STAGES[stage]);
    let is_end = stage == 0 || stage == STAGES.len() - 1;
    let repeats = if is_end { *repeats } else { (*repeats as f64 * depth).ceil() as usize };
    // The nearest multiple of 8, and the next where that takes away more than a tenth.
    let scaled = *channels as f64 * width;
    let nearest = ((scaled + 4.0) as usize / 8 * 8).max(8);
    (if (nearest as f64) < 0.9 * scaled { nearest + 8 } else { nearest }, repeats)
}

/// The units of EfficientNet-Lite`LITE`.
pub fn units<const LITE: usize>(weights: &mut StateDict) -> Vec<Unit> {
    let stem = Layer::dense((3, STEM), 3, 2);
    let mut units = vec![STYLE.rectified_unit(weights, "conv_stem", Role::Stem, &names("", "conv_stem", "bn1"), stem)];
    let mut channels = STEM;
    for (number, stage) in STAGES.iter().enumerate() {
        let (c_out, repeats) = size::<LITE>(number);
        for index in 0..repeats {
            let name = format!("blocks.{number}.{index}");
            let layers: [(&str, &str); 3] = match stage.expansion {
                1 => [("", ""), ("conv_dw", "bn1"), ("conv_pw", "bn2")],
                _ => [("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")],
            };
            let [expand, depthwise, project] = layers.map(|(conv, norm)| names(&format!("{name}."), conv, norm));
            let block = InvertedResidual {
                channels: (channels, c_out),
                expansion: stage.expansion,
                kernel: stage.kernel,
                stride: if index == 0 { stage.stride } else { 1 },
                expand,
                depthwise,
                project,
            };
            units.push(STYLE.inverted_residual(weights, &name, &block));
            channels = c_out;
        }
    }
    let head = names("", "conv_head", "bn2");
    units.push(STYLE.rectified_unit(weights, "conv_head", Role::Block, &head, Layer::pointwise((channels, LAST))));
    units.push(classifier(weights, "classifier", LAST, 1000));
    units
}

/// timm's name in the layout of EfficientNet-PyTorch and what is derived from it, which counts blocks without stages:
/// `blocks.1.0.conv_pw.weight` is `_blocks.1._expand_conv.weight`.
pub fn efficientnet_pytorch<const LITE: usize>(name: &str) -> String {
    let Some((layer, tensor)) = name.rsplit_once('.') else { return name.to_string() };
    let renamed = match layer {
        "conv_stem" => "_conv_stem".to_string(),
        "bn1" => "_bn0".to_string(),
        "conv_head" => "_conv_head".to_string(),
        "bn2" => "_bn1".to_string(),
        "classifier" => "_fc".to_string(),
        _ => match of_block::<LITE>(layer) {
            Some(renamed) => renamed,
            None => return name.to_string(),
        },
    };
    format!("{renamed}.{tensor}")
}

fn of_block<const LITE: usize>(layer: &str) -> Option<String> {
    let mut parts = layer.strip_prefix("blocks.")?.splitn(3, '.');
    let (stage, index): (usize, usize) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let has_expansion = STAGES.get(stage)?.expansion != 1;
    let part = match (parts.next()?, has_expansion) {
        ("conv_pw", true) => "_expand_conv",
        ("bn1", true) => "_bn0",
        ("conv_dw", _) => "_depthwise_conv",
        ("bn2", true) | ("bn1", false) => "_bn1",
        ("conv_pwl", true) | ("conv_pw", false) => "_project_conv",
        _ => "_bn2",
    };
    let before: usize = (0..stage).map(|stage| size::<LITE>(stage).1).sum();
    Some(format!("_blocks.{}.{part}", before + index))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{convolution, structure};
    use super::*;
    use crate::ops::conv::Padding;

    #[test]
    fn members_have_the_blocks_of_the_published_builder() {
        let blocks = |name: &str| structure(name).iter().filter(|unit| unit.name.starts_with("blocks.")).count();
        assert_eq!([0, 1, 2, 3, 4].map(|lite| blocks(&format!("efficientnet-lite{lite}"))), [16, 21, 21, 24, 30]);
        let widths = |size: fn(usize) -> (usize, usize)| [0, 1, 2, 3, 4, 5, 6].map(|stage| size(stage).0);
        assert_eq!(widths(size::<2>), [16, 24, 48, 88, 120, 208, 352]);
        assert_eq!(widths(size::<4>), [24, 32, 56, 112, 160, 272, 448]);
    }

    #[test]
    fn convolutions_are_padded_as_in_tensorflow() {
        let units = structure("efficientnet-lite0");
        assert_eq!(convolution(&units, "conv_stem"), (2, Padding::Same, 1));
        assert_eq!(convolution(&units, "blocks.2.0.conv_dw"), (2, Padding::Same, 144));
        assert_eq!(convolution(&units, "blocks.2.1.conv_dw"), (1, Padding::Same, 240));
    }

    #[test]
    fn names_of_efficientnet_pytorch() {
        for (name, renamed) in [
            ("conv_stem.weight", "_conv_stem.weight"),
            ("bn1.running_mean", "_bn0.running_mean"),
            ("blocks.0.0.conv_dw.weight", "_blocks.0._depthwise_conv.weight"),
            ("blocks.0.0.bn2.bias", "_blocks.0._bn2.bias"),
            ("blocks.2.1.conv_pwl.weight", "_blocks.4._project_conv.weight"),
            ("blocks.6.0.bn3.weight", "_blocks.15._bn2.weight"),
            ("classifier.bias", "_fc.bias"),
        ] {
            assert_eq!(efficientnet_pytorch::<0>(name), renamed);
        }
        assert_eq!(efficientnet_pytorch::<1>("blocks.2.1.conv_pw.weight"), "_blocks.5._expand_conv.weight");
    }
}

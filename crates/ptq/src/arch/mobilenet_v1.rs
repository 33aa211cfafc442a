//! MobileNetV1 (Howard et al., arXiv 1704.04861, table 1), with timm's names.

use super::blocks::{Layer, Style, classifier, timm_names as names};
use crate::graph::{Op, Role, Source, StateDict, Unit, UnitBuilder};

const STYLE: Style = Style { rectifier: Op::Relu6, eps: 1e-5, is_same_padded: false };
const STEM: usize = 32;

/// Runs of depthwise separable convolutions: channels, repeats, stride of the first.
const STAGES: [(usize, usize, usize); 5] = [(64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2)];

/// Width 1.
pub fn mobilenetv1(weights: &mut StateDict) -> Vec<Unit> {
    let stem = Layer::dense((3, STEM), 3, 2);
    let mut units = vec![STYLE.rectified_unit(weights, "conv_stem", Role::Stem, &names("", "conv_stem", "bn1"), stem)];
    let mut c_in = STEM;
    for (number, (channels, repeats, stride)) in STAGES.into_iter().enumerate() {
        for index in 0..repeats {
            let name = format!("blocks.{number}.{index}");
            let stride = if index == 0 { stride } else { 1 };
            units.push(separable(weights, &name, (c_in, channels), stride));
            c_in = channels;
        }
    }
    units.push(classifier(weights, "classifier", c_in, 1000));
    units
}

/// Depthwise and 1x1 convolution, both rectified.
fn separable(weights: &mut StateDict, name: &str, channels: (usize, usize), stride: usize) -> Unit {
    let mut unit = UnitBuilder::new(weights, name, Role::Block);
    let prefix = format!("{name}.");
    let depthwise = Layer::depthwise(channels.0, 3, stride);
    let x = STYLE.rectified(&mut unit, Source::Input, &names(&prefix, "conv_dw", "bn1"), depthwise);
    STYLE.rectified(&mut unit, x, &names(&prefix, "conv_pw", "bn2"), Layer::pointwise(channels));
    unit.finish()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{kinds, structure};

    #[test]
    fn every_separable_convolution_is_a_unit_with_two_rectifiers() {
        let units = structure("mobilenetv1");
        assert_eq!(units.len(), 1 + 13 + 1);
        for unit in &units[1..14] {
            assert_eq!(kinds(unit), ["conv", "batch-norm", "relu6"].repeat(2), "{}", unit.name);
        }
    }
}

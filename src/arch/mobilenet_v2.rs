//! MobileNetV2 (Sandler et al., arXiv 1801.04381), with torchvision's names.

use crate::graph::{Op, Role, Source, StateDict, Unit, UnitBuilder};
use crate::ops::conv::Geometry;

const EPS: f64 = 1e-5;

/// A run of inverted residuals.
struct Stage {
    expansion: usize,
    channels: usize,
    repeats: usize,
    /// Of the first block; the others have 1.
    stride: usize,
}

/// A small one for 28x28 grey images and 10 classes.
pub fn mobilenetv2_tiny(weights: &mut StateDict) -> Vec<Unit> {
    let stages = [(1, 16, 1, 1), (4, 24, 2, 2), (4, 32, 2, 2), (4, 64, 2, 1)]
        .map(|(expansion, channels, repeats, stride)| Stage { expansion, channels, repeats, stride });
    let (stem, last) = (16, 128);
    let mut units = vec![conv_unit(weights, "features.0", Role::Stem, (1, stem), 3)];
    let mut channels = stem;
    for stage in stages {
        for index in 0..stage.repeats {
            let stride = if index == 0 { stage.stride } else { 1 };
            let name = format!("features.{}", units.len());
            units.push(inverted_residual(weights, &name, (channels, stage.channels), stage.expansion, stride));
            channels = stage.channels;
        }
    }
    let name = format!("features.{}", units.len());
    units.push(conv_unit(weights, &name, Role::Block, (channels, last), 1));
    let mut classifier = UnitBuilder::new(weights, "classifier", Role::Classifier);
    let x = classifier.push("avgpool", Op::GlobalAvgPool, &[Source::Input]);
    let x = classifier.push("flatten", Op::Flatten, &[x]);
    classifier.linear("classifier.1", x, (last, 10));
    units.push(classifier.finish());
    units
}

/// A convolution with BatchNorm and ReLU6 as a unit of its own.
fn conv_unit(weights: &mut StateDict, name: &str, role: Role, channels: (usize, usize), kernel: usize) -> Unit {
    let mut unit = UnitBuilder::new(weights, name, role);
    conv_bn_relu6(&mut unit, name, Source::Input, channels, kernel, (1, 1));
    unit.finish()
}

/// 1x1 expansion (unless its factor is 1), 3x3 depthwise convolution, 1x1 projection without activation; the input is
/// added where the shape stays.
fn inverted_residual(
    weights: &mut StateDict,
    name: &str,
    (c_in, c_out): (usize, usize),
    expansion: usize,
    stride: usize,
) -> Unit {
    let hidden = c_in * expansion;
    let mut unit = UnitBuilder::new(weights, name, Role::Block);
    let mut x = Source::Input;
    let mut position = 0;
    if expansion != 1 {
        x = conv_bn_relu6(&mut unit, &format!("{name}.conv.0"), x, (c_in, hidden), 1, (1, 1));
        position = 1;
    }
    x = conv_bn_relu6(&mut unit, &format!("{name}.conv.{position}"), x, (hidden, hidden), 3, (stride, hidden));
    let pointwise = Geometry { stride: 1, padding: 0, groups: 1 };
    x = unit.conv(&format!("{name}.conv.{}", position + 1), x, (hidden, c_out), 1, pointwise);
    x = unit.batch_norm(&format!("{name}.conv.{}", position + 2), x, c_out, EPS);
    if stride == 1 && c_in == c_out {
        unit.push(format!("{name}.add"), Op::Add, &[x, Source::Input]);
    }
    unit.finish()
}

/// `<name>.0` convolution, `<name>.1` BatchNorm, ReLU6.
fn conv_bn_relu6(
    unit: &mut UnitBuilder,
    name: &str,
    x: Source,
    channels: (usize, usize),
    kernel: usize,
    (stride, groups): (usize, usize),
) -> Source {
    let geometry = Geometry { stride, padding: kernel / 2, groups };
    let x = unit.conv(&format!("{name}.0"), x, channels, kernel, geometry);
    let x = unit.batch_norm(&format!("{name}.1"), x, channels.1, EPS);
    unit.push(format!("{name}.2"), Op::Relu6, &[x])
}

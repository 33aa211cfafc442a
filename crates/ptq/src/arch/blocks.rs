//! What networks of depthwise convolutions are made of: MobileNetV1 and V2, MNasNet, EfficientNet-Lite.

use crate::graph::{Op, Role, Source, StateDict, Unit, UnitBuilder};
use crate::ops::conv::{Geometry, Padding};

/// What all layers of one network have in common.
pub struct Style {
    /// Behind a convolution and its BatchNorm.
    pub rectifier: Op,
    /// Of the BatchNorms.
    pub eps: f64,
    /// Whether convolutions are padded as in TensorFlow, or by half their kernel on each side.
    pub is_same_padded: bool,
}

/// A square convolution.
#[derive(Clone, Copy)]
pub struct Layer {
    /// Of its input and output.
    pub channels: (usize, usize),
    pub kernel: usize,
    pub stride: usize,
    pub groups: usize,
}

impl Layer {
    pub fn dense(channels: (usize, usize), kernel: usize, stride: usize) -> Layer {
        Layer { channels, kernel, stride, groups: 1 }
    }

    pub fn pointwise(channels: (usize, usize)) -> Layer {
        Layer::dense(channels, 1, 1)
    }

    pub fn depthwise(channels: usize, kernel: usize, stride: usize) -> Layer {
        Layer { channels: (channels, channels), kernel, stride, groups: channels }
    }
}

/// Names of a convolution, of its BatchNorm and of the rectifier behind them.
pub type Names = [String; 3];

/// timm's names: the rectifier is part of the BatchNorm.
pub fn timm_names(prefix: &str, conv: &str, norm: &str) -> Names {
    [format!("{prefix}{conv}"), format!("{prefix}{norm}"), format!("{prefix}{norm}.act")]
}

/// 1x1 expansion (unless its factor is 1), depthwise convolution, 1x1 projection without rectifier; the input is added where
/// the shape stays (Sandler et al., arXiv 1801.04381, figure 3b).
pub struct InvertedResidual {
    pub channels: (usize, usize),
    /// Channels of the depthwise convolution, in those of the input.
    pub expansion: usize,
    /// Of the depthwise convolution, like the stride.
    pub kernel: usize,
    pub stride: usize,
    pub expand: Names,
    pub depthwise: Names,
    pub project: Names,
}

impl Style {
    /// Convolution and BatchNorm.
    fn linear(&self, unit: &mut UnitBuilder, x: Source, [conv, norm, _]: &Names, layer: Layer) -> Source {
        let Layer { channels, kernel, stride, groups } = layer;
        let padding = if self.is_same_padded { Padding::Same } else { Padding::Each(kernel / 2) };
        let x = unit.conv(conv, x, channels, kernel, Geometry { stride, padding, groups });
        unit.batch_norm(norm, x, channels.1, self.eps)
    }

    /// Convolution, BatchNorm and rectifier.
    pub fn rectified(&self, unit: &mut UnitBuilder, x: Source, names: &Names, layer: Layer) -> Source {
        let x = self.linear(unit, x, names, layer);
        unit.push(names[2].as_str(), self.rectifier.clone(), &[x])
    }

    /// The same as a unit of its own.
    pub fn rectified_unit(&self, weights: &mut StateDict, name: &str, role: Role, names: &Names, layer: Layer) -> Unit {
        let mut unit = UnitBuilder::new(weights, name, role);
        self.rectified(&mut unit, Source::Input, names, layer);
        unit.finish()
    }

    /// The same without the rectifier.
    pub fn linear_unit(&self, weights: &mut StateDict, name: &str, role: Role, names: &Names, layer: Layer) -> Unit {
        let mut unit = UnitBuilder::new(weights, name, role);
        self.linear(&mut unit, Source::Input, names, layer);
        unit.finish()
    }

    pub fn inverted_residual(&self, weights: &mut StateDict, name: &str, block: &InvertedResidual) -> Unit {
        let InvertedResidual { channels: (c_in, c_out), expansion, kernel, stride, .. } = *block;
        let hidden = c_in * expansion;
        let mut unit = UnitBuilder::new(weights, name, Role::Block);
        let mut x = Source::Input;
        if expansion != 1 {
            x = self.rectified(&mut unit, x, &block.expand, Layer::pointwise((c_in, hidden)));
        }
        x = self.rectified(&mut unit, x, &block.depthwise, Layer::depthwise(hidden, kernel, stride));
        x = self.linear(&mut unit, x, &block.project, Layer::pointwise((hidden, c_out)));
        if stride == 1 && c_in == c_out {
            unit.push(format!("{name}.add"), Op::Add, &[x, Source::Input]);
        }
        unit.finish()
    }
}

/// Mean of each channel and the linear layer called `linear`.
pub fn classifier(weights: &mut StateDict, linear: &str, features: usize, classes: usize) -> Unit {
    let mut unit = UnitBuilder::new(weights, "classifier", Role::Classifier);
    let x = unit.push("avgpool", Op::GlobalAvgPool, &[Source::Input]);
    let x = unit.push("flatten", Op::Flatten, &[x]);
    unit.linear(linear, x, (features, classes));
    unit.finish()
}

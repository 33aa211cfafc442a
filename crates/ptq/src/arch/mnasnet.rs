//! MNasNet-B1 (Tan et al., arXiv 1807.11626), with torchvision's names.

use crate::graph::{Op, Role, Source, StateDict, Unit, UnitBuilder};
use crate::ops::conv::Geometry;

const EPS: f64 = 1e-5;
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
    let depthwise = Layer { kernel: 3, stride: 1, groups: stem };
    let pointwise = Layer { kernel: 1, stride: 1, groups: 1 };
    let mut units = vec![
        layer(weights, "layers.0", "layers.1", Role::Stem, (3, stem), Layer { kernel: 3, stride: 2, groups: 1 }, true),
        layer(weights, "layers.3", "layers.4", Role::Block, (stem, stem), depthwise, true),
        layer(weights, "layers.6", "layers.7", Role::Block, (stem, separable), pointwise, false),
    ];
    let mut channels = separable;
    for (stage, (expansion, base, kernel, repeats, stride)) in STAGES.into_iter().enumerate() {
        for index in 0..repeats {
            let name = format!("layers.{}.{index}", stage + 8);
            let stride = if index == 0 { stride } else { 1 };
            units.push(inverted_residual(weights, &name, (channels, base * width), expansion, (kernel, stride)));
            channels = base * width;
        }
    }
    units.push(layer(weights, "layers.14", "layers.15", Role::Block, (channels, LAST), pointwise, true));
    let mut unit = UnitBuilder::new(weights, "classifier", Role::Classifier);
    let x = unit.push("avgpool", Op::GlobalAvgPool, &[Source::Input]);
    let x = unit.push("flatten", Op::Flatten, &[x]);
    unit.linear("classifier.1", x, (LAST, 1000));
    units.push(unit.finish());
    units
}

/// A convolution whose padding keeps the size, but for the stride.
#[derive(Clone, Copy)]
struct Layer {
    kernel: usize,
    stride: usize,
    groups: usize,
}

impl Layer {
    fn geometry(self) -> Geometry {
        Geometry { stride: self.stride, padding: self.kernel / 2, groups: self.groups }
    }
}

/// Convolution `name` with BatchNorm `norm`, and ReLU if `activated`, as a unit of its own.
fn layer(
    weights: &mut StateDict,
    name: &str,
    norm: &str,
    role: Role,
    channels: (usize, usize),
    layer: Layer,
    activated: bool,
) -> Unit {
    let mut unit = UnitBuilder::new(weights, name, role);
    let x = unit.conv(name, Source::Input, channels, layer.kernel, layer.geometry());
    let x = unit.batch_norm(norm, x, channels.1, EPS);
    if activated {
        unit.push(format!("{name}.relu"), Op::Relu, &[x]);
    }
    unit.finish()
}

/// 1x1 expansion, depthwise convolution, 1x1 projection without activation; the input is added where the shape stays.
fn inverted_residual(
    weights: &mut StateDict,
    name: &str,
    (c_in, c_out): (usize, usize),
    expansion: usize,
    (kernel, stride): (usize, usize),
) -> Unit {
    let hidden = c_in * expansion;
    let mut unit = UnitBuilder::new(weights, name, Role::Block);
    let pointwise = Layer { kernel: 1, stride: 1, groups: 1 };
    let depthwise = Layer { kernel, stride, groups: hidden };
    let x = unit.conv(&format!("{name}.layers.0"), Source::Input, (c_in, hidden), 1, pointwise.geometry());
    let x = unit.batch_norm(&format!("{name}.layers.1"), x, hidden, EPS);
    let x = unit.push(format!("{name}.layers.2"), Op::Relu, &[x]);
    let x = unit.conv(&format!("{name}.layers.3"), x, (hidden, hidden), kernel, depthwise.geometry());
    let x = unit.batch_norm(&format!("{name}.layers.4"), x, hidden, EPS);
    let x = unit.push(format!("{name}.layers.5"), Op::Relu, &[x]);
    let x = unit.conv(&format!("{name}.layers.6"), x, (hidden, c_out), 1, pointwise.geometry());
    let x = unit.batch_norm(&format!("{name}.layers.7"), x, c_out, EPS);
    if stride == 1 && c_in == c_out {
        unit.push(format!("{name}.add"), Op::Add, &[x, Source::Input]);
    }
    unit.finish()
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

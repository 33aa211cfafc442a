//! Shapes without values: what a pass over a unit would compute, for one image.

use super::forward::interpret;
use super::op::Op;
use super::unit::{Source, Unit};
use crate::error::{Error, Result};
use crate::ops::conv::Padding;

/// Shape of the output of every node of `unit` for an input of shape `(C, H, W)`, or `(C)` behind a flattening.
///
/// Errors: a unit that takes no such input.
pub fn shapes(unit: &Unit, input: &[usize]) -> Result<Vec<Vec<usize>>> {
    let mut outputs = Vec::with_capacity(unit.nodes.len());
    interpret(unit, input.to_vec(), Source::Node(unit.nodes.len() - 1), |_, node, inputs| {
        let output = output(&node.op, &inputs[0]).ok_or_else(|| Error::Shape {
            op: "unit",
            problem: format!("{}: {} takes no input {:?}", unit.name, node.name, inputs[0]),
        })?;
        outputs.push(output.clone());
        Ok(output)
    })?;
    Ok(outputs)
}

fn output(op: &Op, input: &[usize]) -> Option<Vec<usize>> {
    Some(match (op, input) {
        (Op::Conv(conv), [_, height, width]) => {
            let (c_out, _, k_h, k_w) = conv.weight.dims4().ok()?;
            let geometry = conv.geometry;
            let out = |extent: &usize, kernel| geometry.padding.windows(*extent, kernel, geometry.stride);
            vec![c_out, out(height, k_h)?, out(width, k_w)?]
        }
        (Op::MaxPool(pool), [channels, height, width]) => {
            let out = |extent: &usize| Padding::Each(pool.padding).windows(*extent, pool.kernel, pool.stride);
            vec![*channels, out(height)?, out(width)?]
        }
        (Op::GlobalAvgPool, [channels, _, _]) => vec![*channels, 1, 1],
        (Op::PaddedIdentity { stride, padding }, [channels, height, width]) if *stride > 0 => {
            vec![channels + 2 * padding, height.div_ceil(*stride), width.div_ceil(*stride)]
        }
        (Op::Linear(linear), _) => vec![linear.weight.dim(0).ok()?],
        (Op::Flatten, _) => vec![input.iter().product()],
        (Op::BatchNorm(_) | Op::Relu | Op::Relu6 | Op::Add, _) => input.to_vec(),
        (Op::Conv(_) | Op::MaxPool(_) | Op::GlobalAvgPool | Op::PaddedIdentity { .. }, _) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::layout::TORCHVISION;
    use crate::arch::made_up;
    use crate::arch::{ARCHS, load};
    use crate::graph::forward::{FullPrecision, read};
    use candle_core::{DType, Device, Tensor};

    #[test]
    fn shapes_are_those_that_a_pass_computes() {
        for arch in ARCHS
            .iter()
            .filter(|arch| ["resnet20", "resnet20-identity", "mobilenetv2-tiny", "resnet18"].contains(&arch.name))
        {
            let tensors = made_up::tensors(arch, &TORCHVISION).unwrap();
            let network = load(arch, tensors, "made-up", &Device::Cpu).unwrap();
            let input = if arch.images[0] == 3 { (1, 3, 33, 39) } else { (1, 1, 28, 28) };
            let mut x = Tensor::zeros(input, DType::F32, &Device::Cpu).unwrap();
            for unit in &network.units {
                let shapes = shapes(unit, &x.dims()[1..]).unwrap();
                for (index, shape) in shapes.iter().enumerate() {
                    let value = read(unit, &x, &FullPrecision, Source::Node(index)).unwrap();
                    assert_eq!(value.dims()[1..], shape[..], "{} {}", arch.name, unit.nodes[index].name);
                }
                x = read(unit, &x, &FullPrecision, Source::Node(shapes.len() - 1)).unwrap();
            }
        }
    }
}

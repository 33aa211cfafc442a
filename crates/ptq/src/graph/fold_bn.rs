//! Removes BatchNorm behind convolutions, as a pass over the network.

use super::op::{Conv, Op};
use super::unit::{Network, Node, Source, Unit};
use crate::error::Result;
use crate::recipe::BatchNormMode;
use candle_core::Tensor;

/// Merges every BatchNorm that is the only consumer of a convolution into it.
///
/// With `gain = gamma / sqrt(var + eps)` per channel: [`BatchNormMode::Folded`] multiplies the weight by it, so that what
/// is quantized later is `W * gain`; [`BatchNormMode::Kept`] leaves the weight alone and multiplies after the quantizer.
/// The full-precision function is the same up to rounding.
pub fn fold_bn(network: &Network, mode: BatchNormMode) -> Result<Network> {
    let units = network.units.iter().map(|unit| fold_unit(unit, |conv, norm| merge(conv, norm, mode)));
    Ok(Network { arch: network.arch, units: units.collect::<Result<_>>()? })
}

/// The units that [`fold_bn`] makes of `units`, with `parameter` in place of the bias and gain of the convolutions that it changes, whose
/// weights stay as they are: for parameters that come from elsewhere.
pub fn fold_structure(units: &[Unit], mode: BatchNormMode, parameter: &Tensor) -> Result<Vec<Unit>> {
    let gain = || (mode == BatchNormMode::Kept).then(|| parameter.clone());
    let merged = |conv: &Conv, _: &super::op::BatchNorm| {
        Ok(Conv { bias: Some(parameter.clone()), gain: gain(), ..conv.clone() })
    };
    units.iter().map(|unit| fold_unit(unit, merged)).collect()
}

fn fold_unit(unit: &Unit, merge: impl Fn(&Conv, &super::op::BatchNorm) -> Result<Conv>) -> Result<Unit> {
    let mut nodes: Vec<Node> = Vec::with_capacity(unit.nodes.len());
    // New position of each old node; a folded BatchNorm is where its convolution is.
    let mut moved: Vec<usize> = Vec::with_capacity(unit.nodes.len());
    for node in &unit.nodes {
        let inputs: Vec<Source> = node
            .inputs
            .iter()
            .map(|input| match input {
                Source::Input => Source::Input,
                Source::Node(old) => Source::Node(moved[*old]),
            })
            .collect();
        if let (Op::BatchNorm(norm), [old], [Source::Node(new)]) = (&node.op, &node.inputs[..], &inputs[..])
            && let (Op::Conv(conv), 1) = (&nodes[*new].op, unit.consumers(*old).count())
        {
            nodes[*new].op = Op::Conv(merge(conv, norm)?);
            moved.push(*new);
            continue;
        }
        moved.push(nodes.len());
        nodes.push(Node { name: node.name.clone(), op: node.op.clone(), inputs });
    }
    Ok(Unit { name: unit.name.clone(), role: unit.role, nodes })
}

fn merge(conv: &Conv, norm: &super::op::BatchNorm, mode: BatchNormMode) -> Result<Conv> {
    let (gain, mut bias) = norm.affine()?;
    if let Some(own) = &conv.bias {
        bias = (bias + (own * &gain)?)?;
    }
    let (weight, gain) = match mode {
        BatchNormMode::Folded => (conv.weight.broadcast_mul(&gain.reshape((gain.elem_count(), 1, 1, 1))?)?, None),
        BatchNormMode::Kept => (conv.weight.clone(), Some(gain)),
    };
    Ok(Conv { weight, bias: Some(bias), gain, geometry: conv.geometry })
}

//! The one interpreter of units: full precision, range search, soft- and hard-quantized passes differ in their [`Hooks`].

use super::op::{BatchNorm, Conv, Op};
use super::unit::{Node, Source, Unit};
use crate::error::{Error, Result};
use crate::ops::channels::scale_rows;
use crate::ops::padded_identity::padded_identity;
use crate::ops::tape::plain;
use crate::ops::{conv, pool, relu};
use candle_core::Tensor;

/// What happens to weights and activations on their way; the default changes nothing.
pub trait Hooks {
    /// The weight that node `node` uses instead of its full-precision one.
    fn weight(&self, _node: usize, weight: &Tensor) -> Result<Tensor> {
        Ok(weight.clone())
    }

    /// What node `node` sees at input `slot` instead of `x`.
    fn input(&self, _node: usize, _slot: usize, x: Tensor) -> Result<Tensor> {
        Ok(x)
    }

    /// What the consumers of node `node` see instead of `y`.
    fn output(&self, _node: usize, y: Tensor) -> Result<Tensor> {
        Ok(y)
    }

    /// Whether node `to` sees what its only input, node `from`, computes, so that both may be computed in one pass.
    fn passes_on(&self, _from: usize, _to: usize) -> bool {
        false
    }
}

/// The full-precision pass.
pub struct FullPrecision;

impl Hooks for FullPrecision {
    fn passes_on(&self, _from: usize, _to: usize) -> bool {
        true
    }
}

/// Output of `unit` for input `x`.
pub fn forward(unit: &Unit, x: &Tensor, hooks: &impl Hooks) -> Result<Tensor> {
    read(unit, x, hooks, Source::Node(unit.nodes.len() - 1))
}

/// `x` through full-precision units.
pub fn through<'u>(mut units: impl Iterator<Item = &'u Unit>, x: &Tensor) -> Result<Tensor> {
    units.try_fold(x.clone(), |x, unit| forward(unit, &x, &FullPrecision))
}

/// What a consumer of `source` reads when the input of `unit` is `x`; later nodes are not computed.
pub fn read(unit: &Unit, x: &Tensor, hooks: &impl Hooks, source: Source) -> Result<Tensor> {
    let Source::Node(last) = source else { return Ok(x.clone()) };
    interpret(unit, x.clone(), source, |index, node, inputs| {
        let inputs = inputs.into_iter().enumerate().map(|(slot, value)| hooks.input(index, slot, value));
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let is_done = matches!(node.inputs[..], [Source::Node(from)] if fused(unit, from, last, hooks).is_some());
        let y = match is_done {
            true => inputs[0].clone(),
            false => {
                let weight = node.op.weight().map(|weight| hooks.weight(index, weight)).transpose()?;
                apply(&node.op, &inputs, weight.as_ref(), fused(unit, index, last, hooks))?
            }
        };
        hooks.output(index, y)
    })
}

/// The upper bound of the rectifier that is computed with node `index`: it is the only one to read it, comes at `last` at the
/// latest, and nothing happens in between.
fn fused(unit: &Unit, index: usize, last: usize, hooks: &impl Hooks) -> Option<f32> {
    let can_rectify = match unit.nodes[index].op {
        Op::Conv(_) => true,
        Op::Add => unit.nodes[index].inputs.len() == 2,
        _ => false,
    };
    if !can_rectify {
        return None;
    }
    let mut readers = unit.nodes.iter().enumerate().filter(|(_, node)| node.inputs.contains(&Source::Node(index)));
    let (Some((reader, node)), None) = (readers.next(), readers.next()) else { return None };
    let upper = match node.op {
        Op::Relu => f32::INFINITY,
        Op::Relu6 => 6.0,
        _ => return None,
    };
    (reader <= last && hooks.passes_on(index, reader)).then_some(upper)
}

/// Computes the nodes of `unit` in order up to `source`, each by `compute` from its index and inputs, and returns what a
/// consumer of `source` reads; values of any kind flow along the edges.
pub fn interpret<V: Clone>(
    unit: &Unit,
    x: V,
    source: Source,
    mut compute: impl FnMut(usize, &Node, Vec<V>) -> Result<V>,
) -> Result<V> {
    let Source::Node(last) = source else { return Ok(x) };
    let nodes = &unit.nodes[..=last];
    let mut values: Vec<Option<V>> = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        let inputs = node.inputs.iter().map(|input| match input {
            Source::Input => Some(x.clone()),
            Source::Node(earlier) => values.get(*earlier).cloned().flatten(),
        });
        let Some(inputs) = inputs.collect::<Option<Vec<V>>>() else { return Err(out_of_order(unit, node)) };
        for input in &node.inputs {
            // What nobody reads any more makes room; range searches pass hundreds of images at once.
            if let Source::Node(earlier) = input
                && !nodes[index + 1..].iter().any(|later| later.inputs.contains(input))
            {
                values[*earlier] = None;
            }
        }
        values.push(Some(compute(index, node, inputs)?));
    }
    values.pop().flatten().ok_or_else(|| out_of_order(unit, &unit.nodes[last]))
}

fn out_of_order(unit: &Unit, node: &Node) -> Error {
    Error::Shape { op: "unit", problem: format!("{}: {} reads a node that comes later", unit.name, node.name) }
}

/// `op` on `inputs`, with `weight` in place of its own, and the rectifier behind it ([`fused`]), if there is an `upper`.
fn apply(op: &Op, inputs: &[Tensor], weight: Option<&Tensor>, upper: Option<f32>) -> Result<Tensor> {
    let x = &inputs[0];
    Ok(match op {
        Op::Conv(layer) => {
            let (weight, bias) = (layer.scaled(weight.unwrap_or(&layer.weight))?, layer.bias.as_ref());
            match upper {
                Some(upper) => conv::conv2d_relu(x, &weight, bias, layer.geometry, upper)?,
                None => conv::conv2d(x, &weight, bias, layer.geometry)?,
            }
        }
        Op::Linear(layer) => {
            let y = plain::matmul(x, &plain::t(weight.unwrap_or(&layer.weight))?)?;
            match &layer.bias {
                Some(bias) => plain::broadcast_add(&y, bias)?,
                None => y,
            }
        }
        Op::BatchNorm(norm) => {
            let (gain, bias) = norm.affine()?;
            let shape = (1, gain.elem_count(), 1, 1);
            plain::broadcast_add(&plain::broadcast_mul(x, &gain.reshape(shape)?)?, &bias.reshape(shape)?)?
        }
        Op::Relu => relu::relu(x)?,
        Op::Relu6 => relu::clipped_relu(x, 6.0)?,
        Op::Add if let (Some(upper), [a, b]) = (upper, inputs) => relu::clipped_relu_of_sum(a, b, upper)?,
        Op::Add => inputs[1..].iter().try_fold(x.clone(), |sum, term| plain::add(&sum, term))?,
        Op::MaxPool(window) => pool::max_pool2d(x, *window)?,
        Op::GlobalAvgPool => plain::mean_of_planes(x)?,
        Op::Flatten => plain::flatten_from(x, 1)?,
        Op::PaddedIdentity { stride, padding } => padded_identity(x, *stride, *padding)?,
    })
}

impl Conv {
    /// `weight` times the gain, if there is one: the gain of an output channel commutes with the convolution and is
    /// cheaper on the weight.
    pub fn scaled(&self, weight: &Tensor) -> Result<Tensor> {
        match &self.gain {
            None => Ok(weight.clone()),
            Some(gain) => Ok(scale_rows(weight, gain)?),
        }
    }
}

impl BatchNorm {
    /// Gain and bias of the affine map that this is in evaluation mode:
    /// `gain = weight / sqrt(var + eps)`, `bias = bias - mean * gain`; both `(C)`.
    pub fn affine(&self) -> Result<(Tensor, Tensor)> {
        let gain = (&self.weight / (&self.var + self.eps)?.sqrt()?)?;
        let bias = (&self.bias - (&self.mean * &gain)?)?;
        Ok((gain, bias))
    }
}

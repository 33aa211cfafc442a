//! Passes over quantized units that carry a directional derivative along.
//!
//! The derivative of a virtual update is a mixed second derivative of the inner loss: with `u` the adjoint of the inner
//! gradient `g = dL_Q/dtheta`, it is `d<u, g>/dx`. Now `<u, g>` is the derivative of `L_Q` in direction `u`, which one
//! forward pass over values *and tangents* computes; its ordinary gradient to `x` is the mixed derivative, exactly. So no
//! backward pass is ever differentiated: two passes forward, one backward, nothing kept from one iteration to the next.
//!
//! Everything here is made of differentiable operations in `f32` or `f64`. Straight-through rounding is the affine
//! function of [`Linearised`]; central differences keep it as it was at the point they are taken around
//! ([`Roundings`]).

use crate::error::{Error, Result};
use crate::graph::forward::interpret;
use crate::graph::{Op, Source};
use crate::ops::conv::conv2d;
use crate::ops::dual::{Dual, Roundings, sum};
use crate::ops::fake_quant::{Linearised, Mask};
use crate::ops::padded_identity::padded_identity;
use crate::ops::pool::{Maxima, max_pool2d};
use crate::ops::relu::{clipped_relu, gate};
use crate::ops::rounding::Regulariser;
use crate::ops::tape::plain;
use crate::quant::model::{Acts, QuantUnit};
use crate::quant::weight::DualMode;
use candle_core::{Tensor, Var};

/// One pass.
pub struct DualPass<'a> {
    pub unit: &'a QuantUnit,
    /// The direction: its quantizers hold the tangents of what `unit` learns.
    pub direction: Option<&'a QuantUnit>,
    /// Whether weights are as while their rounding is learned, or finished.
    pub soft: bool,
    /// Whether gradients flow to what is learned in the unit; their kernels are a good part of a backward pass.
    pub learns: bool,
    pub acts: Acts<'a>,
    pub roundings: &'a Roundings,
}

impl DualPass<'_> {
    /// Output of the unit for input `x`. Gradient: to `x`, and to what the unit learns if it `learns`.
    pub fn forward(&self, x: Dual) -> Result<Dual> {
        let unit = &self.unit.fp;
        interpret(unit, x, Source::Node(unit.nodes.len() - 1), |index, node, inputs| {
            let placement = &self.unit.placement;
            let sites = placement.on_input[index].iter().enumerate();
            let inputs = inputs.into_iter().zip(sites).map(|(x, (slot, site))| self.act(*site, x, index, Some(slot)));
            let inputs = inputs.collect::<Result<Vec<_>>>()?;
            let weight = node.op.weight().map(|weight| self.weight(index, weight)).transpose()?;
            self.act(placement.on_output[index], apply(&node.op, &inputs, weight.as_ref())?, index, None)
        })
    }

    fn weight(&self, node: usize, full_precision: &Tensor) -> Result<Dual> {
        let Some(quantizer) = &self.unit.weights[node] else { return Ok(Dual::constant(full_precision.clone())) };
        let direction = self.direction.and_then(|direction| direction.weights[node].as_ref());
        let mode = DualMode { soft: self.soft, learns: self.learns, roundings: self.roundings };
        (quantizer.rounding.dual)(quantizer, direction, &mode)
    }

    fn parameter(&self, var: &Var) -> Tensor {
        if self.learns { var.as_tensor().clone() } else { var.as_detached_tensor() }
    }

    fn act(&self, site: Option<usize>, x: Dual, node: usize, slot: Option<usize>) -> Result<Dual> {
        let Some(site) = site else { return Ok(x) };
        let mask = match self.acts {
            Acts::FullPrecision => return Ok(x),
            Acts::Quantized | Acts::Fixed => Mask::All,
            Acts::Dropped(masks) => masks.mask(node, slot),
        };
        let quantizer = &self.unit.acts[site];
        let factor = f64::from(quantizer.fake_quant(&x.value, Mask::All)?.scale_gradient_factor);
        let Linearised { slope, level } = self.roundings.next(|| {
            let quant = quantizer.fake_quant(&x.value, mask)?;
            Ok(Linearised::at(&x.value.detach(), &quantizer.scale.as_detached_tensor(), &quant)?)
        })?;
        let scale = scaled_gradient(&self.parameter(&quantizer.scale), factor)?;
        let value = plain::add(&plain::mul(&x.value, &slope)?, &plain::broadcast_mul(&level, &scale)?)?;
        let of_x = x.tangent.map(|tangent| plain::mul(&tangent, &slope)).transpose()?;
        let of_scale = self.direction.map(|direction| -> Result<Tensor> {
            Ok(level.broadcast_mul(&(direction.acts[site].scale.as_detached_tensor() * factor)?)?)
        });
        Ok(Dual { value, tangent: sum(of_x, of_scale.transpose()?)? })
    }
}

/// `x` with its gradient multiplied by `factor`.
fn scaled_gradient(x: &Tensor, factor: f64) -> Result<Tensor> {
    match factor == 1.0 {
        true => Ok(x.clone()),
        false => Ok(plain::add(&plain::affine(x, factor, 0.0)?, &(x.detach() * (1.0 - factor))?)?),
    }
}

/// `op` on duals; every operation but the activation functions and max-pooling is linear in its input.
fn apply(op: &Op, inputs: &[Dual], weight: Option<&Dual>) -> Result<Dual> {
    let x = &inputs[0];
    match (op, weight) {
        (Op::Conv(layer), Some(weight)) => {
            let weight = weight.map(|weight| layer.scaled(weight))?;
            bilinear(x, &weight, |x, w, has_bias| {
                conv2d(x, w, layer.bias.as_ref().filter(|_| has_bias), layer.geometry)
            })
        }
        (Op::Linear(layer), Some(weight)) => bilinear(x, weight, |x, w, has_bias| {
            let y = plain::matmul(x, &plain::t(w)?)?;
            match layer.bias.as_ref().filter(|_| has_bias) {
                Some(bias) => Ok(plain::broadcast_add(&y, bias)?),
                None => Ok(y),
            }
        }),
        (Op::BatchNorm(norm), _) => {
            let (gain, bias) = norm.affine()?;
            let shape = (1, gain.elem_count(), 1, 1);
            let (gain, bias) = (gain.reshape(shape)?, bias.reshape(shape)?);
            let scaled = x.map(|x| Ok(plain::broadcast_mul(x, &gain)?))?;
            Ok(Dual { value: plain::broadcast_add(&scaled.value, &bias)?, tangent: scaled.tangent })
        }
        (Op::Relu, _) => rectified(x, f32::INFINITY),
        (Op::Relu6, _) => rectified(x, 6.0),
        (Op::Add, _) => inputs[1..].iter().try_fold(x.clone(), |total, term| {
            Ok(Dual {
                value: plain::add(&total.value, &term.value)?,
                tangent: sum(total.tangent, term.tangent.clone())?,
            })
        }),
        (Op::MaxPool(window), _) => match &x.tangent {
            None => Ok(Dual::constant(max_pool2d(&x.value, *window)?)),
            Some(_) => {
                let maxima = Maxima::of(&x.value, *window)?;
                x.map(|x| maxima.pick(x))
            }
        },
        (Op::GlobalAvgPool, _) => x.map(|x| Ok(plain::mean_of_planes(x)?)),
        (Op::Flatten, _) => x.map(|x| Ok(plain::flatten_from(x, 1)?)),
        (Op::PaddedIdentity { stride, padding }, _) => x.map(|x| padded_identity(x, *stride, *padding)),
        (Op::Conv(_) | Op::Linear(_), None) => {
            Err(Error::Shape { op: "dual pass", problem: format!("a {} without a weight", op.kind()) })
        }
    }
}

/// `f(x, w)` bilinear, plus a bias where the flag is set.
fn bilinear(x: &Dual, w: &Dual, f: impl Fn(&Tensor, &Tensor, bool) -> Result<Tensor>) -> Result<Dual> {
    let of_x = x.tangent.as_ref().map(|tangent| f(tangent, &w.value, false)).transpose()?;
    let of_w = w.tangent.as_ref().map(|tangent| f(&x.value, tangent, false)).transpose()?;
    Ok(Dual { value: f(&x.value, &w.value, true)?, tangent: sum(of_x, of_w)? })
}

fn rectified(x: &Dual, upper: f32) -> Result<Dual> {
    let value = clipped_relu(&x.value, upper)?;
    let tangent = x.tangent.as_ref().map(|tangent| gate(tangent, &value, upper)).transpose()?;
    Ok(Dual { value, tangent })
}

/// `mean over batch and positions of sum over channels of (y_q - y_fp)^2` and its derivative. Gradient: to `y_q`.
pub fn squared_error(y_q: &Dual, y_fp: &Tensor) -> Result<Dual> {
    let means = (y_fp.elem_count() / y_fp.dim(1)?) as f64;
    let difference = plain::sub(&y_q.value, &y_fp.detach())?;
    let tangent = y_q
        .tangent
        .as_ref()
        .map(|tangent| plain::affine(&plain::sum_all(&plain::mul(&difference, tangent)?)?, 2.0 / means, 0.0));
    let value = plain::affine(&plain::sum_all(&plain::sqr(&difference)?)?, 1.0 / means, 0.0)?;
    Ok(Dual { value, tangent: tangent.transpose()? })
}

/// The regularisers of the roundings of all weights, added up, and their derivative; `None` where no rounding has one. Gradient: to what
/// the roundings learn.
pub fn rounding_penalty(
    unit: &QuantUnit,
    direction: Option<&QuantUnit>,
    regulariser: Regulariser,
) -> Result<Option<Dual>> {
    let mut total: Option<Dual> = None;
    for (node, quantizer) in unit.weights.iter().enumerate() {
        let Some(quantizer) = quantizer else { continue };
        let direction = direction.and_then(|direction| direction.weights[node].as_ref());
        let Some(own) = (quantizer.rounding.penalty)(quantizer, direction, regulariser)? else { continue };
        total = Some(match total {
            None => own,
            Some(total) => {
                Dual { value: plain::add(&total.value, &own.value)?, tangent: sum(total.tangent, own.tangent)? }
            }
        });
    }
    Ok(total)
}

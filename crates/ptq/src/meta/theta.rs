//! `theta`: the trained parameters of a unit as one vector, and units with other values in their place.

use crate::error::Result;
use crate::quant::model::QuantUnit;
use crate::recon::train::Phase;
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};
use std::collections::HashMap;
use std::iter::once;

/// The elements of `tensors`, one after the other, in one copy from their device.
pub fn numbers(tensors: &[Tensor]) -> Result<Vec<f64>> {
    match tensors.is_empty() {
        true => Ok(Vec::new()),
        false => Ok(flat(tensors.iter().cloned().map(Ok))?.to_vec1()?),
    }
}

/// All elements of `tensors`, one after the other, as `f64`; gradients go back to each.
pub fn flat(tensors: impl Iterator<Item = candle_core::Result<Tensor>>) -> Result<Tensor> {
    let tensors: Vec<Tensor> = tensors.map(|tensor| tensor?.flatten_all()).collect::<candle_core::Result<_>>()?;
    Ok(Tensor::cat(&tensors, 0)?.to_dtype(DType::F64)?)
}

/// The gradients of the trained parameters of `unit`, one after the other, as `f64`; zero where there is none.
pub fn collect(unit: &QuantUnit, phase: &Phase, gradients: &GradStore) -> Result<Tensor> {
    let of_parameters = phase.parameters(unit).into_iter();
    flat(of_parameters.map(|(var, _)| gradients.get(var).map_or_else(|| var.zeros_like(), |of| Ok(of.detach()))))
}

/// `unit` with `values` as its trained parameters.
pub fn with_values(unit: &QuantUnit, phase: &Phase, values: &Tensor) -> Result<QuantUnit> {
    replaced(unit, phase, values, |var| Ok(var.clone()))
}

/// `unit` with `u` in place of its trained parameters, and 0 in place of what it does not train.
pub fn direction(unit: &QuantUnit, phase: &Phase, u: &Tensor) -> Result<QuantUnit> {
    replaced(unit, phase, u, |var| Ok(Var::from_tensor(&var.as_detached_tensor().zeros_like()?)?))
}

/// `unit` with `values` in place of its trained parameters, one after the other, and `other` of its other ones.
fn replaced(
    unit: &QuantUnit,
    phase: &Phase,
    values: &Tensor,
    other: impl Fn(&Var) -> Result<Var>,
) -> Result<QuantUnit> {
    let mut start = 0;
    let mut trained = HashMap::new();
    for (var, _) in phase.parameters(unit) {
        let len = var.elem_count();
        let value = values.narrow(0, start, len)?.to_dtype(var.dtype())?.reshape(var.shape())?;
        trained.insert(var.id(), Var::from_tensor(&value)?);
        start += len;
    }
    let mut unit = unit.clone();
    let weights = unit.weights.iter_mut().flatten();
    let weights = weights.flat_map(|weight| once(&mut weight.scale).chain(&mut weight.learned));
    for var in weights.chain(unit.acts.iter_mut().map(|act| &mut act.scale)) {
        *var = match trained.remove(&var.id()) {
            Some(value) => value,
            None => other(var)?,
        };
    }
    Ok(unit)
}

/// The element type of the parameters of `unit`.
pub fn unit_dtype(unit: &QuantUnit) -> DType {
    let weights = unit.weights.iter().flatten().map(|weight| weight.scale.dtype());
    weights.chain(unit.acts.iter().map(|act| act.scale.dtype())).next().unwrap_or(DType::F32)
}

//! Carries the activations of the calibration sample through one unit, in batches.

use super::activations::{Activations, BATCH};
use super::event::Control;
use crate::error::Result;
use crate::graph::finite::check_finite;
use crate::graph::forward::{FullPrecision, forward, read};
use crate::graph::{Source, Unit};
use candle_core::Tensor;

/// `f` over `x` `(N, ...)`, batch by batch.
pub fn in_batches(x: &Tensor, control: &Control, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let n = x.dim(0)?;
    let mut parts = Vec::with_capacity(n.div_ceil(BATCH));
    for start in (0..n).step_by(BATCH) {
        control.check()?;
        parts.push(f(&x.narrow(0, start, BATCH.min(n - start))?)?.detach());
    }
    Ok(Tensor::cat(&parts, 0)?)
}

/// Full-precision output of `unit`. Errors: NaN or infinite ones, with the node at which they arise.
pub fn full_precision(unit: &Unit, x: &Activations, control: &Control) -> Result<Activations> {
    x.map(control, |x| {
        let y = forward(unit, x, &FullPrecision)?;
        check_finite(unit, x, &y, &FullPrecision, "in full precision")?;
        Ok(y)
    })
}

/// Full-precision value of `source` inside `unit`.
pub fn full_precision_until(unit: &Unit, x: &Activations, source: Source, control: &Control) -> Result<Activations> {
    x.map(control, |x| read(unit, x, &FullPrecision, source))
}

//! Rectified linear units with gradient 0 on the bounds, as in PyTorch (Candle: 1 for `relu`, 1/2 for `clamp`).

use super::{composed, kernel};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

/// `min(max(x, 0), upper)`.
///
/// Shapes: any, `f32` or `f64`; the result has that of `x`.  Gradient: passes where `0 < x < upper`; exact in every order.
pub fn clipped_relu(x: &Tensor, upper: f32) -> Result<Tensor> {
    match x.device().is_cpu() {
        true => x.contiguous()?.apply_op1(ClippedRelu { upper }),
        false => composed::clipped_relu(x, upper),
    }
}

/// `max(x, 0)`; see [`clipped_relu`].
pub fn relu(x: &Tensor) -> Result<Tensor> {
    clipped_relu(x, f32::INFINITY)
}

/// `t` where `0 < y < upper`, else 0: what [`clipped_relu`] with result `y` does to a tangent of its input.
///
/// Shapes: equal.  Gradient: to `t` only; exact in every order.
pub fn gate(t: &Tensor, y: &Tensor, upper: f32) -> Result<Tensor> {
    match t.device().is_cpu() {
        true => t.contiguous()?.apply_op2(&y.detach().contiguous()?, Gate { upper }),
        false => composed::gate(t, y, upper),
    }
}

struct ClippedRelu {
    upper: f32,
}

impl CustomOp1 for ClippedRelu {
    fn name(&self) -> &'static str {
        "clipped-relu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let upper = self.upper;
        let y = match storage {
            CpuStorage::F64(_) => {
                CpuStorage::F64(kernel::map(kernel::slice(storage, layout)?, |x: f64| x.max(0.0).min(upper.into())))
            }
            _ => CpuStorage::F32(kernel::map(kernel::slice(storage, layout)?, |x: f32| x.max(0.0).min(upper))),
        };
        Ok((y, layout.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(gate(grad, y, self.upper)?))
    }
}

/// `g` where `0 < y < upper`, else 0; linear in `g`, so its own gradient is itself.
struct Gate {
    upper: f32,
}

impl CustomOp2 for Gate {
    fn name(&self) -> &'static str {
        "relu-gate"
    }

    fn cpu_fwd(
        &self,
        g: &CpuStorage,
        g_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let upper = self.upper;
        let gated = match g {
            CpuStorage::F64(_) => {
                let (g, y) = (kernel::slice(g, g_layout)?, kernel::slice(y, y_layout)?);
                let upper = f64::from(upper);
                CpuStorage::F64(kernel::map2(g, y, |g: f64, y: f64| if y > 0.0 && y < upper { g } else { 0.0 }))
            }
            _ => {
                let (g, y) = (kernel::slice(g, g_layout)?, kernel::slice(y, y_layout)?);
                CpuStorage::F32(kernel::map2(g, y, |g: f32, y: f32| if y > 0.0 && y < upper { g } else { 0.0 }))
            }
        };
        Ok((gated, g_layout.shape().clone()))
    }

    fn bwd(&self, _g: &Tensor, y: &Tensor, _r: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(grad.contiguous()?.apply_op2(y, Gate { upper: self.upper })?), None))
    }
}

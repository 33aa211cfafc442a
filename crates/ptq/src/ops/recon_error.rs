//! The reconstruction error of a unit (BRECQ, arXiv 2102.05426, equations 9 and 10).

#[cfg(feature = "cuda")]
use super::cuda::{self, Values};
use super::dispatch::has_kernels;
use super::power::power;
use super::tape::apply1;
use super::tape::plain::contiguous;
use super::{composed, kernel};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use tracing::trace_span;

/// `mean over batch and positions of sum over channels of |weight * (y_q - y_fp)|^p`.
///
/// Shapes: `y_q`, `y_fp` and `weight` (if any) `(N, C, H, W)` or `(N, C)`; result: scalar.
/// Gradient (first order only): to `y_q`.  `weight` is BRECQ's `|dL/dy|` and goes with `p = 2`.
pub fn recon_error(y_q: &Tensor, y_fp: &Tensor, weight: Option<&Tensor>, p: f64) -> Result<Tensor> {
    if y_q.shape() != y_fp.shape() || weight.is_some_and(|weight| weight.shape() != y_q.shape()) {
        bail!("recon-error: shapes {:?} and {:?} differ", y_q.dims(), y_fp.dims());
    }
    let means = y_q.elem_count() / y_q.dim(1)?;
    if !has_kernels(y_q) {
        return composed::recon_error(y_q, y_fp, weight, p, means as f64);
    }
    let target = y_fp.contiguous()?;
    let weight = weight.map(Tensor::contiguous).transpose()?;
    let op = ReconError { target, weight, p: p as f32, means: means as f64 };
    apply1(&contiguous(y_q)?, op)
}

struct ReconError {
    target: Tensor,
    weight: Option<Tensor>,
    p: f32,
    /// Number of batch entries times positions.
    means: f64,
}

impl ReconError {
    /// The differences `y_q - y_fp`, weighted.
    fn differences(&self, y: &[f32]) -> Result<Vec<f32>> {
        let plain = kernel::with_slice(&self.target, |target| Ok(kernel::map2(y, target, |y, t| y - t)))?;
        match &self.weight {
            None => Ok(plain),
            Some(weight) => kernel::with_slice(weight, |weight| Ok(kernel::map2(&plain, weight, |d, w| d * w))),
        }
    }

    /// Calls `f` with target and weight on a GPU.
    #[cfg(feature = "cuda")]
    fn with_constants<R>(&self, f: impl FnOnce(&Values, Option<&Values>) -> Result<R>) -> Result<R> {
        cuda::with_values(&self.target, |target| match &self.weight {
            None => f(target, None),
            Some(weight) => cuda::with_values(weight, |weight| f(target, Some(weight))),
        })
    }

    fn value(&self, y: &[f32]) -> Result<f32> {
        let p = self.p;
        let sum = match (&self.weight, p == 2.0) {
            (None, true) => kernel::with_slice(&self.target, |t| Ok(kernel::sum2(y, t, |y, t| (y - t) * (y - t))))?,
            _ => {
                let d = self.differences(y)?;
                kernel::sum2(&d, &d, |d, _| power(d.abs(), p))
            }
        };
        Ok((sum / self.means) as f32)
    }

    /// `p |d|^(p-1) sign(d) / means`, times the weight.
    fn gradient(&self, y: &[f32], upstream: f32) -> Result<Vec<f32>> {
        let p = self.p;
        let factor = (f64::from(upstream) * f64::from(p) / self.means) as f32;
        if self.weight.is_none() && p == 2.0 {
            return kernel::with_slice(&self.target, |t| Ok(kernel::map2(y, t, |y, t| factor * (y - t))));
        }
        let d = self.differences(y)?;
        let g = kernel::map(&d, |d| factor * power(d.abs(), p - 1.0).copysign(d));
        match &self.weight {
            None => Ok(g),
            Some(weight) => kernel::with_slice(weight, |weight| Ok(kernel::map2(&g, weight, |g, w| g * w))),
        }
    }
}

impl CustomOp1 for ReconError {
    fn name(&self) -> &'static str {
        "recon-error"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let _span = trace_span!("reconstruction error").entered();
        let value = self.value(kernel::slice(storage, layout)?)?;
        Ok((CpuStorage::F32(vec![value]), Shape::from(())))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, y: &CudaStorage, at: &Layout) -> Result<(CudaStorage, Shape)> {
        let _span = trace_span!("reconstruction error").entered();
        let values = Values::of(y, at)?;
        let value =
            self.with_constants(|target, weight| cuda::recon_error(&values, target, weight, self.p, self.means))?;
        Ok((cuda::storage(value, &y.device), Shape::from(())))
    }

    fn bwd(&self, y_q: &Tensor, _value: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let _span = trace_span!("reconstruction error, gradient").entered();
        #[cfg(feature = "cuda")]
        if let candle_core::Device::Cuda(device) = y_q.device() {
            let gradient = cuda::with_all([y_q, &grad.contiguous()?], |[y, upstream]| {
                self.with_constants(|target, weight| {
                    cuda::recon_error_gradient(y, target, weight, upstream, self.p, self.means)
                })
            })?;
            return Ok(Some(cuda::tensor(gradient, y_q.shape(), device)));
        }
        let upstream = grad.to_scalar::<f32>()?;
        let gradient = kernel::with_slice(y_q, |y| self.gradient(y, upstream))?;
        Ok(Some(Tensor::from_vec(gradient, y_q.shape(), y_q.device())?))
    }
}

//! Rectified linear units with gradient 0 on the bounds, as in PyTorch (Candle: 1 for `relu`, 1/2 for `clamp`).

#[cfg(feature = "cuda")]
use super::cuda::{self, Values};
use super::kernel::bounded;
use super::tape::plain::contiguous;
use super::tape::{apply1, apply2};
use super::{composed, dispatch, kernel};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use tracing::trace_span;

/// `min(max(x, 0), upper)`; NaN stays NaN.
///
/// Shapes: any, `f32` or `f64`; the result has that of `x`.  Gradient: passes where `0 < x < upper`; exact in every order.
pub fn clipped_relu(x: &Tensor, upper: f32) -> Result<Tensor> {
    dispatch(x, || apply1(&contiguous(x)?, ClippedRelu { upper }), || composed::clipped_relu(x, upper))
}

/// `max(x, 0)`; see [`clipped_relu`].
pub fn relu(x: &Tensor) -> Result<Tensor> {
    clipped_relu(x, f32::INFINITY)
}

/// [`clipped_relu`] of `a + b` in one pass, bit for bit the same.
pub fn clipped_relu_of_sum(a: &Tensor, b: &Tensor, upper: f32) -> Result<Tensor> {
    let native = || apply2(&contiguous(a)?, &contiguous(b)?, SumRelu { upper });
    dispatch(a, native, || composed::clipped_relu(&(a + b)?, upper))
}

/// `t` where `0 < y < upper`, else 0: what [`clipped_relu`] with result `y` does to a tangent of its input.
///
/// Shapes: equal.  Gradient: to `t` only; exact in every order.
pub fn gate(t: &Tensor, y: &Tensor, upper: f32) -> Result<Tensor> {
    let native = || apply2(&contiguous(t)?, &y.detach().contiguous()?, Gate { upper });
    dispatch(t, native, || composed::gate(t, y, upper))
}

struct ClippedRelu {
    upper: f32,
}

impl CustomOp1 for ClippedRelu {
    fn name(&self) -> &'static str {
        "clipped-relu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let _span = trace_span!("relu").entered();
        let upper = self.upper;
        let y = match storage {
            CpuStorage::F64(_) => {
                let upper = f64::from(upper);
                CpuStorage::F64(kernel::map(kernel::slice(storage, layout)?, |x: f64| bounded(x, 0.0, upper)))
            }
            _ => CpuStorage::F32(kernel::map(kernel::slice(storage, layout)?, |x: f32| bounded(x, 0.0, upper))),
        };
        Ok((y, layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, at: &Layout) -> Result<(CudaStorage, Shape)> {
        let _span = trace_span!("relu").entered();
        let y = cuda::clipped_relu(&Values::of(x, at)?, self.upper)?;
        Ok((cuda::storage(y, &x.device), at.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(gate(grad, y, self.upper)?))
    }
}

struct SumRelu {
    upper: f32,
}

impl CustomOp2 for SumRelu {
    fn name(&self) -> &'static str {
        "clipped-relu of a sum"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let _span = trace_span!("relu").entered();
        if a_layout.shape() != b_layout.shape() {
            bail!("clipped-relu of a sum: {:?} and {:?}", a_layout.shape(), b_layout.shape());
        }
        let upper = self.upper;
        let y = match a {
            CpuStorage::F64(_) => {
                let (a, b) = (kernel::slice(a, a_layout)?, kernel::slice(b, b_layout)?);
                let upper = f64::from(upper);
                CpuStorage::F64(kernel::map2(a, b, |a: f64, b: f64| bounded(a + b, 0.0, upper)))
            }
            _ => {
                let (a, b) = (kernel::slice(a, a_layout)?, kernel::slice(b, b_layout)?);
                CpuStorage::F32(kernel::map2(a, b, |a: f32, b: f32| bounded(a + b, 0.0, upper)))
            }
        };
        Ok((y, a_layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, a: &CudaStorage, a_at: &Layout, b: &CudaStorage, b_at: &Layout) -> Result<(CudaStorage, Shape)> {
        let _span = trace_span!("relu").entered();
        let y = cuda::clipped_relu_of_sum(&Values::of(a, a_at)?, &Values::of(b, b_at)?, self.upper)?;
        Ok((cuda::storage(y, &a.device), a_at.shape().clone()))
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gated = gate(grad, y, self.upper)?;
        Ok((a.track_op().then(|| gated.clone()), b.track_op().then_some(gated)))
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
        let _span = trace_span!("relu, gradient").entered();
        let upper = self.upper;
        let gated = match g {
            CpuStorage::F64(_) => {
                let (g, y) = (kernel::slice(g, g_layout)?, kernel::slice(y, y_layout)?);
                let upper = f64::from(upper);
                CpuStorage::F64(kernel::map2(g, y, |g: f64, y: f64| if (y > 0.0) & (y < upper) { g } else { 0.0 }))
            }
            _ => {
                let (g, y) = (kernel::slice(g, g_layout)?, kernel::slice(y, y_layout)?);
                CpuStorage::F32(kernel::map2(g, y, |g: f32, y: f32| if (y > 0.0) & (y < upper) { g } else { 0.0 }))
            }
        };
        Ok((gated, g_layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, g: &CudaStorage, g_at: &Layout, y: &CudaStorage, y_at: &Layout) -> Result<(CudaStorage, Shape)> {
        let _span = trace_span!("relu, gradient").entered();
        let gated = cuda::gate(&Values::of(g, g_at)?, &Values::of(y, y_at)?, self.upper)?;
        Ok((cuda::storage(gated, &g.device), g_at.shape().clone()))
    }

    fn bwd(&self, _g: &Tensor, y: &Tensor, _r: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(grad.contiguous()?.apply_op2(y, Gate { upper: self.upper })?), None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::noise;
    use candle_core::{DType, Var};

    #[test]
    fn a_rectified_sum_is_both_operations_bit_for_bit() {
        for (dtype, upper) in [(DType::F32, f32::INFINITY), (DType::F32, 0.5), (DType::F64, 0.5)] {
            let [a, b] = [1, 2].map(|seed| Var::from_tensor(&noise((3, 5, 7), seed, dtype)).unwrap());
            let gradients = |together: bool| {
                let y = match together {
                    true => clipped_relu_of_sum(&a, &b, upper).unwrap(),
                    false => clipped_relu(&(a.as_tensor() + b.as_tensor()).unwrap(), upper).unwrap(),
                };
                let store = (&y * noise((3, 5, 7), 3, dtype)).unwrap().sum_all().unwrap().backward().unwrap();
                let values = |tensor: &Tensor| {
                    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()
                };
                [values(&y), values(store.get(&a).unwrap()), values(store.get(&b).unwrap())]
            };
            assert_eq!(gradients(true), gradients(false), "{dtype:?} {upper}");
        }
        let [a, b] = [(2, 3), (3, 2)].map(|shape| noise(shape, 1, DType::F32));
        assert!(clipped_relu_of_sum(&a, &b, 1.0).is_err());
    }

    #[test]
    fn nan_stays_and_other_values_keep_their_bits() {
        let x = [f32::NAN, -0.0, 0.0, -1.0, 0.25, 2.0, f32::INFINITY, f32::NEG_INFINITY];
        let bits = |upper: f32, dtype: DType| -> Vec<u32> {
            let x = Tensor::new(&x, &candle_core::Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let rectified = clipped_relu(&x, upper).unwrap();
            let of_sum = clipped_relu_of_sum(&x, &x.zeros_like().unwrap(), upper).unwrap();
            let bits = |y: Tensor| -> Vec<u32> {
                let y = y.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
                y.into_iter().map(|y| if y.is_nan() { u32::MAX } else { y.to_bits() }).collect()
            };
            assert_eq!(bits(rectified.clone()), bits(of_sum));
            bits(rectified)
        };
        for (upper, clipped) in [(2.0, 2.0), (1.0, 1.0), (f32::INFINITY, f32::INFINITY)] {
            let two = if upper == 1.0 { 1.0 } else { 2.0 };
            let expected = [0.0, 0.0, 0.0, 0.25, two, clipped, 0.0].map(f32::to_bits);
            for dtype in [DType::F32, DType::F64] {
                assert_eq!(bits(upper, dtype), [&[u32::MAX][..], &expected].concat(), "{upper} {dtype:?}");
            }
        }
    }
}

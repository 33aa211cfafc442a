//! Convolution and its two gradients as Candle operations, each one's derivative made of the other two.
//!
//! With `<a, b> = sum(a * b)`, the three are the partial derivatives of one trilinear form
//! `f(x, w, gy) = <gy, conv(x, w)>`: [`Forward`] to `gy`, [`InputGradient`] to `x`, [`WeightGradient`] to `w`.
//! Given `g`, the gradient of a result, the gradients of its two arguments are therefore again partial derivatives of
//! `f`, with `g` in the place of the third: no other formula appears below, but the gate of a rectified result.

use super::finish::Finish;
use super::vector::Real;
use super::{dense, depthwise, direct, gathered};
use crate::ops::channels::channel_sums;
#[cfg(feature = "cuda")]
use crate::ops::cuda::{self, Values};
use crate::ops::relu::gate;
use crate::ops::sizes::Sizes;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};
use tracing::trace_span;

/// `(x, w) -> conv(x, w)`, or `(x, w, bias) -> conv(x, w) + bias`; then `min(max(., 0), upper)` if there is an `upper`.
pub(super) struct Forward {
    pub sizes: Sizes,
    pub upper: Option<f32>,
}

/// `(gy, w) -> df/dx`.
pub(super) struct InputGradient(pub Sizes);

/// `(x, gy) -> df/dw`.
pub(super) struct WeightGradient(pub Sizes);

/// Which of the four ways is fastest.
enum Algorithm {
    Depthwise,
    Direct,
    Gathered,
    Products,
}

impl Algorithm {
    fn of(sizes: &Sizes) -> Algorithm {
        if sizes.is_depthwise() {
            Algorithm::Depthwise
        } else if direct::suits(sizes) {
            Algorithm::Direct
        } else if gathered::suits(sizes) {
            Algorithm::Gathered
        } else {
            Algorithm::Products
        }
    }
}

impl Forward {
    /// The bilinear one.
    fn linear(sizes: Sizes) -> Self {
        Self { sizes, upper: None }
    }

    fn compute<T: Real>(&self, x: &[T], w: &[T], bias: Option<&[T]>) -> Vec<T> {
        let finish = Finish { bias, upper: self.upper.map(|upper| T::from_f64(upper.into())) };
        match Algorithm::of(&self.sizes) {
            Algorithm::Depthwise => depthwise::forward(&self.sizes, x, w, finish),
            Algorithm::Direct => direct::forward(&self.sizes, x, w, finish),
            Algorithm::Gathered => gathered::forward(&self.sizes, x, w, finish),
            Algorithm::Products => dense::forward(&self.sizes, x, w, finish),
        }
    }

    #[cfg(feature = "cuda")]
    fn on_gpu(&self, x: &Values, w: &Values, bias: Option<&Values>) -> Result<(CudaStorage, Shape)> {
        let y = cuda::conv_forward(x, w, &self.sizes)?;
        let y = match (bias, self.upper) {
            (Some(bias), upper) => cuda::add_bias_in_place(y, x.device, bias, self.sizes.out_pixels(), upper)?,
            (None, Some(upper)) => cuda::clipped_relu_in_place(y, x.device, upper)?,
            (None, None) => y,
        };
        Ok((cuda::storage(y, x.device), self.shape()))
    }

    fn shape(&self) -> Shape {
        (self.sizes.batch, self.sizes.c_out, self.sizes.out_h, self.sizes.out_w).into()
    }

    /// The gradient to the sums with their bias, where the result is `y` and its gradient `g`.
    fn to_sums(&self, y: &Tensor, g: &Tensor) -> Result<Tensor> {
        match self.upper {
            Some(upper) => gate(g, y, upper),
            None => g.contiguous(),
        }
    }

    fn gradients(&self, x: &Tensor, w: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gx = x.track_op().then(|| g.apply_op2(w, InputGradient(self.sizes))).transpose()?;
        let gw = w.track_op().then(|| x.apply_op2(g, WeightGradient(self.sizes))).transpose()?;
        Ok((gx, gw))
    }
}

impl CustomOp2 for Forward {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, x_at: &Layout, w: &CpuStorage, w_at: &Layout) -> Result<(CpuStorage, Shape)> {
        let _span = trace_span!("convolution").entered();
        let y = match (x, w) {
            (CpuStorage::F32(x), CpuStorage::F32(w)) => {
                CpuStorage::F32(self.compute(values(x, x_at)?, values(w, w_at)?, None))
            }
            (CpuStorage::F64(x), CpuStorage::F64(w)) => {
                CpuStorage::F64(self.compute(values(x, x_at)?, values(w, w_at)?, None))
            }
            _ => bail!("conv2d of element types other than f32 or f64"),
        };
        Ok((y, self.shape()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, x_at: &Layout, w: &CudaStorage, w_at: &Layout) -> Result<(CudaStorage, Shape)> {
        let _span = trace_span!("convolution").entered();
        self.on_gpu(&Values::of(x, x_at)?, &Values::of(w, w_at)?, None)
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, y: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.gradients(x, w, &self.to_sums(y, g)?)
    }
}

impl CustomOp3 for Forward {
    fn name(&self) -> &'static str {
        "conv2d with bias"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_at: &Layout,
        w: &CpuStorage,
        w_at: &Layout,
        bias: &CpuStorage,
        bias_at: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let _span = trace_span!("convolution").entered();
        let y = match (x, w, bias) {
            (CpuStorage::F32(x), CpuStorage::F32(w), CpuStorage::F32(b)) => {
                CpuStorage::F32(self.compute(values(x, x_at)?, values(w, w_at)?, Some(values(b, bias_at)?)))
            }
            (CpuStorage::F64(x), CpuStorage::F64(w), CpuStorage::F64(b)) => {
                CpuStorage::F64(self.compute(values(x, x_at)?, values(w, w_at)?, Some(values(b, bias_at)?)))
            }
            _ => bail!("conv2d of element types other than f32 or f64"),
        };
        Ok((y, self.shape()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_at: &Layout,
        w: &CudaStorage,
        w_at: &Layout,
        bias: &CudaStorage,
        bias_at: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let _span = trace_span!("convolution").entered();
        self.on_gpu(&Values::of(x, x_at)?, &Values::of(w, w_at)?, Some(&Values::of(bias, bias_at)?))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        bias: &Tensor,
        y: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let g = self.to_sums(y, g)?;
        let (gx, gw) = self.gradients(x, w, &g)?;
        let gb = bias.track_op().then(|| channel_sums(&g)).transpose()?;
        Ok((gx, gw, gb))
    }
}

impl InputGradient {
    fn shape(&self) -> Shape {
        (self.0.batch, self.0.c_in, self.0.h, self.0.w).into()
    }

    fn compute<T: Real>(&self, gy: &[T], w: &[T]) -> Vec<T> {
        match Algorithm::of(&self.0) {
            Algorithm::Depthwise => depthwise::input_gradient(&self.0, gy, w),
            Algorithm::Direct => direct::input_gradient(&self.0, gy, w),
            Algorithm::Gathered => gathered::input_gradient(&self.0, gy, w),
            Algorithm::Products => dense::input_gradient(&self.0, gy, w),
        }
    }
}

impl CustomOp2 for InputGradient {
    fn name(&self) -> &'static str {
        "conv2d input gradient"
    }

    fn cpu_fwd(&self, gy: &CpuStorage, gy_at: &Layout, w: &CpuStorage, w_at: &Layout) -> Result<(CpuStorage, Shape)> {
        let _span = trace_span!("convolution, input gradient").entered();
        let gx = match (gy, w) {
            (CpuStorage::F32(gy), CpuStorage::F32(w)) => {
                CpuStorage::F32(self.compute(values(gy, gy_at)?, values(w, w_at)?))
            }
            (CpuStorage::F64(gy), CpuStorage::F64(w)) => {
                CpuStorage::F64(self.compute(values(gy, gy_at)?, values(w, w_at)?))
            }
            _ => bail!("conv2d input gradient of element types other than f32 or f64"),
        };
        Ok((gx, self.shape()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        gy: &CudaStorage,
        gy_at: &Layout,
        w: &CudaStorage,
        w_at: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let _span = trace_span!("convolution, input gradient").entered();
        let gx = cuda::conv_input_gradient(&Values::of(gy, gy_at)?, &Values::of(w, w_at)?, &self.0)?;
        Ok((cuda::storage(gx, &gy.device), self.shape()))
    }

    fn bwd(&self, gy: &Tensor, w: &Tensor, _gx: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let g = g.contiguous()?;
        let to_gy = gy.track_op().then(|| g.apply_op2(w, Forward::linear(self.0))).transpose()?;
        let to_w = w.track_op().then(|| g.apply_op2(gy, WeightGradient(self.0))).transpose()?;
        Ok((to_gy, to_w))
    }
}

impl WeightGradient {
    fn shape(&self) -> Shape {
        (self.0.c_out, self.0.c_in_of_group(), self.0.k_h, self.0.k_w).into()
    }

    fn compute<T: Real>(&self, x: &[T], gy: &[T]) -> Vec<T> {
        match Algorithm::of(&self.0) {
            Algorithm::Depthwise => depthwise::weight_gradient(&self.0, x, gy),
            Algorithm::Direct => direct::weight_gradient(&self.0, x, gy),
            Algorithm::Gathered => gathered::weight_gradient(&self.0, x, gy),
            Algorithm::Products => dense::weight_gradient(&self.0, x, gy),
        }
    }
}

impl CustomOp2 for WeightGradient {
    fn name(&self) -> &'static str {
        "conv2d weight gradient"
    }

    fn cpu_fwd(&self, x: &CpuStorage, x_at: &Layout, gy: &CpuStorage, gy_at: &Layout) -> Result<(CpuStorage, Shape)> {
        let _span = trace_span!("convolution, weight gradient").entered();
        let gw = match (x, gy) {
            (CpuStorage::F32(x), CpuStorage::F32(gy)) => {
                CpuStorage::F32(self.compute(values(x, x_at)?, values(gy, gy_at)?))
            }
            (CpuStorage::F64(x), CpuStorage::F64(gy)) => {
                CpuStorage::F64(self.compute(values(x, x_at)?, values(gy, gy_at)?))
            }
            _ => bail!("conv2d weight gradient of element types other than f32 or f64"),
        };
        Ok((gw, self.shape()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_at: &Layout,
        gy: &CudaStorage,
        gy_at: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let _span = trace_span!("convolution, weight gradient").entered();
        let gw = cuda::conv_weight_gradient(&Values::of(x, x_at)?, &Values::of(gy, gy_at)?, &self.0)?;
        Ok((cuda::storage(gw, &x.device), self.shape()))
    }

    fn bwd(&self, x: &Tensor, gy: &Tensor, _gw: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let g = g.contiguous()?;
        let to_x = x.track_op().then(|| gy.apply_op2(&g, InputGradient(self.0))).transpose()?;
        let to_gy = gy.track_op().then(|| x.apply_op2(&g, Forward::linear(self.0))).transpose()?;
        Ok((to_x, to_gy))
    }
}

/// The values of a contiguous tensor.
fn values<'a, T>(data: &'a [T], at: &Layout) -> Result<&'a [T]> {
    match at.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => bail!("conv2d operations take contiguous tensors only"),
    }
}

//! Fake quantization of activations: the learned-step-size quantizer of LSQ (arXiv 1902.08153) with QDrop's random
//! dropping (arXiv 2203.05740), in one pass forward and one backward.

use super::composed;
#[cfg(feature = "cuda")]
use super::cuda::{self, Values};
use super::fresh::Fresh;
use super::kernel::{self, BLOCK};
pub use super::mask::Mask;
pub use super::quantizer::{ClipOrder, FakeQuant};
use super::tape::apply2;
use super::tape::plain::contiguous;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;
use tracing::trace_span;

/// `Q(x) = scale * clip(round(x / scale), levels)` where the mask selects, `x` elsewhere; rounding is half-to-even,
/// NaN stays NaN.
///
/// Shapes: `x` any, `scale` one element; the result has the shape of `x`.
/// Gradient (first order only): to `x`, 1 where it is in range or not selected, 0 where it is clipped; to `scale`,
/// `scale_gradient_factor * sum over selected of g * (q - x / scale * in_range)` with `q` the integer level. In range
/// means `x / scale` within the closed levels before rounding ([`ClipOrder::ClipThenRound`], Genie) or after it
/// ([`ClipOrder::RoundThenClip`], BRECQ and QDrop).
pub fn fake_quant(x: &Tensor, scale: &Tensor, quant: FakeQuant) -> Result<Tensor> {
    if scale.elem_count() != 1 {
        bail!("fake-quant: the scale must have one element, got {:?}", scale.dims());
    }
    match quant.mask.has_kernel(x) {
        true => apply2(&contiguous(x)?, scale, quant),
        false => composed::fake_quant(x, scale, &quant),
    }
}

/// The affine function of input and scale that [`fake_quant`] is where nothing crosses a rounding or clipping threshold,
/// and whose derivatives, of every order, are its straight-through ones: `Q(x) = slope * x + level * scale`.
///
/// Where selected and in range `slope` is 1 and `level` is `round(v) - v`, `v = x / scale`; where clipped 0 and the bound;
/// where not selected 1 and 0. Both are constants of the shape of `x`.
#[derive(Clone, Debug)]
pub struct Linearised {
    pub slope: Tensor,
    pub level: Tensor,
}

impl Linearised {
    /// At `x`, `f32` or `f64`.
    pub fn at(x: &Tensor, scale: &Tensor, quant: &FakeQuant) -> Result<Self> {
        if !quant.mask.has_kernel(x) {
            let (slope, level) = composed::linearised(x, scale, quant)?;
            return Ok(Self { slope, level });
        }
        #[cfg(feature = "cuda")]
        if let candle_core::Device::Cuda(device) = x.device() {
            let (slope, level) =
                cuda::with_all([&x.contiguous()?, scale], |[x, scale]| cuda::linearised(x, scale, quant))?;
            let [slope, level] = [slope, level].map(|constant| cuda::tensor(constant, x.shape(), device));
            return Ok(Self { slope, level });
        }
        match x.dtype() {
            DType::F32 => Self::of::<f32>(x, scale, quant),
            _ => Self::of::<f64>(x, scale, quant),
        }
    }

    fn of<T: Rounded>(x: &Tensor, scale: &Tensor, quant: &FakeQuant) -> Result<Self> {
        let x = x.contiguous()?;
        quant.mask.check(x.elem_count())?;
        let scale = kernel::with_slice::<T, _>(scale, |scale| Ok(scale[0]))?;
        let (slope, level) = kernel::with_slice::<T, _>(&x, |x| {
            let (mut slope, mut level) = (vec![T::one(); x.len()], vec![T::zero(); x.len()]);
            let blocks = slope.par_chunks_mut(BLOCK).zip(level.par_chunks_mut(BLOCK)).zip(x.par_chunks(BLOCK));
            blocks.enumerate().for_each(|(block, ((slope, level), x))| {
                kernel::vectorised(
                    #[inline(always)]
                    || {
                        let selected = quant.mask.block(block * BLOCK, x.len());
                        for (((slope, level), &x), &selected) in slope.iter_mut().zip(level).zip(x).zip(&selected) {
                            let v = x / scale;
                            let (q, in_range) = quant.level(v);
                            if selected != 0 {
                                *slope = if in_range { T::one() } else { T::zero() };
                                *level = if in_range { q - v } else { q };
                            }
                        }
                    },
                );
            });
            Ok((slope, level))
        })?;
        Ok(Self {
            slope: Tensor::from_vec(slope, x.shape(), x.device())?,
            level: Tensor::from_vec(level, x.shape(), x.device())?,
        })
    }
}

/// Element types that can be rounded half-to-even.
trait Rounded: WithDType {
    fn rounded(self) -> Self;
}

impl Rounded for f32 {
    #[inline(always)]
    fn rounded(self) -> Self {
        self.round_ties_even()
    }
}

impl Rounded for f64 {
    #[inline(always)]
    fn rounded(self) -> Self {
        self.round_ties_even()
    }
}

impl FakeQuant {
    /// The integer level of `v = x / scale`, and whether the gradient passes.
    #[inline(always)]
    fn level<T: Rounded>(&self, v: T) -> (T, bool) {
        let (low, high) = (T::from_f64(self.levels.0.into()), T::from_f64(self.levels.1.into()));
        let rounded = v.rounded();
        let judged = match self.clip {
            ClipOrder::ClipThenRound => v,
            ClipOrder::RoundThenClip => rounded,
        };
        (kernel::bounded(rounded, low, high), (judged >= low) & (judged <= high))
    }

    fn forward(&self, x: &[f32], scale: f32) -> Vec<f32> {
        let mut y = Fresh::new(x.len());
        y.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).enumerate().for_each(|(block, (y, x))| {
            kernel::vectorised(
                #[inline(always)]
                || {
                    let selected = self.mask.block(block * BLOCK, x.len());
                    for ((y, &x), &selected) in y.iter_mut().zip(x).zip(&selected) {
                        let quantized = self.level(x / scale).0 * scale;
                        *y = if selected != 0 { quantized } else { x };
                    }
                },
            );
        });
        y.finish()
    }

    /// Gradients with respect to `x` and `scale`.
    fn backward(&self, x: &[f32], scale: f32, g: &[f32]) -> (Vec<f32>, f32) {
        let mut g_x = Fresh::new(x.len());
        let blocks = g_x.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).zip(g.par_chunks(BLOCK)).enumerate();
        let sums: Vec<f64> = blocks
            .map(|(block, ((g_x, x), g))| {
                kernel::vectorised(
                    #[inline(always)]
                    || {
                        let selected = self.mask.block(block * BLOCK, x.len());
                        let mut g_scale = [0f32; BLOCK];
                        let gradients = g_x.iter_mut().zip(&mut g_scale);
                        for (((g_x, g_scale), (&x, &g)), &selected) in gradients.zip(x.iter().zip(g)).zip(&selected) {
                            let v = x / scale;
                            let (q, in_range) = self.level(v);
                            *g_x = if in_range | (selected == 0) { g } else { 0.0 };
                            let dq_dscale = if in_range { q - v } else { q };
                            *g_scale = if selected != 0 { g * dq_dscale } else { 0.0 };
                        }
                        kernel::lane_sum(&g_scale[..x.len()])
                    },
                )
            })
            .collect();
        (g_x.finish(), (sums.iter().sum::<f64>() * f64::from(self.scale_gradient_factor)) as f32)
    }
}

impl CustomOp2 for FakeQuant {
    fn name(&self) -> &'static str {
        "fake-quant"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        s: &CpuStorage,
        s_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let _span = trace_span!("fake quantization").entered();
        let x = kernel::slice(x, x_layout)?;
        self.mask.check(x.len())?;
        let y = self.forward(x, kernel::slice(s, s_layout)?[0]);
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, x_at: &Layout, s: &CudaStorage, s_at: &Layout) -> Result<(CudaStorage, Shape)> {
        let _span = trace_span!("fake quantization").entered();
        let y = cuda::fake_quant(&Values::of(x, x_at)?, &Values::of(s, s_at)?, self)?;
        Ok((cuda::storage(y, &x.device), x_at.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, scale: &Tensor, _y: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let _span = trace_span!("fake quantization, gradient").entered();
        #[cfg(feature = "cuda")]
        if let candle_core::Device::Cuda(device) = x.device() {
            let (g_x, g_scale) = cuda::with_all([x, scale, &g.contiguous()?], |[values, scale, g]| {
                cuda::fake_quant_gradient(values, scale, g, self, x.track_op())
            })?;
            let g_x = g_x.map(|g_x| cuda::tensor(g_x, x.shape(), device));
            return Ok((g_x, Some(cuda::tensor(g_scale, scale.shape(), device))));
        }
        let scale_value = kernel::with_slice(scale, |scale: &[f32]| Ok(scale[0]))?;
        let g = g.contiguous()?;
        let (g_x, g_scale) =
            kernel::with_slice(x, |x| kernel::with_slice(&g, |g| Ok(self.backward(x, scale_value, g))))?;
        Ok((
            Some(Tensor::from_vec(g_x, x.shape(), x.device())?),
            Some(Tensor::from_vec(vec![g_scale], scale.shape(), scale.device())?),
        ))
    }
}

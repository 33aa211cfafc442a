//! AdaRound's soft rounding (arXiv 2004.10568, section 3.2) with learnable scales (Genie, arXiv 2212.04780), and its
//! regulariser: one pass forward and one backward; exponentials and powers are taken once per step and element.

use super::composed;
#[cfg(feature = "cuda")]
use super::cuda::{self, Values};
use super::dispatch::has_kernels;
use super::fresh::Fresh;
use super::kernel::{self, BLOCK, bounded};
use super::power::{power, sigmoid};
pub use super::quantizer::{Levels, Regulariser};
use super::tape::apply2;
use super::tape::plain::contiguous;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use std::sync::{Arc, OnceLock};
use tracing::trace_span;

/// AdaRound's `zeta - gamma` and `gamma`: the sigmoid is stretched beyond 0 and 1 so that it can reach both.
const STRETCH: f32 = 1.2;
const SHIFT: f32 = -0.1;

/// `r(alpha) = 1.2 sigmoid(alpha) - 0.1`; the rounding is `h = clip(r, 0, 1)`.
#[inline(always)]
fn stretched_sigmoid(alpha: f32) -> f32 {
    STRETCH * sigmoid(alpha) + SHIFT
}

/// `alpha` for which `h(alpha) = fraction`, `fraction` in `[0, 1)`.
pub fn inverse_stretched_sigmoid(fraction: f32) -> f32 {
    -(STRETCH / (fraction - SHIFT) - 1.0).ln()
}

/// Whether `0 <= x <= high`, by two comparisons without a branch between them, which would keep loops from being vectorised.
#[inline(always)]
fn within(x: f32, high: f32) -> bool {
    (x >= 0.0) & (x <= high)
}

/// A softly rounded weight.
#[derive(Clone, Debug)]
pub struct SoftWeight {
    /// `W_q`, of the weight's shape.
    pub weight: Tensor,
    /// The regulariser, a scalar, which must be added to the loss as it is: for our kernels it is a constant, and its gradient joins that
    /// of `weight` on the way to `alpha`.
    pub penalty: Option<Tensor>,
}

/// `W_q = scale * (clip(floor + h + zero_point, 0, highest) - zero_point)` with `h = clip(1.2 sigmoid(alpha) - 0.1, 0, 1)`.
///
/// Shapes: `alpha` `(C_out, ...)`, `scale` of `C_out` elements; the result has the shape of `alpha`.
/// Gradient (first order only): to `alpha` and `scale`; all clips pass it on their closed range.
pub fn soft_weight(
    alpha: &Tensor,
    scale: &Tensor,
    levels: &Levels,
    regulariser: Option<Regulariser>,
) -> Result<SoftWeight> {
    if !has_kernels(alpha) {
        let r = composed::stretched_sigmoid(alpha, STRETCH, SHIFT)?;
        let penalty = regulariser.map(|regulariser| composed::rounding_regulariser(&r, regulariser));
        return Ok(SoftWeight { weight: composed::rounded_weight(&r, scale, levels)?, penalty: penalty.transpose()? });
    }
    #[cfg(feature = "cuda")]
    if let candle_core::Device::Cuda(device) = alpha.device() {
        let op = Soft { levels: levels.clone(), regulariser, slopes: Arc::default() };
        let alpha = contiguous(alpha)?;
        let penalty = regulariser
            .map(|regulariser| cuda::with_values(&alpha, |alpha| cuda::rounding_penalty(alpha, regulariser)));
        let penalty = penalty.transpose()?.map(|penalty| cuda::tensor(penalty, (), device));
        return Ok(SoftWeight { weight: apply2(&alpha, scale, op)?, penalty });
    }
    let slopes = Arc::new(OnceLock::new());
    let op = Soft { levels: levels.clone(), regulariser, slopes: slopes.clone() };
    let weight = apply2(&contiguous(alpha)?, scale, op)?;
    let penalty = slopes.get().map(|Slopes { penalty, .. }| Tensor::new(*penalty, alpha.device()));
    Ok(SoftWeight { weight, penalty: penalty.transpose()? })
}

/// The same with `h = (alpha >= 0)`. No gradient.
pub fn hard_weight(alpha: &Tensor, scale: &Tensor, levels: &Levels) -> Result<Tensor> {
    let (alpha, scale) = (alpha.detach().contiguous()?, scale.detach());
    if !has_kernels(&alpha) {
        let up = alpha.ge(0f64)?.to_dtype(alpha.dtype())?;
        return composed::rounded_weight(&alpha.eq(&alpha)?.where_cond(&up, &alpha)?, &scale, levels);
    }
    #[cfg(feature = "cuda")]
    if let candle_core::Device::Cuda(device) = alpha.device() {
        let weight = levels.on_gpu(&alpha, &scale, cuda::hard_weight)?;
        return Ok(cuda::tensor(weight, alpha.shape(), device));
    }
    let up = |alpha: f32| {
        let up = if alpha >= 0.0 { 1.0 } else { 0.0 };
        if alpha.is_nan() { alpha } else { up }
    };
    let weight = kernel::with_slice(&alpha, |alpha| {
        let scale: &Tensor = &scale;
        kernel::with_slice(scale, |scale| {
            levels.with_constants(|levels| {
                let per_channel = levels.per_channel(alpha.len(), scale.len())?;
                let mut w = Fresh::<f32>::new(alpha.len());
                w.par_chunks_mut(BLOCK).zip(alpha.par_chunks(BLOCK)).enumerate().for_each(|(block, (w, alpha))| {
                    kernel::vectorised(
                        #[inline(always)]
                        || {
                            w.iter_mut().zip(alpha).for_each(|(r, &alpha)| *r = up(alpha));
                            levels.round(w, block * BLOCK, per_channel, scale);
                        },
                    );
                });
                Ok(w.finish())
            })
        })
    })?;
    Tensor::from_vec(weight, alpha.shape(), alpha.device())
}

/// `q = clip(round(v) + zero_point, 0, highest) - zero_point`, which comes second, and its straight-through slope: 1 where
/// `round(v) + zero_point` is in the closed range, 0 elsewhere. Half to even; NaN stays NaN.
///
/// Shapes: `v` any, `zero_point` broadcasts to it; both results have the shape of `v`. No gradient. A composition of Candle's operations
/// on every device, `f32` or `f64`.
pub fn straight_through_levels(v: &Tensor, zero_point: &Tensor, highest: f64) -> Result<(Tensor, Tensor)> {
    composed::straight_through_levels(v, zero_point, highest)
}

impl Levels {
    /// Calls `f` with the values on the CPU.
    fn with_constants<R>(&self, f: impl FnOnce(&Constants) -> Result<R>) -> Result<R> {
        let highest = self.highest;
        kernel::with_slice(&self.floor, |floor| {
            kernel::with_slice(&self.zero_point, |zero_point| f(&Constants { floor, zero_point, highest }))
        })
    }

    /// Calls `f` with a weight on a GPU.
    #[cfg(feature = "cuda")]
    fn on_gpu<R>(&self, alpha: &Tensor, scale: &Tensor, f: impl FnOnce(&cuda::Weight) -> Result<R>) -> Result<R> {
        cuda::with_all([alpha, scale, &self.floor, &self.zero_point], |[alpha, scale, floor, zero_point]| {
            f(&cuda::Weight { alpha, scale, floor, zero_point, highest: self.highest })
        })
    }
}

/// [`Levels`] on the CPU.
struct Constants<'a> {
    floor: &'a [f32],
    zero_point: &'a [f32],
    highest: f32,
}

impl Constants<'_> {
    /// The level before subtracting the zero point, and whether the gradient to `r` passes.
    #[inline(always)]
    fn level(&self, r: f32, floor: f32, zero_point: f32) -> (f32, bool) {
        let q = floor + bounded(r, 0.0, 1.0) + zero_point;
        (bounded(q, 0.0, self.highest), within(r, 1.0) & within(q, self.highest))
    }

    fn per_channel(&self, elements: usize, channels: usize) -> Result<usize> {
        if channels != self.zero_point.len() || elements != self.floor.len() || !elements.is_multiple_of(channels) {
            bail!("soft-weight: {elements} elements and {channels} scales for {} channels", self.zero_point.len());
        }
        Ok(elements / channels)
    }

    /// Turns the `r` of consecutive elements, the first of which is element `start` of the weight, into weights.
    #[inline(always)]
    fn round(&self, r: &mut [f32], start: usize, per_channel: usize, scale: &[f32]) {
        let (mut rest, mut at) = (r, start);
        while !rest.is_empty() {
            let channel = at / per_channel;
            let len = ((channel + 1) * per_channel - at).min(rest.len());
            let (of_channel, next) = rest.split_at_mut(len);
            let (scale, zero_point) = (scale[channel], self.zero_point[channel]);
            for (w, &floor) in of_channel.iter_mut().zip(&self.floor[at..at + len]) {
                *w = (self.level(*w, floor, zero_point).0 - zero_point) * scale;
            }
            (rest, at) = (next, at + len);
        }
    }
}

struct Soft {
    levels: Levels,
    regulariser: Option<Regulariser>,
    /// Left by the forward pass, since the gradient shares its powers with the value.
    slopes: Arc<OnceLock<Slopes>>,
}

/// A regulariser and its gradient to `r`.
struct Slopes {
    penalty: f32,
    of_r: Vec<f32>,
}

impl Regulariser {
    /// Its terms for a block of `r`, added up, and their derivatives.
    #[inline(always)]
    fn of_block(self, r: &[f32], slopes: &mut [f32]) -> f64 {
        let (beta, weight) = (self.beta as f32, self.weight as f32);
        let mut terms = [0f32; BLOCK];
        for ((slope, &r), term) in slopes.iter_mut().zip(r).zip(&mut terms) {
            let u = 2.0 * bounded(r, 0.0, 1.0) - 1.0;
            let below = power(u.abs(), beta - 1.0);
            *term = 1.0 - below * u.abs();
            let of_u = -2.0 * weight * beta * below.copysign(u);
            *slope = if within(r, 1.0) { of_u } else { 0.0 };
        }
        kernel::lane_sum(&terms[..r.len()])
    }
}

impl CustomOp2 for Soft {
    fn name(&self) -> &'static str {
        "soft-weight"
    }

    fn cpu_fwd(
        &self,
        alpha: &CpuStorage,
        alpha_layout: &Layout,
        scale: &CpuStorage,
        scale_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let _span = trace_span!("soft rounding").entered();
        let (alpha, scale): (&[f32], &[f32]) =
            (kernel::slice(alpha, alpha_layout)?, kernel::slice(scale, scale_layout)?);
        let w = self.levels.with_constants(|levels| {
            let per_channel = levels.per_channel(alpha.len(), scale.len())?;
            let mut w = Fresh::new(alpha.len());
            let block = |block: usize, w: &mut [f32], alpha: &[f32], slopes: Option<(Regulariser, &mut [f32])>| {
                kernel::vectorised(
                    #[inline(always)]
                    || {
                        w.iter_mut().zip(alpha).for_each(|(r, &alpha)| *r = stretched_sigmoid(alpha));
                        let sum = slopes.map_or(0.0, |(regulariser, slopes)| regulariser.of_block(w, slopes));
                        levels.round(w, block * BLOCK, per_channel, scale);
                        sum
                    },
                )
            };
            let blocks = w.par_chunks_mut(BLOCK).zip(alpha.par_chunks(BLOCK)).enumerate();
            match self.regulariser {
                None => blocks.for_each(|(at, (w, alpha))| {
                    block(at, w, alpha, None);
                }),
                Some(regulariser) => {
                    let mut of_r = Fresh::new(alpha.len());
                    let sums = blocks.zip(of_r.par_chunks_mut(BLOCK));
                    let sums = sums.map(|((at, (w, alpha)), slopes)| block(at, w, alpha, Some((regulariser, slopes))));
                    let sums: Vec<f64> = sums.collect();
                    let penalty = (f64::from(regulariser.weight as f32) * sums.iter().sum::<f64>()) as f32;
                    // Set once: an operation is applied once.
                    let _ = self.slopes.set(Slopes { penalty, of_r: of_r.finish() });
                }
            }
            Ok(w.finish())
        })?;
        Ok((CpuStorage::F32(w), alpha_layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        alpha: &CudaStorage,
        alpha_at: &Layout,
        scale: &CudaStorage,
        scale_at: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let _span = trace_span!("soft rounding").entered();
        let (values, scale) = (Values::of(alpha, alpha_at)?, Values::of(scale, scale_at)?);
        let Levels { floor, zero_point, highest } = &self.levels;
        let w = cuda::with_all([floor, zero_point], |[floor, zero_point]| {
            cuda::soft_weight(&cuda::Weight { alpha: &values, scale: &scale, floor, zero_point, highest: *highest })
        })?;
        Ok((cuda::storage(w, &alpha.device), alpha_at.shape().clone()))
    }

    fn bwd(&self, alpha: &Tensor, scale: &Tensor, _w: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let _span = trace_span!("soft rounding, gradient").entered();
        let g = g.contiguous()?;
        #[cfg(feature = "cuda")]
        if let candle_core::Device::Cuda(device) = alpha.device() {
            let (g_alpha, g_scale) = self.levels.on_gpu(alpha, scale, |weight| {
                cuda::with_values(&g, |g| cuda::soft_weight_gradient(weight, g, self.regulariser))
            })?;
            let g_alpha = cuda::tensor(g_alpha, alpha.shape(), device);
            return Ok((Some(g_alpha), Some(cuda::tensor(g_scale, scale.shape(), device))));
        }
        let (g_alpha, g_scale) = kernel::with_slice(alpha, |alpha| {
            kernel::with_slice(scale, |scale| {
                kernel::with_slice(&g, |g| self.levels.with_constants(|levels| self.backward(levels, alpha, scale, g)))
            })
        })?;
        Ok((
            Some(Tensor::from_vec(g_alpha, alpha.shape(), alpha.device())?),
            Some(Tensor::from_vec(g_scale, scale.shape(), scale.device())?),
        ))
    }
}

impl Soft {
    fn backward(&self, levels: &Constants, alpha: &[f32], scale: &[f32], g: &[f32]) -> Result<(Vec<f32>, Vec<f32>)> {
        let per_channel = levels.per_channel(alpha.len(), scale.len())?;
        let slopes = self.slopes.get().map(|slopes| slopes.of_r.as_slice());
        let mut g_alpha = Fresh::new(alpha.len());
        // Channels of few weights are not worth a task each.
        let at_once = BLOCK.div_ceil(per_channel.max(1));
        let channels = g_alpha.par_chunks_mut(per_channel).enumerate().with_min_len(at_once);
        let scratch = || [(); 2].map(|()| vec![0f32; per_channel.min(BLOCK)]);
        let g_scale = channels.map_init(scratch, |[r, terms], (channel, g_alpha)| {
            let zero_point = levels.zero_point[channel];
            let mut g_scale = 0f64;
            for (block, g_alpha) in g_alpha.chunks_mut(BLOCK).enumerate() {
                let start = channel * per_channel + block * BLOCK;
                let at = start..start + g_alpha.len();
                let slopes = slopes.map(|slopes| &slopes[at.clone()]);
                let (alpha, g, floor) = (&alpha[at.clone()], &g[at.clone()], &levels.floor[at]);
                let (r, terms) = (&mut r[..g_alpha.len()], &mut terms[..g_alpha.len()]);
                kernel::vectorised(
                    #[inline(always)]
                    || {
                        r.iter_mut().zip(alpha).for_each(|(r, &alpha)| *r = stretched_sigmoid(alpha));
                        let gradients = g_alpha.iter_mut().zip(&mut *terms);
                        for ((g_r, term), ((&r, &g), &floor)) in gradients.zip(r.iter().zip(g).zip(floor)) {
                            let (q, passes) = levels.level(r, floor, zero_point);
                            *g_r = if passes { g * scale[channel] } else { 0.0 };
                            *term = g * (q - zero_point);
                        }
                        if let Some(slopes) = slopes {
                            g_alpha.iter_mut().zip(slopes).for_each(|(g_r, slope)| *g_r += slope);
                        }
                        for (g, &r) in g_alpha.iter_mut().zip(&*r) {
                            let s = (r - SHIFT) / STRETCH;
                            *g = *g * STRETCH * s * (1.0 - s);
                        }
                        g_scale += kernel::lane_sum(terms);
                    },
                );
            }
            g_scale as f32
        });
        let g_scale = g_scale.collect();
        Ok((g_alpha.finish(), g_scale))
    }
}

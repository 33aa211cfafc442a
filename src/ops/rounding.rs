//! AdaRound's soft rounding (arXiv 2004.10568, section 3.2) with learnable scales (Genie, arXiv 2212.04780), and its
//! regulariser; exponentials and powers are taken once per step and element.

use super::composed;
use super::kernel::{self, BLOCK};
use super::power::{power, sigmoid};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use std::sync::{Arc, OnceLock};
use tracing::trace_span;

/// AdaRound's `zeta - gamma` and `gamma`: the sigmoid is stretched beyond 0 and 1 so that it can reach both.
const STRETCH: f32 = 1.2;
const SHIFT: f32 = -0.1;

/// `r(alpha) = 1.2 sigmoid(alpha) - 0.1`; the rounding is `h = clip(r, 0, 1)`.
///
/// Shapes: any.  Gradient (first order only): `1.2 sigmoid' (alpha)`, exact to f32 where `h` is not clipped.
pub fn stretched_sigmoid(alpha: &Tensor) -> Result<Tensor> {
    match alpha.device().is_cpu() {
        true => alpha.contiguous()?.apply_op1(StretchedSigmoid),
        false => composed::stretched_sigmoid(alpha, STRETCH, SHIFT),
    }
}

/// `alpha` for which `h(alpha) = fraction`, `fraction` in `[0, 1)`.
pub fn inverse_stretched_sigmoid(fraction: f32) -> f32 {
    -(STRETCH / (fraction - SHIFT) - 1.0).ln()
}

struct StretchedSigmoid;

impl CustomOp1 for StretchedSigmoid {
    fn name(&self) -> &'static str {
        "stretched-sigmoid"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let _span = trace_span!("soft rounding").entered();
        let r = kernel::map(kernel::slice(storage, layout)?, |alpha| STRETCH * sigmoid(alpha) + SHIFT);
        Ok((CpuStorage::F32(r), layout.shape().clone()))
    }

    fn bwd(&self, _alpha: &Tensor, r: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let _span = trace_span!("soft rounding, gradient").entered();
        let grad = grad.contiguous()?;
        let g_alpha = kernel::with_slice(r, |r| {
            kernel::with_slice(&grad, |g| {
                Ok(kernel::map2(g, r, |g: f32, r: f32| {
                    let s = (r - SHIFT) / STRETCH;
                    g * STRETCH * s * (1.0 - s)
                }))
            })
        })?;
        Ok(Some(Tensor::from_vec(g_alpha, r.shape(), r.device())?))
    }
}

/// The constants of a softly rounded weight.
#[derive(Clone, Debug)]
pub struct SoftWeight {
    /// `floor(W / scale_0)`, row-major, fixed when the scales were searched.
    pub floor: Arc<Vec<f32>>,
    /// Per output channel.
    pub zero_point: Arc<Vec<f32>>,
    /// `2^b - 1`.
    pub highest: f32,
}

/// `W_q = scale * (clip(floor + h + zero_point, 0, highest) - zero_point)`, `h = clip(r, 0, 1)`.
///
/// Shapes: `r` `(C_out, ...)`, `scale` of `C_out` elements; the result has the shape of `r`.
/// Gradient (first order only): to `r` and `scale`; both clips pass it on their closed range.
pub fn soft_weight(r: &Tensor, scale: &Tensor, weight: SoftWeight) -> Result<Tensor> {
    match r.device().is_cpu() {
        true => r.contiguous()?.apply_op2(scale, weight),
        false => composed::soft_weight(r, scale, &weight),
    }
}

/// Channels of so many weights that are worth a task of their own.
fn at_once(per_channel: usize) -> usize {
    BLOCK.div_ceil(per_channel.max(1))
}

impl SoftWeight {
    /// The level before subtracting the zero point, and whether the gradient to `r` passes.
    #[inline(always)]
    fn level(&self, r: f32, floor: f32, zero_point: f32) -> (f32, bool) {
        let q = floor + r.max(0.0).min(1.0) + zero_point;
        (q.max(0.0).min(self.highest), (0.0..=1.0).contains(&r) && q >= 0.0 && q <= self.highest)
    }

    fn per_channel(&self, elements: usize, channels: usize) -> Result<usize> {
        if channels != self.zero_point.len() || elements != self.floor.len() || !elements.is_multiple_of(channels) {
            bail!("soft-weight: {elements} elements and {channels} scales for {} channels", self.zero_point.len());
        }
        Ok(elements / channels)
    }
}

impl CustomOp2 for SoftWeight {
    fn name(&self) -> &'static str {
        "soft-weight"
    }

    fn cpu_fwd(
        &self,
        r: &CpuStorage,
        r_layout: &Layout,
        s: &CpuStorage,
        s_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let _span = trace_span!("soft rounding").entered();
        let (r, scale): (&[f32], &[f32]) = (kernel::slice(r, r_layout)?, kernel::slice(s, s_layout)?);
        let per_channel = self.per_channel(r.len(), scale.len())?;
        let mut w = vec![0f32; r.len()];
        let channels = w.par_chunks_mut(per_channel).zip(r.par_chunks(per_channel)).with_min_len(at_once(per_channel));
        channels.zip(self.floor.par_chunks(per_channel)).enumerate().for_each(|(c, ((w, r), floor))| {
            let (scale, zero_point) = (scale[c], self.zero_point[c]);
            kernel::vectorised(
                #[inline(always)]
                || {
                    for ((w, &r), &floor) in w.iter_mut().zip(r).zip(floor) {
                        *w = (self.level(r, floor, zero_point).0 - zero_point) * scale;
                    }
                },
            );
        });
        Ok((CpuStorage::F32(w), r_layout.shape().clone()))
    }

    fn bwd(&self, r: &Tensor, scale: &Tensor, _w: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let _span = trace_span!("soft rounding, gradient").entered();
        let g = g.contiguous()?;
        let (g_r, g_scale) = kernel::with_slice(r, |r| {
            kernel::with_slice(scale, |scale| kernel::with_slice(&g, |g| self.backward(r, scale, g)))
        })?;
        Ok((
            Some(Tensor::from_vec(g_r, r.shape(), r.device())?),
            Some(Tensor::from_vec(g_scale, scale.shape(), scale.device())?),
        ))
    }
}

impl SoftWeight {
    fn backward(&self, r: &[f32], scale: &[f32], g: &[f32]) -> Result<(Vec<f32>, Vec<f32>)> {
        let per_channel = self.per_channel(r.len(), scale.len())?;
        let mut g_r = vec![0f32; r.len()];
        let channels = g_r.par_chunks_mut(per_channel).zip(r.par_chunks(per_channel)).zip(g.par_chunks(per_channel));
        let channels = channels.zip(self.floor.par_chunks(per_channel)).with_min_len(at_once(per_channel));
        let g_scale = channels.enumerate().map(|(c, (((g_r, r), g), floor))| {
            let (scale, zero_point) = (scale[c], self.zero_point[c]);
            kernel::vectorised(
                #[inline(always)]
                || {
                    let mut g_scale = 0f64;
                    let blocks =
                        g_r.chunks_mut(BLOCK).zip(r.chunks(BLOCK)).zip(g.chunks(BLOCK).zip(floor.chunks(BLOCK)));
                    for ((g_r, r), (g, floor)) in blocks {
                        let mut terms = [0f32; BLOCK];
                        for (((g_r, &r), (&g, &floor)), term) in
                            g_r.iter_mut().zip(r).zip(g.iter().zip(floor)).zip(&mut terms)
                        {
                            let (q, passes) = self.level(r, floor, zero_point);
                            *g_r = if passes { g * scale } else { 0.0 };
                            *term = g * (q - zero_point);
                        }
                        g_scale += kernel::lane_sum(&terms[..r.len()]);
                    }
                    g_scale as f32
                },
            )
        });
        let g_scale = g_scale.collect();
        Ok((g_r, g_scale))
    }
}

/// `weight * sum(1 - |2 h - 1|^beta)`, `h = clip(r, 0, 1)`: pulls the rounding to 0 or 1.
///
/// Shapes: `r` any; result: scalar.  Gradient (first order only): to `r`, on the closed range of the clip.
pub fn rounding_regulariser(r: &Tensor, beta: f64, weight: f64) -> Result<Tensor> {
    if !r.device().is_cpu() {
        return composed::rounding_regulariser(r, beta, weight);
    }
    r.contiguous()?.apply_op1(Regulariser { beta: beta as f32, weight: weight as f32, gradient: OnceLock::new() })
}

struct Regulariser {
    beta: f32,
    weight: f32,
    /// Gradient for an upstream gradient of 1: it shares its powers with the value, so the forward pass leaves it here.
    gradient: OnceLock<Vec<f32>>,
}

impl CustomOp1 for Regulariser {
    fn name(&self) -> &'static str {
        "rounding-regulariser"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let _span = trace_span!("rounding regulariser").entered();
        let r: &[f32] = kernel::slice(storage, layout)?;
        let (beta, weight) = (self.beta, self.weight);
        let mut gradient = vec![0f32; r.len()];
        let blocks = gradient.par_chunks_mut(BLOCK).zip(r.par_chunks(BLOCK));
        let sums: Vec<f64> = blocks
            .map(|(gradient, r)| {
                kernel::vectorised(
                    #[inline(always)]
                    || {
                        let mut terms = [0f32; BLOCK];
                        for ((gradient, &r), term) in gradient.iter_mut().zip(r).zip(&mut terms) {
                            let u = 2.0 * r.max(0.0).min(1.0) - 1.0;
                            let below = power(u.abs(), beta - 1.0);
                            *term = 1.0 - below * u.abs();
                            let slope = -2.0 * weight * beta * below.copysign(u);
                            *gradient = if (0.0..=1.0).contains(&r) { slope } else { 0.0 };
                        }
                        kernel::lane_sum(&terms[..r.len()])
                    },
                )
            })
            .collect();
        let value = (f64::from(weight) * sums.iter().sum::<f64>()) as f32;
        // Set once: an operation is applied once.
        let _ = self.gradient.set(gradient);
        Ok((CpuStorage::F32(vec![value]), Shape::from(())))
    }

    fn bwd(&self, r: &Tensor, _value: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let _span = trace_span!("rounding regulariser, gradient").entered();
        let Some(gradient) = self.gradient.get() else { bail!("rounding-regulariser: backward before forward") };
        let upstream = grad.to_scalar::<f32>()?;
        Ok(Some(Tensor::from_vec(kernel::map(gradient, |g| upstream * g), r.shape(), r.device())?))
    }
}

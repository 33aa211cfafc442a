//! Adam (Kingma & Ba, arXiv 1412.6980) in place, one pass over parameter, gradient and both moments.

#[cfg(feature = "cuda")]
use super::cuda::{self, Values};
use super::dispatch::has_kernels;
use super::kernel::{self, BLOCK};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, Var, bail};
use rayon::prelude::*;
use std::sync::Mutex;
use tracing::trace_span;

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPS: f32 = 1e-8;

/// One parameter with its moments; no weight decay.
pub struct AdamState {
    var: Var,
    moments: Moments,
}

/// Running means of the gradient and of its square.
enum Moments {
    Cpu(Mutex<(Vec<f32>, Vec<f32>)>),
    #[cfg(feature = "cuda")]
    Cuda(Mutex<cuda::Moments>),
    /// Where there is no kernel, from the first step on.
    Composed(Mutex<Option<(Tensor, Tensor)>>),
}

impl AdamState {
    /// Before the first step. Errors: no memory for the moments.
    pub fn new(var: &Var) -> Result<Self> {
        let zeros = || vec![0f32; var.elem_count()];
        let moments = match var.device() {
            _ if !has_kernels(var) => Moments::Composed(Mutex::default()),
            #[cfg(feature = "cuda")]
            candle_core::Device::Cuda(device) => {
                Moments::Cuda(Mutex::new(cuda::Moments::new(var.elem_count(), device)?))
            }
            _ => Moments::Cpu(Mutex::new((zeros(), zeros()))),
        };
        Ok(Self { var: var.clone(), moments })
    }

    pub fn var(&self) -> &Var {
        &self.var
    }

    /// Step number `t >= 1` with learning rate `lr`:
    /// `p -= lr / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + 1e-8)`, as PyTorch computes it.
    pub fn step(&self, gradient: &Tensor, t: usize, lr: f64) -> Result<()> {
        let _span = trace_span!("adam").entered();
        let t = t as i32;
        let step_size = lr / (1.0 - BETA_1.powi(t));
        let correction = (1.0 - BETA_2.powi(t)).sqrt();
        match &self.moments {
            Moments::Cpu(moments) => {
                let step = Step { moments, step_size: step_size as f32, correction: correction as f32 };
                self.var.as_tensor().inplace_op2(&gradient.contiguous()?, &step)
            }
            #[cfg(feature = "cuda")]
            Moments::Cuda(moments) => {
                let step = Step { moments, step_size: step_size as f32, correction: correction as f32 };
                self.var.as_tensor().inplace_op2(&gradient.contiguous()?, &step)
            }
            Moments::Composed(moments) => {
                let Ok(mut moments) = moments.lock() else { bail!("adam: an earlier step panicked") };
                *moments = Some(composed_step(&self.var, gradient, moments.take(), step_size, correction)?);
                Ok(())
            }
        }
    }
}

/// The same from Candle's operations; gives the new moments.
fn composed_step(
    var: &Var,
    gradient: &Tensor,
    moments: Option<(Tensor, Tensor)>,
    step_size: f64,
    correction: f64,
) -> Result<(Tensor, Tensor)> {
    let g = gradient.detach();
    let (m, v) = match moments {
        Some(moments) => moments,
        None => (g.zeros_like()?, g.zeros_like()?),
    };
    let m = ((m * BETA_1)? + (&g * (1.0 - BETA_1))?)?;
    let v = ((v * BETA_2)? + (g.sqr()? * (1.0 - BETA_2))?)?;
    let root = ((v.sqrt()? / correction)? + f64::from(EPS))?;
    var.set(&(var.as_detached_tensor() - ((&m / root)? * step_size)?)?)?;
    Ok((m, v))
}

struct Step<'a, M> {
    moments: &'a Mutex<M>,
    step_size: f32,
    correction: f32,
}

impl InplaceOp2 for Step<'_, (Vec<f32>, Vec<f32>)> {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn cpu_fwd(&self, p: &mut CpuStorage, p_layout: &Layout, g: &CpuStorage, g_layout: &Layout) -> Result<()> {
        let g: &[f32] = kernel::slice(g, g_layout)?;
        let (CpuStorage::F32(p), Some((start, end))) = (p, p_layout.contiguous_offsets()) else {
            bail!("adam: expected a contiguous f32 parameter");
        };
        let Ok(mut moments) = self.moments.lock() else { bail!("adam: an earlier step panicked") };
        let (m, v) = &mut *moments;
        let p = &mut p[start..end];
        if p.len() != g.len() || p.len() != m.len() {
            bail!("adam: {} parameters, {} gradients", p.len(), g.len());
        }
        let (step_size, correction) = (self.step_size, self.correction);
        let (keep_1, keep_2) = (BETA_1 as f32, BETA_2 as f32);
        let (take_1, take_2) = ((1.0 - BETA_1) as f32, (1.0 - BETA_2) as f32);
        let blocks = p.par_chunks_mut(BLOCK).zip(g.par_chunks(BLOCK));
        blocks.zip(m.par_chunks_mut(BLOCK).zip(v.par_chunks_mut(BLOCK))).for_each(|((p, g), (m, v))| {
            kernel::vectorised(
                #[inline(always)]
                || {
                    for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
                        *m = keep_1 * *m + take_1 * g;
                        *v = keep_2 * *v + take_2 * (g * g);
                        *p -= step_size * (*m / (v.sqrt() / correction + EPS));
                    }
                },
            );
        });
        Ok(())
    }
}

#[cfg(feature = "cuda")]
impl InplaceOp2 for Step<'_, cuda::Moments> {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<()> {
        bail!("adam: moments on a GPU for a parameter on the CPU")
    }

    fn cuda_fwd(&self, p: &mut CudaStorage, p_at: &Layout, g: &CudaStorage, g_at: &Layout) -> Result<()> {
        let Ok(mut moments) = self.moments.lock() else { bail!("adam: an earlier step panicked") };
        cuda::adam((p, p_at), &mut moments, &Values::of(g, g_at)?, self.step_size, self.correction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::noise;
    use candle_core::DType;

    #[test]
    fn the_composition_for_other_devices_makes_the_same_steps() {
        let start = noise((3, 50), 1, DType::F32);
        let [ours, theirs] = [(); 2].map(|()| Var::from_tensor(&start).unwrap());
        let state = AdamState::new(&ours).unwrap();
        let mut moments = None;
        for t in 1..20 {
            let gradient = noise((3, 50), 10 + t as u64, DType::F32);
            state.step(&gradient, t, 1e-2).unwrap();
            let (step_size, correction) = (1e-2 / (1.0 - BETA_1.powi(t as i32)), (1.0 - BETA_2.powi(t as i32)).sqrt());
            moments = Some(composed_step(&theirs, &gradient, moments, step_size, correction).unwrap());
        }
        let moved = (ours.as_tensor() - &start).unwrap().abs().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(moved > 1e-2, "{moved}");
        let values = |var: &Var| var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (ours, theirs) in values(&ours).into_iter().zip(values(&theirs)) {
            assert!((ours - theirs).abs() < 1e-6, "{ours} {theirs}");
        }
    }
}

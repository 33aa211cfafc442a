//! Adam (Kingma & Ba, arXiv 1412.6980) in place, one pass over parameter, gradient and both moments.

#[cfg(feature = "cuda")]
use super::cuda;
use super::dispatch::has_kernels;
use super::kernel::{self, BLOCK};
use candle_core::{CpuStorage, Device, InplaceOp2, Layout, Result, Tensor, Var, bail};
use rayon::prelude::*;
use std::sync::Mutex;
use tracing::trace_span;

pub(super) const BETA_1: f64 = 0.9;
pub(super) const BETA_2: f64 = 0.999;
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
    Cuda(cuda::Moments),
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
            Device::Cuda(device) => Moments::Cuda(cuda::Moments::new(var.elem_count(), device)?),
            _ => Moments::Cpu(Mutex::new((zeros(), zeros()))),
        };
        Ok(Self { var: var.clone(), moments })
    }

    pub fn var(&self) -> &Var {
        &self.var
    }

    /// Running means of the gradient and of its square, copied to the CPU, each flat.
    pub fn moments(&self) -> Result<[Tensor; 2]> {
        let n = self.var.elem_count();
        match &self.moments {
            Moments::Cpu(moments) => {
                let Ok(moments) = moments.lock() else { bail!("adam: an earlier step panicked") };
                let copy = |values: &[f32]| Tensor::from_slice(values, n, &Device::Cpu);
                Ok([copy(&moments.0)?, copy(&moments.1)?])
            }
            #[cfg(feature = "cuda")]
            Moments::Cuda(moments) => moments.read(self.var.device().as_cuda_device()?),
            Moments::Composed(moments) => {
                let Ok(moments) = moments.lock() else { bail!("adam: an earlier step panicked") };
                let zeros = || Tensor::zeros(n, self.var.dtype(), &Device::Cpu);
                let copy = |values: &Tensor| values.flatten_all()?.to_device(&Device::Cpu)?.copy();
                match &*moments {
                    Some((m, v)) => Ok([copy(m)?, copy(v)?]),
                    None => Ok([zeros()?, zeros()?]),
                }
            }
        }
    }

    /// Takes over what [`AdamState::moments`] gave. Errors: another size.
    pub fn set_moments(&mut self, [m, v]: [&Tensor; 2]) -> Result<()> {
        let n = self.var.elem_count();
        if [m.elem_count(), v.elem_count()] != [n, n] {
            bail!("adam: {} and {} moments of {n} parameters", m.elem_count(), v.elem_count());
        }
        self.moments = match &self.moments {
            Moments::Cpu(_) => Moments::Cpu(Mutex::new((m.to_vec1()?, v.to_vec1()?))),
            #[cfg(feature = "cuda")]
            Moments::Cuda(_) => Moments::Cuda(cuda::Moments::written([m, v], self.var.device().as_cuda_device()?)?),
            Moments::Composed(_) => {
                let there = |values: &Tensor| values.reshape(self.var.shape())?.to_device(self.var.device());
                Moments::Composed(Mutex::new(Some((there(m)?, there(v)?))))
            }
        };
        Ok(())
    }
}

/// One parameter's part in a step.
pub struct Step<'a> {
    pub state: &'a AdamState,
    pub gradient: &'a Tensor,
    pub lr: f64,
}

/// Step number `t >= 1` of several parameters, whose gradients `g` are multiplied by `factor` first:
/// `p -= lr / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + 1e-8)`, as PyTorch computes it. On a GPU it is one kernel for all of them.
///
/// Errors: a gradient of another size than its parameter.
pub fn step(steps: &[Step], t: usize, factor: f64) -> Result<()> {
    let _span = trace_span!("adam").entered();
    let t = t as i32;
    let correction = (1.0 - BETA_2.powi(t)).sqrt();
    #[cfg(feature = "cuda")]
    let mut on_gpu = Vec::new();
    for &Step { state, gradient, lr } in steps {
        let step_size = lr / (1.0 - BETA_1.powi(t));
        match &state.moments {
            Moments::Cpu(moments) => {
                let (step_size, correction, factor) = (step_size as f32, correction as f32, factor as f32);
                let step = CpuStep { moments, step_size, correction, factor };
                state.var.as_tensor().inplace_op2(&gradient.contiguous()?, &step)?;
            }
            #[cfg(feature = "cuda")]
            Moments::Cuda(moments) => on_gpu.push((&state.var, moments, gradient.contiguous()?, step_size as f32)),
            Moments::Composed(moments) => {
                let Ok(mut moments) = moments.lock() else { bail!("adam: an earlier step panicked") };
                let gradient = (gradient.detach() * factor)?;
                *moments = Some(composed_step(&state.var, &gradient, moments.take(), step_size, correction)?);
            }
        }
    }
    #[cfg(feature = "cuda")]
    cuda::adam(&on_gpu, correction as f32, factor as f32)?;
    Ok(())
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

struct CpuStep<'a> {
    moments: &'a Mutex<(Vec<f32>, Vec<f32>)>,
    step_size: f32,
    correction: f32,
    factor: f32,
}

impl InplaceOp2 for CpuStep<'_> {
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
        let (step_size, correction, factor) = (self.step_size, self.correction, self.factor);
        let (keep_1, keep_2) = (BETA_1 as f32, BETA_2 as f32);
        let (take_1, take_2) = ((1.0 - BETA_1) as f32, (1.0 - BETA_2) as f32);
        let blocks = p.par_chunks_mut(BLOCK).zip(g.par_chunks(BLOCK));
        blocks.zip(m.par_chunks_mut(BLOCK).zip(v.par_chunks_mut(BLOCK))).for_each(|((p, g), (m, v))| {
            kernel::vectorised(
                #[inline(always)]
                || {
                    for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
                        let g = g * factor;
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
            step(&[Step { state: &state, gradient: &gradient, lr: 1e-2 }], t, 1.0).unwrap();
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

//! Adam (Kingma & Ba, arXiv 1412.6980) in place, one pass over parameter, gradient and both moments.

use super::kernel::{self, BLOCK};
use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, Var, bail};
use rayon::prelude::*;
use std::sync::Mutex;

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPS: f32 = 1e-8;

/// One parameter with its moments; no weight decay.
pub struct AdamState {
    var: Var,
    moments: Mutex<(Vec<f32>, Vec<f32>)>,
}

impl AdamState {
    pub fn new(var: &Var) -> Self {
        let zeros = vec![0f32; var.elem_count()];
        Self { var: var.clone(), moments: Mutex::new((zeros.clone(), zeros)) }
    }

    pub fn var(&self) -> &Var {
        &self.var
    }

    /// Step number `t >= 1` with learning rate `lr`:
    /// `p -= lr / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + 1e-8)`, as PyTorch computes it.
    pub fn step(&self, gradient: &Tensor, t: usize, lr: f64) -> Result<()> {
        let t = t as i32;
        let step = Step {
            moments: &self.moments,
            step_size: (lr / (1.0 - BETA_1.powi(t))) as f32,
            correction: (1.0 - BETA_2.powi(t)).sqrt() as f32,
        };
        self.var.as_tensor().inplace_op2(&gradient.contiguous()?, &step)
    }
}

struct Step<'a> {
    moments: &'a Mutex<(Vec<f32>, Vec<f32>)>,
    step_size: f32,
    correction: f32,
}

impl InplaceOp2 for Step<'_> {
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

//! One step of an unrolled Adam and its adjoint, on all parameters of a unit one after the other, in `f64`: the derivative of such a
//! step is a difference of nearly equal numbers.

use super::adam::{BETA_1, BETA_2};
#[cfg(feature = "cuda")]
use super::cuda;
use super::dispatch::has_kernels_for;
use super::kernel::{self, BLOCK};
use candle_core::{DType, Result, Tensor, bail};
use rayon::prelude::*;

/// Running means of the gradient and of its square, or the derivatives with respect to them; `(n)`, `f64`.
#[derive(Clone, Debug)]
pub struct Moments {
    pub m: Tensor,
    pub v: Tensor,
}

impl Moments {
    /// Before the first step, and the adjoints after the last, for parameters like `theta`.
    pub fn zeros(theta: &Tensor) -> Result<Self> {
        Ok(Self { m: theta.zeros_like()?, v: theta.zeros_like()? })
    }
}

/// Adam's bias correction at step `t` (from 1): `sqrt(1 - b2^t) / (1 - b1^t)`.
fn correction(t: usize) -> f64 {
    let t = t as i32;
    (1.0 - BETA_2.powi(t)).sqrt() / (1.0 - BETA_1.powi(t))
}

/// Step `t` (from 1): `theta - lr correction(t) m' / (sqrt(v') + eps)` with the moments `m'`, `v'` after it, which come second.
///
/// Shapes: all `(n)`, `f64`. Epsilon joins before the bias correction, as in the differentiable Adam of `higher` 0.2.1. No gradient.
pub fn adam_step(
    theta: &Tensor,
    g: &Tensor,
    lr: &Tensor,
    moments: &Moments,
    (t, eps): (usize, f64),
) -> Result<(Tensor, Moments)> {
    let factor = correction(t);
    let all = [theta, g, lr, &moments.m, &moments.v];
    let native = |[theta, g, lr, m, v]: [f64; 5]| {
        let m = BETA_1 * m + (1.0 - BETA_1) * g;
        let v = BETA_2 * v + (1.0 - BETA_2) * g * g;
        [theta - lr * factor * m / (v.sqrt() + eps), m, v]
    };
    let composed = || {
        let m = ((&moments.m * BETA_1)? + (g * (1.0 - BETA_1))?)?;
        let v = ((&moments.v * BETA_2)? + ((g * (1.0 - BETA_2))? * g)?)?;
        Ok([(theta - (((lr * factor)? * &m)? / (v.sqrt()? + eps)?)?)?, m, v])
    };
    let [theta, m, v] = element_wise(all, ("adam_step", factor, eps), native, composed)?;
    Ok((theta, Moments { m, v }))
}

/// The adjoint of step `t`: from `adjoint`, the derivative with respect to the step's result, and `of_moments`, those with respect to
/// the moments after it, to the derivative with respect to `g`, which comes first, and to the moments before the step. That with
/// respect to `theta` beside `g` is `adjoint` itself.
///
/// Shapes: all `(n)`, `f64`. `moments` are those after the step. The derivative of `sqrt` at 0 counts as 0, as in `higher`.
pub fn adam_adjoint(
    adjoint: &Tensor,
    g: &Tensor,
    lr: &Tensor,
    (moments, of_moments): (&Moments, &Moments),
    (t, eps): (usize, f64),
) -> Result<(Tensor, Moments)> {
    let factor = correction(t);
    let all = [adjoint, g, lr, &moments.m, &moments.v, &of_moments.m, &of_moments.v];
    let native = |[adjoint, g, lr, m, v, of_m, of_v]: [f64; 7]| {
        let root = v.sqrt();
        let scaled = -lr * factor * adjoint;
        let shifted = root + eps;
        let of_m = of_m + scaled / shifted;
        let through_root = if root > 0.0 { -scaled * m / (shifted * shifted * 2.0 * root) } else { 0.0 };
        let of_v = of_v + through_root;
        [(1.0 - BETA_1) * of_m + (1.0 - BETA_2) * 2.0 * g * of_v, BETA_1 * of_m, BETA_2 * of_v]
    };
    let composed = || {
        let root = moments.v.sqrt()?;
        let scaled = ((lr * -factor)? * adjoint)?;
        let shifted = (&root + eps)?;
        let of_m = (&of_moments.m + (&scaled / &shifted)?)?;
        let through_root = ((scaled.neg()? * &moments.m)? / ((shifted.sqr()? * 2.0)? * &root)?)?;
        let of_v = (&of_moments.v + root.gt(0f64)?.where_cond(&through_root, &root.zeros_like()?)?)?;
        let u = ((&of_m * (1.0 - BETA_1))? + ((g * (2.0 * (1.0 - BETA_2)))? * &of_v)?)?;
        Ok([u, (of_m * BETA_1)?, (of_v * BETA_2)?])
    };
    let [u, m, v] = element_wise(all, ("adam_adjoint", factor, eps), native, composed)?;
    Ok((u, Moments { m, v }))
}

/// Three results for each element: by `native` on the CPU, by the kernel of this name with two more arguments on a GPU, else by `composed`.
fn element_wise<const N: usize>(
    all: [&Tensor; N],
    kernel: (&'static str, f64, f64),
    native: impl Fn([f64; N]) -> [f64; 3] + Sync,
    composed: impl FnOnce() -> Result<[Tensor; 3]>,
) -> Result<[Tensor; 3]> {
    let (device, shape) = (all[0].device(), all[0].shape());
    if let Some(other) = all.iter().find(|tensor| tensor.shape() != shape) {
        bail!("{}: {:?} beside {shape:?}", kernel.0, other.shape());
    }
    if !has_kernels_for(all[0], DType::F64) {
        return composed();
    }
    #[cfg(feature = "cuda")]
    if let candle_core::Device::Cuda(cuda) = device {
        let results = cuda::with_all(all, |all| cuda::virtual_step(all, kernel))?;
        return Ok(results.map(|result| cuda::tensor(result, shape, cuda)));
    }
    let results = kernel::with_slices(all, |all| {
        let mut results = [(); 3].map(|()| vec![0f64; shape.elem_count()]);
        let [a, b, c] = &mut results;
        let blocks = a.par_chunks_mut(BLOCK).zip(b.par_chunks_mut(BLOCK)).zip(c.par_chunks_mut(BLOCK));
        blocks.enumerate().for_each(|(block, ((a, b), c))| {
            for (i, ((a, b), c)) in a.iter_mut().zip(b).zip(c).enumerate() {
                [*a, *b, *c] = native(all.map(|values| values[block * BLOCK + i]));
            }
        });
        Ok(results)
    })?;
    let [a, b, c] = results.map(|result| Tensor::from_vec(result, shape, device));
    Ok([a?, b?, c?])
}

/// `u` divided by its largest magnitude, and that magnitude `(1)`: 1 where all of `u` is 0. No gradient.
pub fn normalised(u: &Tensor) -> Result<(Tensor, Tensor)> {
    #[cfg(feature = "cuda")]
    if let (candle_core::Device::Cuda(device), true) = (u.device(), has_kernels_for(u, DType::F64)) {
        let (unit, size) = cuda::with_values(u, cuda::normalised)?;
        return Ok((cuda::tensor(unit, u.shape(), device), cuda::tensor(size, 1, device)));
    }
    let size = match u.elem_count() {
        0 => Tensor::zeros(1, DType::F64, u.device())?,
        _ => u.abs()?.max_keepdim(0)?,
    };
    let size = (&size + size.eq(0f64)?.to_dtype(DType::F64)?)?;
    Ok((u.broadcast_div(&size)?, size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::noise;

    fn values(tensor: &Tensor) -> Vec<f64> {
        tensor.to_vec1().unwrap()
    }

    #[test]
    fn the_largest_is_one_and_nothing_stays_nothing() {
        let u = noise(5000, 3, DType::F64);
        let (unit, size) = normalised(&u).unwrap();
        let largest = values(&u).into_iter().fold(0.0, |most: f64, u| most.max(u.abs()));
        assert_eq!(values(&size), [largest]);
        assert_eq!(values(&unit), values(&u).into_iter().map(|u| u / largest).collect::<Vec<_>>());
        let (unit, size) = normalised(&u.zeros_like().unwrap()).unwrap();
        assert!(values(&size) == [1.0] && values(&unit).iter().all(|&u| u == 0.0));
        assert_eq!(normalised(&noise(0, 3, DType::F64)).unwrap().0.elem_count(), 0);
    }

    #[test]
    fn sizes_that_differ_are_an_error() {
        let (a, b) = (noise(3, 1, DType::F64), noise(4, 1, DType::F64));
        let problem = adam_step(&a, &b, &a, &Moments::zeros(&a).unwrap(), (1, 1e-8)).unwrap_err().to_string();
        assert!(problem.contains("adam_step: [4] beside [3]"), "{problem}");
    }
}

//! A bias per channel and its gradient, the sums of the channels; a factor per row.
//!
//! Candle sums over dimensions that are not the last by dividing the index of every element; the order of additions here is
//! the same, so that results are.

#[cfg(feature = "cuda")]
use super::cuda::{self, Values};
use super::dispatch;
use super::fresh::Fresh;
use super::kernel;
use super::tape::plain::contiguous;
use super::tape::{apply1, apply2};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;
use tracing::trace_span;

/// `y[n,c,i,j] = x[n,c,i,j] + bias[c]`.
///
/// Shapes: `x` `(N, C, H, W)`, `bias` `(C)`, both `f32` or both `f64`; the result has the shape of `x`.
/// Gradient: to `x` and `bias`, to any order.
pub fn add_bias(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let native = || apply2(&contiguous(x)?, &contiguous(bias)?, AddBias);
    dispatch(x, native, || x.broadcast_add(&bias.reshape((1, bias.elem_count(), 1, 1))?))
}

/// `sums[c] = sum over n, i, j of x[n,c,i,j]`, in this order.
///
/// Shapes: `x` `(N, C, H, W)`, `f32` or `f64`; result `(C)`.  Gradient: to `x`, to any order.
pub fn channel_sums(x: &Tensor) -> Result<Tensor> {
    dispatch(x, || apply1(&contiguous(x)?, ChannelSums), || x.sum((0, 2, 3)))
}

/// `y[r, ...] = x[r, ...] * factors[r]`.
///
/// Shapes: `x` `(R, ...)`, `factors` `(R)`, both `f32` or both `f64`; the result has the shape of `x`.
/// Gradient: to `x`, to any order; the factors are constants.
pub fn scale_rows(x: &Tensor, factors: &Tensor) -> Result<Tensor> {
    let factors = factors.detach();
    let composed = || {
        let mut shape = vec![1; x.rank()];
        shape[0] = factors.elem_count();
        x.broadcast_mul(&factors.reshape(shape)?)
    };
    dispatch(x, || apply1(&contiguous(x)?, ScaleRows(factors.contiguous()?)), composed)
}

struct ScaleRows(Tensor);

impl ScaleRows {
    fn compute<T: WithDType>(&self, x: &[T]) -> Result<Vec<T>> {
        kernel::with_slice::<T, _>(&self.0, |factors| {
            let per_row = x.len() / factors.len().max(1);
            let mut y = Fresh::new(x.len());
            if !x.is_empty() {
                y.par_chunks_mut(per_row).zip(x.par_chunks(per_row)).zip(factors.par_iter()).for_each(
                    |((y, x), factor)| {
                        y.iter_mut().zip(x).for_each(|(y, x)| *y = *x * *factor);
                    },
                );
            }
            Ok(y.finish())
        })
    }

    fn check(&self, at: &Layout) -> Result<()> {
        let rows = at.shape().dims().first().copied();
        if rows != Some(self.0.elem_count()) {
            bail!("scale-rows: {} factors for {:?}", self.0.elem_count(), at.shape());
        }
        Ok(())
    }
}

impl CustomOp1 for ScaleRows {
    fn name(&self) -> &'static str {
        "scale-rows"
    }

    fn cpu_fwd(&self, x: &CpuStorage, at: &Layout) -> Result<(CpuStorage, Shape)> {
        self.check(at)?;
        let y = match x {
            CpuStorage::F64(_) => CpuStorage::F64(self.compute(kernel::slice(x, at)?)?),
            _ => CpuStorage::F32(self.compute(kernel::slice(x, at)?)?),
        };
        Ok((y, at.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, at: &Layout) -> Result<(CudaStorage, Shape)> {
        self.check(at)?;
        let y = cuda::with_values(&self.0, |factors| cuda::scale_rows(&Values::of(x, at)?, factors))?;
        Ok((cuda::storage(y, &x.device), at.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(scale_rows(g, &self.0)?))
    }
}

struct AddBias;

impl AddBias {
    fn compute<T: WithDType>(x: &[T], bias: &[T], pixels: usize) -> Vec<T> {
        let mut y = Fresh::new(x.len());
        let planes = y.par_chunks_mut(pixels).zip(x.par_chunks(pixels)).enumerate();
        planes.for_each(|(plane, (y, x))| {
            let bias = bias[plane % bias.len()];
            y.iter_mut().zip(x).for_each(|(y, x)| *y = *x + bias);
        });
        y.finish()
    }
}

impl CustomOp2 for AddBias {
    fn name(&self) -> &'static str {
        "add-bias"
    }

    fn cpu_fwd(&self, x: &CpuStorage, x_at: &Layout, bias: &CpuStorage, b_at: &Layout) -> Result<(CpuStorage, Shape)> {
        let _span = trace_span!("bias").entered();
        let (_, c, h, w) = x_at.shape().dims4()?;
        if b_at.shape().dims() != [c] {
            bail!("add-bias: {:?} for {c} channels", b_at.shape());
        }
        let y = match x {
            CpuStorage::F64(_) => {
                CpuStorage::F64(Self::compute(kernel::slice(x, x_at)?, kernel::slice(bias, b_at)?, h * w))
            }
            _ => CpuStorage::F32(Self::compute(kernel::slice(x, x_at)?, kernel::slice(bias, b_at)?, h * w)),
        };
        Ok((y, x_at.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, x_at: &Layout, b: &CudaStorage, b_at: &Layout) -> Result<(CudaStorage, Shape)> {
        let _span = trace_span!("bias").entered();
        let (_, c, h, w) = x_at.shape().dims4()?;
        if b_at.shape().dims() != [c] {
            bail!("add-bias: {:?} for {c} channels", b_at.shape());
        }
        let y = cuda::add_bias(&Values::of(x, x_at)?, &Values::of(b, b_at)?, h * w)?;
        Ok((cuda::storage(y, &x.device), x_at.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, bias: &Tensor, _y: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let of_bias = bias.track_op().then(|| channel_sums(g)).transpose()?;
        Ok((x.track_op().then(|| g.clone()), of_bias))
    }
}

struct ChannelSums;

impl ChannelSums {
    fn compute<T: WithDType>(x: &[T], (c, pixels): (usize, usize)) -> Vec<T> {
        let sum = |channel: usize| {
            let planes = x.chunks_exact(pixels).skip(channel).step_by(c);
            planes.flatten().fold(T::zero(), |sum, x| sum + *x)
        };
        (0..c).into_par_iter().map(sum).collect()
    }
}

impl CustomOp1 for ChannelSums {
    fn name(&self) -> &'static str {
        "channel-sums"
    }

    fn cpu_fwd(&self, x: &CpuStorage, at: &Layout) -> Result<(CpuStorage, Shape)> {
        let _span = trace_span!("bias, gradient").entered();
        let (_, c, h, w) = at.shape().dims4()?;
        let sums = match x {
            CpuStorage::F64(_) => CpuStorage::F64(Self::compute(kernel::slice(x, at)?, (c, h * w))),
            _ => CpuStorage::F32(Self::compute(kernel::slice(x, at)?, (c, h * w))),
        };
        Ok((sums, Shape::from(c)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, at: &Layout) -> Result<(CudaStorage, Shape)> {
        let _span = trace_span!("bias, gradient").entered();
        let (n, c, h, w) = at.shape().dims4()?;
        let sums = cuda::channel_sums(&Values::of(x, at)?, (n, c, h * w))?;
        Ok((cuda::storage(sums, &x.device), Shape::from(c)))
    }

    fn bwd(&self, x: &Tensor, _sums: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(g.reshape((1, g.elem_count(), 1, 1))?.broadcast_as(x.shape())?.contiguous()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::noise;
    use candle_core::{DType, Var};

    #[test]
    fn values_and_gradients_are_those_of_candle_bit_for_bit() {
        for dtype in [DType::F32, DType::F64] {
            let [x, upstream] = [1, 3].map(|seed| noise((4, 3, 7, 5), seed, dtype));
            let bias = Var::from_tensor(&noise(3, 2, dtype)).unwrap();
            let outcome = |ours: bool| {
                let x = Var::from_tensor(&x).unwrap();
                let y = match ours {
                    true => add_bias(&x, &bias).unwrap(),
                    false => x.broadcast_add(&bias.reshape((1, 3, 1, 1)).unwrap()).unwrap(),
                };
                let store = (&y * &upstream).unwrap().sum_all().unwrap().backward().unwrap();
                let values = |tensor: &Tensor| {
                    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()
                };
                [values(&y), values(store.get(&x).unwrap()), values(store.get(&bias).unwrap())]
            };
            assert_eq!(outcome(true), outcome(false), "{dtype:?}");
        }
        assert!(add_bias(&noise((2, 3, 1, 1), 1, DType::F32), &noise(2, 2, DType::F32)).is_err());
    }

    #[test]
    fn rows_are_scaled_as_candle_does_it_bit_for_bit() {
        for dtype in [DType::F32, DType::F64] {
            let (x, upstream) = (Var::from_tensor(&noise((3, 2, 5), 1, dtype)).unwrap(), noise((3, 2, 5), 2, dtype));
            let factors = noise(3, 3, dtype);
            let outcome = |y: Tensor| {
                let store = (&y * &upstream).unwrap().sum_all().unwrap().backward().unwrap();
                [&y, store.get(&x).unwrap()]
                    .map(|of| of.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap())
            };
            let candle = x.broadcast_mul(&factors.reshape((3, 1, 1)).unwrap()).unwrap();
            assert_eq!(outcome(scale_rows(&x, &factors).unwrap()), outcome(candle), "{dtype:?}");
        }
        assert!(scale_rows(&noise((2, 3), 1, DType::F32), &noise(3, 2, DType::F32)).is_err());
        assert_eq!(scale_rows(&noise((2, 0), 1, DType::F32), &noise(2, 2, DType::F32)).unwrap().dims(), [2, 0]);
    }
}

//! Values that change places: from channels to pixels, and channels side by side.
//!
//! As chains of Candle's permutations their gradients are views, which Candle adds up element by element through their strides.

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

/// `y[n, c, 2i + a, 2j + b] = x[n, 4c + 2a + b, i, j]` (PyTorch's `pixel_shuffle` by 2).
///
/// Shapes: `x` `(N, 4C, H, W)`, `f32` or `f64`; result `(N, C, 2H, 2W)`.  Gradient: to `x`, to any order.
pub fn pixel_shuffle(x: &Tensor) -> Result<Tensor> {
    dispatch(x, || apply1(&contiguous(x)?, Shuffle::ToPixels), || candle_nn::ops::pixel_shuffle(x, 2))
}

/// `a` and `b` side by side along their channels.
///
/// Shapes: `(N, A, H, W)` and `(N, B, H, W)`, both `f32` or both `f64`; result `(N, A + B, H, W)`.
/// Gradient (first order only): to both.
pub fn join_channels(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    dispatch(a, || apply2(&contiguous(a)?, &contiguous(b)?, Join), || Tensor::cat(&[a, b], 1))
}

/// [`pixel_shuffle`] and its adjoint, which is also its inverse.
#[derive(Clone, Copy)]
enum Shuffle {
    ToPixels,
    ToChannels,
}

impl Shuffle {
    /// The shape of the result, and height and width of a plane of the tensor with more channels.
    fn sizes(self, at: &Layout) -> Result<(Shape, (usize, usize))> {
        let (n, c, h, w) = at.shape().dims4()?;
        match self {
            Shuffle::ToPixels if c % 4 == 0 => Ok(((n, c / 4, 2 * h, 2 * w).into(), (h, w))),
            Shuffle::ToChannels if h % 2 == 0 && w % 2 == 0 => Ok(((n, 4 * c, h / 2, w / 2).into(), (h / 2, w / 2))),
            _ => bail!("pixel-shuffle: {:?}", at.shape()),
        }
    }

    /// `(h, w)`: of a plane of the tensor with more channels.
    fn compute<T: WithDType>(self, from: &[T], (h, w): (usize, usize)) -> Vec<T> {
        let mut to = Fresh::new(from.len());
        // The four planes of a channel lie side by side on one side, and are one plane on the other.
        to.par_chunks_mut(4 * h * w).zip(from.par_chunks(4 * h * w)).for_each(|(to, from)| {
            for (a, b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                for i in 0..h {
                    let row = ((2 * a + b) * h + i) * w;
                    let pixels = (2 * i + a) * 2 * w + b;
                    match self {
                        Shuffle::ToPixels => {
                            let row = &from[row..row + w];
                            to[pixels..].iter_mut().step_by(2).zip(row).for_each(|(to, from)| *to = *from);
                        }
                        Shuffle::ToChannels => {
                            let row = &mut to[row..row + w];
                            row.iter_mut().zip(from[pixels..].iter().step_by(2)).for_each(|(to, from)| *to = *from);
                        }
                    }
                }
            }
        });
        to.finish()
    }
}

impl CustomOp1 for Shuffle {
    fn name(&self) -> &'static str {
        "pixel-shuffle"
    }

    fn cpu_fwd(&self, x: &CpuStorage, at: &Layout) -> Result<(CpuStorage, Shape)> {
        let _span = trace_span!("pixel shuffle").entered();
        let (shape, plane) = self.sizes(at)?;
        let y = match x {
            CpuStorage::F64(_) => CpuStorage::F64(self.compute(kernel::slice(x, at)?, plane)),
            _ => CpuStorage::F32(self.compute(kernel::slice(x, at)?, plane)),
        };
        Ok((y, shape))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, at: &Layout) -> Result<(CudaStorage, Shape)> {
        let _span = trace_span!("pixel shuffle").entered();
        let (shape, plane) = self.sizes(at)?;
        let y = cuda::shuffle(&Values::of(x, at)?, plane, matches!(self, Shuffle::ToPixels))?;
        Ok((cuda::storage(y, &x.device), shape))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let adjoint = match self {
            Shuffle::ToPixels => Shuffle::ToChannels,
            Shuffle::ToChannels => Shuffle::ToPixels,
        };
        Ok(Some(g.contiguous()?.apply_op1(adjoint)?))
    }
}

struct Join;

impl Join {
    /// The shape of the result, and the values of one image of each argument.
    fn sizes(a: &Layout, b: &Layout) -> Result<(Shape, (usize, usize))> {
        let ((n, c_a, h, w), (n_b, c_b, h_b, w_b)) = (a.shape().dims4()?, b.shape().dims4()?);
        if (n, h, w) != (n_b, h_b, w_b) {
            bail!("join-channels: {:?} and {:?}", a.shape(), b.shape());
        }
        Ok(((n, c_a + c_b, h, w).into(), (c_a * h * w, c_b * h * w)))
    }

    fn compute<T: WithDType>(a: &[T], b: &[T], (of_a, of_b): (usize, usize)) -> Vec<T> {
        let mut y = Fresh::new(a.len() + b.len());
        let images = y.par_chunks_mut(of_a + of_b).zip(a.par_chunks(of_a).zip(b.par_chunks(of_b)));
        images.for_each(|(y, (a, b))| {
            let (first, second) = y.split_at_mut(of_a);
            first.copy_from_slice(a);
            second.copy_from_slice(b);
        });
        y.finish()
    }
}

impl CustomOp2 for Join {
    fn name(&self) -> &'static str {
        "join-channels"
    }

    fn cpu_fwd(&self, a: &CpuStorage, a_at: &Layout, b: &CpuStorage, b_at: &Layout) -> Result<(CpuStorage, Shape)> {
        let _span = trace_span!("channels side by side").entered();
        let (shape, of_image) = Self::sizes(a_at, b_at)?;
        let y = match a {
            CpuStorage::F64(_) => {
                CpuStorage::F64(Self::compute(kernel::slice(a, a_at)?, kernel::slice(b, b_at)?, of_image))
            }
            _ => CpuStorage::F32(Self::compute(kernel::slice(a, a_at)?, kernel::slice(b, b_at)?, of_image)),
        };
        Ok((y, shape))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, a: &CudaStorage, a_at: &Layout, b: &CudaStorage, b_at: &Layout) -> Result<(CudaStorage, Shape)> {
        let _span = trace_span!("channels side by side").entered();
        let (shape, of_image) = Self::sizes(a_at, b_at)?;
        let y = cuda::join(&Values::of(a, a_at)?, &Values::of(b, b_at)?, of_image)?;
        Ok((cuda::storage(y, &a.device), shape))
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _y: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (c_a, c_b) = (a.dim(1)?, b.dim(1)?);
        Ok((Some(g.narrow(1, 0, c_a)?.contiguous()?), Some(g.narrow(1, c_a, c_b)?.contiguous()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::noise;
    use candle_core::{DType, Var};

    /// Value and gradients of both arguments.
    fn outcome(
        f: &dyn Fn(&Tensor, &Tensor) -> Result<Tensor>,
        inputs: &[Tensor; 2],
        upstream: &Tensor,
    ) -> Vec<Vec<f64>> {
        let [a, b] = [0, 1].map(|i| Var::from_tensor(&inputs[i]).unwrap());
        let y = f(&a, &b).unwrap();
        let store = (&y * upstream).unwrap().sum_all().unwrap().backward().unwrap();
        let tensors = [Some(&y), store.get(&a), store.get(&b)];
        let values = |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        tensors.into_iter().flatten().map(values).collect()
    }

    #[test]
    fn values_and_gradients_are_those_of_candle() {
        for dtype in [DType::F32, DType::F64] {
            let inputs = [noise((2, 8, 3, 5), 1, dtype), noise((2, 4, 3, 5), 2, dtype)];
            let upstream = noise((2, 2, 6, 10), 3, dtype);
            let ours = outcome(&|a, _| pixel_shuffle(a), &inputs, &upstream);
            assert_eq!(ours, outcome(&|a, _| candle_nn::ops::pixel_shuffle(a, 2), &inputs, &upstream), "{dtype:?}");
            let upstream = noise((2, 12, 3, 5), 4, dtype);
            let ours = outcome(&|a, b| join_channels(a, b), &inputs, &upstream);
            assert_eq!(ours, outcome(&|a, b| Tensor::cat(&[a, b], 1), &inputs, &upstream), "{dtype:?}");
        }
        let x = noise((2, 6, 3, 5), 1, DType::F32);
        assert!(pixel_shuffle(&x).is_err());
        assert!(join_channels(&x, &noise((2, 6, 5, 3), 1, DType::F32)).is_err());
    }
}

//! BatchNorm in training mode: normalises with the statistics of the batch.

#[cfg(feature = "cuda")]
use super::cuda::{self, Values};
use super::dispatch::has_kernels;
use super::fresh::Fresh;
use super::kernel;
use super::tape::apply3;
use super::tape::plain::contiguous;
use crate::error::Error;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor, Var, WithDType, bail};
use rayon::prelude::*;
use tracing::trace_span;

/// What a batch tells about the distribution of its source, per channel: constants `(C)`, `f64` on the CPU, elsewhere of the element type of
/// the batch.
#[derive(Clone, Debug)]
pub struct Estimates {
    pub mean: Tensor,
    /// Unbiased: divided by the number of values less one.
    pub var: Tensor,
}

/// What was subtracted and divided by, per channel.
#[derive(Clone, Debug, PartialEq)]
struct BatchStatistics {
    mean: Vec<f64>,
    /// Biased: divided by the number of values.
    var: Vec<f64>,
}

/// `y = (x - mean) / sqrt(var + eps) * weight + bias` with mean and biased variance over batch and positions.
///
/// Shapes: `x` `(N, C, H, W)`, `f32` or `f64` on the CPU; `weight` and `bias` `(C)`; the result has the shape of `x`.
/// Gradient (first order only): to `x`, through the statistics too, to `weight` and to `bias`.
/// Elsewhere this is a composition of Candle's operations. Errors: [`Error::Shape`] for another length of `weight` or `bias`.
pub fn batch_norm_train(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> crate::error::Result<(Tensor, Estimates)> {
    let (_, c, _, _) = x.dims4()?;
    for (name, values) in [("weight", weight), ("bias", bias)] {
        if values.dims() != [c] {
            let problem = format!("{name} {:?} for {c} channels", values.dims());
            return Err(Error::Shape { op: "batch_norm_train", problem });
        }
    }
    let count = (x.elem_count() / c.max(1)) as f64;
    if !has_kernels(x) {
        let mean = x.mean_keepdim((0, 2, 3))?;
        let centred = x.broadcast_sub(&mean)?;
        let var = centred.sqr()?.mean_keepdim((0, 2, 3))?;
        let shape = (1, c, 1, 1);
        let y = centred.broadcast_div(&(&var + eps)?.sqrt()?)?;
        let y = y.broadcast_mul(&weight.reshape(shape)?)?.broadcast_add(&bias.reshape(shape)?)?;
        let unbiased = (var.detach() * (count / (count - 1.0).max(1.0)))?;
        return Ok((y, Estimates { mean: mean.detach().flatten_all()?, var: unbiased.flatten_all()? }));
    }
    let x = contiguous(x)?;
    #[cfg(feature = "cuda")]
    if let candle_core::Device::Cuda(device) = x.device() {
        return Ok(BatchNormOnGpu::of(&x, eps, device)?.apply(&x, weight, bias)?);
    }
    let statistics = BatchStatistics::of(&x)?;
    let op = BatchNormTrain { statistics: statistics.clone(), eps };
    let y = apply3(&x, &contiguous(weight)?, &contiguous(bias)?, op)?;
    let unbiased: Vec<f64> = statistics.var.iter().map(|var| var * count / (count - 1.0).max(1.0)).collect();
    let there = |values: Vec<f64>| Tensor::from_vec(values, c, x.device());
    Ok((y, Estimates { mean: there(statistics.mean)?, var: there(unbiased)? }))
}

impl BatchStatistics {
    /// Of every channel of `x` `(N, C, H, W)`.
    fn of(x: &Tensor) -> Result<Self> {
        let _span = trace_span!("batch normalisation").entered();
        match x.dtype() {
            DType::F32 => kernel::with_slice::<f32, _>(x, |values| Ok(Self::of_values(values, x.dims4()?))),
            _ => kernel::with_slice::<f64, _>(x, |values| Ok(Self::of_values(values, x.dims4()?))),
        }
    }

    fn of_values<T: WithDType>(x: &[T], (n, c, h, w): (usize, usize, usize, usize)) -> Self {
        let plane = h * w;
        let count = (n * plane) as f64;
        let sum = |channel: usize, f: &dyn Fn(f64) -> f64| {
            let planes = (0..n).map(|image| &x[(image * c + channel) * plane..][..plane]);
            planes.map(|plane| plane.iter().map(|&value| f(value.to_f64())).sum::<f64>()).sum::<f64>()
        };
        let per_channel: Vec<(f64, f64)> = (0..c)
            .into_par_iter()
            .map(|channel| {
                let mean = sum(channel, &|value| value) / count;
                (mean, sum(channel, &|value| (value - mean).powi(2)) / count)
            })
            .collect();
        let (mean, var) = per_channel.into_iter().unzip();
        Self { mean, var }
    }
}

struct BatchNormTrain {
    statistics: BatchStatistics,
    eps: f64,
}

impl BatchNormTrain {
    /// `1 / sqrt(var + eps)`.
    fn inverse_std(&self, channel: usize) -> f64 {
        1.0 / (self.statistics.var[channel] + self.eps).sqrt()
    }

    fn forward<T: WithDType>(&self, x: &[T], weight: &[T], bias: &[T], plane: usize) -> Vec<T> {
        let mut y = Fresh::new(x.len());
        y.par_chunks_mut(plane).zip(x.par_chunks(plane)).enumerate().for_each(|(index, (y, x))| {
            let channel = index % weight.len();
            let gain = self.inverse_std(channel) * weight[channel].to_f64();
            let offset = T::from_f64(bias[channel].to_f64() - self.statistics.mean[channel] * gain);
            let gain = T::from_f64(gain);
            for (y, &x) in y.iter_mut().zip(x) {
                *y = x * gain + offset;
            }
        });
        y.finish()
    }

    /// With `z` the normalised input and `m` the number of values per channel:
    /// `g_x = weight / std * (g - mean(g) - z * mean(g z))`, `g_weight = sum(g z)`, `g_bias = sum(g)`.
    fn backward<T: WithDType>(&self, x: &[T], weight: &[T], g: &[T], plane: usize) -> (Vec<T>, Vec<T>, Vec<T>) {
        let c = weight.len();
        let n = x.len() / (c * plane);
        let m = (n * plane) as f64;
        let sums: Vec<(f64, f64)> = (0..c)
            .into_par_iter()
            .map(|channel| {
                let (mean, inverse_std) = (self.statistics.mean[channel], self.inverse_std(channel));
                let (mut of_g, mut of_gz) = (0.0, 0.0);
                for image in 0..n {
                    let range = (image * c + channel) * plane..(image * c + channel + 1) * plane;
                    for (&x, &g) in x[range.clone()].iter().zip(&g[range]) {
                        of_g += g.to_f64();
                        of_gz += g.to_f64() * (x.to_f64() - mean) * inverse_std;
                    }
                }
                (of_g, of_gz)
            })
            .collect();
        let mut g_x = Fresh::new(x.len());
        g_x.par_chunks_mut(plane).zip(x.par_chunks(plane).zip(g.par_chunks(plane))).enumerate().for_each(
            |(index, (g_x, (x, g)))| {
                let channel = index % c;
                let (of_g, of_gz) = sums[channel];
                let inverse_std = self.inverse_std(channel);
                let gain = inverse_std * weight[channel].to_f64();
                // g_x = gain * g + slope * x + offset, one multiply-add per term.
                let slope = -gain * inverse_std * of_gz / m;
                let offset = T::from_f64(-gain * of_g / m - slope * self.statistics.mean[channel]);
                let (gain, slope) = (T::from_f64(gain), T::from_f64(slope));
                for (g_x, (&x, &g)) in g_x.iter_mut().zip(x.iter().zip(g)) {
                    *g_x = gain * g + slope * x + offset;
                }
            },
        );
        let (g_bias, g_weight) = sums.into_iter().map(|(g, gz)| (T::from_f64(g), T::from_f64(gz))).unzip();
        (g_x.finish(), g_weight, g_bias)
    }

    fn gradients<T: WithDType>(&self, x: &Tensor, weight: &Tensor, g: &Tensor) -> Result<[Option<Tensor>; 3]> {
        let (_, c, h, w) = x.dims4()?;
        let (g_x, g_weight, g_bias) = kernel::with_slice::<T, _>(x, |x| {
            kernel::with_slice(weight, |weight| kernel::with_slice(g, |g| Ok(self.backward(x, weight, g, h * w))))
        })?;
        Ok([
            Some(Tensor::from_vec(g_x, x.shape(), x.device())?),
            Some(Tensor::from_vec(g_weight, c, x.device())?),
            Some(Tensor::from_vec(g_bias, c, x.device())?),
        ])
    }
}

impl CustomOp3 for BatchNormTrain {
    fn name(&self) -> &'static str {
        "batch-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_at: &Layout,
        weight: &CpuStorage,
        weight_at: &Layout,
        bias: &CpuStorage,
        bias_at: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let _span = trace_span!("batch normalisation").entered();
        let (_, c, h, w) = x_at.shape().dims4()?;
        if weight_at.shape().elem_count() != c || bias_at.shape().elem_count() != c {
            bail!("batch-norm: {c} channels, {:?} weights, {:?} biases", weight_at.shape(), bias_at.shape());
        }
        let y = match x {
            CpuStorage::F32(_) => CpuStorage::F32(self.forward::<f32>(
                kernel::slice(x, x_at)?,
                kernel::slice(weight, weight_at)?,
                kernel::slice(bias, bias_at)?,
                h * w,
            )),
            _ => CpuStorage::F64(self.forward::<f64>(
                kernel::slice(x, x_at)?,
                kernel::slice(weight, weight_at)?,
                kernel::slice(bias, bias_at)?,
                h * w,
            )),
        };
        Ok((y, x_at.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        _y: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let _span = trace_span!("batch normalisation, gradient").entered();
        let g = g.contiguous()?;
        let [g_x, g_weight, g_bias] = match x.dtype() {
            DType::F32 => self.gradients::<f32>(x, weight, &g)?,
            _ => self.gradients::<f64>(x, weight, &g)?,
        };
        Ok((g_x, g_weight, g_bias))
    }
}

/// `running <- (1 - momentum) running + momentum batch`, in place.
///
/// Shapes: both `(C)`. No gradient.
pub fn track(running: &Var, batch: &Tensor, momentum: f64) -> Result<()> {
    #[cfg(feature = "cuda")]
    if running.device().is_cuda() && has_kernels(running) && has_kernels(batch) {
        return cuda::with_all([running.as_tensor(), &batch.contiguous()?], |[running, batch]| {
            cuda::blend(running, batch, momentum as f32)
        });
    }
    let old = running.as_detached_tensor().to_dtype(batch.dtype())?;
    let new = ((old * (1.0 - momentum))? + (batch.detach() * momentum)?)?;
    running.set(&new.to_dtype(running.dtype())?)
}

/// [`BatchNormTrain`] on a GPU: mean, `1 / sqrt(var + eps)` and unbiased variance, each `(C)`.
#[cfg(feature = "cuda")]
struct BatchNormOnGpu {
    mean: Tensor,
    inverse_std: Tensor,
    unbiased: Tensor,
}

#[cfg(feature = "cuda")]
impl BatchNormOnGpu {
    fn of(x: &Tensor, eps: f64, device: &candle_core::CudaDevice) -> Result<Self> {
        let (_, c, _, _) = x.dims4()?;
        let cuda::BatchStatistics { mean, inverse_std, unbiased } =
            cuda::with_values(x, |values| cuda::batch_statistics(values, batch_of(x.shape())?, eps))?;
        let [mean, inverse_std, unbiased] = [mean, inverse_std, unbiased].map(|values| cuda::tensor(values, c, device));
        Ok(Self { mean, inverse_std, unbiased })
    }

    fn apply(self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<(Tensor, Estimates)> {
        let estimates = Estimates { mean: self.mean.clone(), var: self.unbiased.clone() };
        Ok((apply3(x, &contiguous(weight)?, &contiguous(bias)?, self)?, estimates))
    }
}

/// The sizes of `(N, C, H, W)` as kernels take them.
#[cfg(feature = "cuda")]
fn batch_of(shape: &Shape) -> Result<cuda::Batch> {
    let (n, c, h, w) = shape.dims4()?;
    Ok(cuda::Batch([n, c, h * w]))
}

#[cfg(feature = "cuda")]
impl CustomOp3 for BatchNormOnGpu {
    fn name(&self) -> &'static str {
        "batch-norm"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("batch-norm: statistics on a GPU for a batch on the CPU")
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_at: &Layout,
        weight: &CudaStorage,
        weight_at: &Layout,
        bias: &CudaStorage,
        bias_at: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (values, weight, bias) = (Values::of(x, x_at)?, Values::of(weight, weight_at)?, Values::of(bias, bias_at)?);
        let y = cuda::with_all([&self.mean, &self.inverse_std], |[mean, inverse_std]| {
            cuda::batch_norm(&values, [mean, inverse_std, &weight, &bias], batch_of(x_at.shape())?)
        })?;
        Ok((cuda::storage(y, &x.device), x_at.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let candle_core::Device::Cuda(device) = x.device() else { bail!("batch-norm: not on a GPU") };
        let all = [x, &g.contiguous()?, &self.mean, &self.inverse_std, weight];
        let [g_x, g_weight, g_bias] = cuda::with_all(all, |[values, g, mean, inverse_std, weight]| {
            cuda::batch_norm_gradient(values, g, [mean, inverse_std, weight], batch_of(x.shape())?)
        })?;
        Ok((
            Some(cuda::tensor(g_x, x.shape(), device)),
            Some(cuda::tensor(g_weight, weight.shape(), device)),
            Some(cuda::tensor(g_bias, bias.shape(), device)),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{central_difference, noise};

    #[test]
    fn weights_and_biases_of_another_length_are_errors() {
        let values = |shape: &[usize]| noise(shape, 1, DType::F32);
        let (x, right, wrong) = (values(&[2, 3, 4, 2]), values(&[3]), values(&[4]));
        for (weight, bias, named) in [(&wrong, &right, "weight"), (&right, &wrong, "bias")] {
            let error = batch_norm_train(&x, weight, bias, 1e-5).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn gradients_are_those_of_central_differences() {
        let var = |shape: &[usize], seed| Var::from_tensor(&noise(shape, seed, DType::F64)).unwrap();
        let vars = [var(&[2, 3, 4, 2], 1), var(&[3], 2), var(&[3], 3)];
        let upstream = noise((2, 3, 4, 2), 4, DType::F64);
        let loss = |vars: &[Var]| {
            let (y, _) = batch_norm_train(vars[0].as_tensor(), vars[1].as_tensor(), vars[2].as_tensor(), 1e-5)?;
            Ok(((y.sqr()? + y)? * &upstream)?.sum_all()?)
        };
        let gradients = loss(&vars).unwrap().backward().unwrap();
        for (which, var) in vars.iter().enumerate() {
            let exact = gradients.get(var).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            for (exact, numeric) in exact.iter().zip(central_difference(&vars, which, loss)) {
                assert!((exact - numeric).abs() < 1e-7 * (1.0 + numeric.abs()), "{which}: {exact} {numeric}");
            }
        }
    }
}

//! How far the statistics of single images are from those that a BatchNorm layer was trained with (PD-Quant,
//! arXiv 2212.07048, distribution correction; published `GetDcFpLayerInpOut`).

use super::dispatch::has_kernels;
use super::kernel::{lane_sum, slice, vectorised, with_slice};
use super::tape::apply1;
use super::tape::plain::contiguous;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use std::sync::Arc;
use tracing::trace_span;

/// Added to variances before their root is taken.
const EPS: f64 = 1e-6;

/// What a BatchNorm layer remembers of its inputs, per channel.
#[derive(Clone, Debug)]
pub struct Statistics {
    mean: Arc<[f64]>,
    std: Arc<[f64]>,
    /// The same as `(1, C)` on the layer's device.
    there: [Tensor; 2],
}

impl Statistics {
    /// Of a layer with these running statistics, both `(C)`.
    pub fn new(mean: &Tensor, var: &Tensor) -> Result<Self> {
        let values = |tensor: &Tensor| tensor.to_vec1::<f32>();
        let (mean_of, std_of): (Vec<f64>, Vec<f64>) = (
            values(mean)?.into_iter().map(f64::from).collect(),
            values(var)?.into_iter().map(|var| (f64::from(var) + EPS).sqrt()).collect(),
        );
        let row = |values: &[f64]| Tensor::new(values, mean.device())?.to_dtype(DType::F32)?.unsqueeze(0);
        let there = [row(&mean_of)?, row(&std_of)?];
        Ok(Self { mean: mean_of.into(), std: std_of.into(), there })
    }
}

/// `sum over images and channels of (m - mean)^2 + (s - std)^2`, divided by the number of images; `m` and `s` are mean and
/// standard deviation (unbiased) of one channel of one image.
///
/// Shapes: `z` `(N, C, H, W)`; result: scalar.  Gradient (first order only): to `z`; a map of one pixel has no deviation.
pub fn statistics_error(z: &Tensor, statistics: &Statistics) -> Result<Tensor> {
    let (images, channels, height, width) = z.dims4()?;
    if channels != statistics.mean.len() {
        bail!("statistics-error: {channels} channels, statistics of {}", statistics.mean.len());
    }
    if !(z.device().is_cpu() && has_kernels(z)) {
        return composed(z, statistics);
    }
    apply1(&contiguous(z)?, StatisticsError { statistics: statistics.clone(), images, pixels: height * width })
}

/// The same from Candle's operations.
fn composed(z: &Tensor, statistics: &Statistics) -> Result<Tensor> {
    let (images, _, height, width) = z.dims4()?;
    let planes = z.flatten_from(2)?;
    let mean = planes.mean_keepdim(2)?;
    let freedom = (height * width - 1).max(1) as f64;
    let var = (planes.broadcast_sub(&mean)?.sqr()?.sum(2)? / freedom)?;
    let [means, stds] = &statistics.there;
    let of_mean = mean.squeeze(2)?.broadcast_sub(means)?.sqr()?;
    let of_std = (var + EPS)?.sqrt()?.broadcast_sub(stds)?.sqr()?;
    (of_mean + of_std)?.sum_all()? / images as f64
}

struct StatisticsError {
    statistics: Statistics,
    images: usize,
    pixels: usize,
}

impl StatisticsError {
    /// Mean of a channel, and its standard deviation.
    fn moments(&self, plane: &[f32]) -> (f64, f64) {
        vectorised(
            #[inline(always)]
            || {
                let n = plane.len() as f64;
                let mean = lane_sum(plane) / n;
                let shift = mean as f32;
                let squares: Vec<f32> = plane.iter().map(|z| (z - shift) * (z - shift)).collect();
                (mean, (lane_sum(&squares) / (n - 1.0).max(1.0) + EPS).sqrt())
            },
        )
    }

    /// Distances of both moments of plane `index` from the channel's.
    fn distances(&self, index: usize, (mean, std): (f64, f64)) -> (f64, f64) {
        let channel = index % self.statistics.mean.len();
        (mean - self.statistics.mean[channel], std - self.statistics.std[channel])
    }

    fn value(&self, z: &[f32]) -> f32 {
        let planes = z.par_chunks(self.pixels).enumerate();
        let errors: Vec<f64> = planes
            .map(|(index, plane)| {
                let (of_mean, of_std) = self.distances(index, self.moments(plane));
                of_mean * of_mean + of_std * of_std
            })
            .collect();
        (errors.iter().sum::<f64>() / self.images as f64) as f32
    }

    /// `2 / N * ((m - mean) / L + (s - std) * (z - m) / ((L - 1) s))` with `L` pixels.
    fn gradient(&self, z: &[f32], upstream: f32) -> Vec<f32> {
        let factor = 2.0 * f64::from(upstream) / self.images as f64;
        let pixels = self.pixels as f64;
        let mut gradient = vec![0f32; z.len()];
        gradient.par_chunks_mut(self.pixels).zip(z.par_chunks(self.pixels)).enumerate().for_each(
            |(index, (gradient, plane))| {
                let (mean, std) = self.moments(plane);
                let (of_mean, of_std) = self.distances(index, (mean, std));
                let constant = (factor * of_mean / pixels) as f32;
                let slope = (factor * of_std / ((pixels - 1.0).max(1.0) * std)) as f32;
                let shift = mean as f32;
                vectorised(
                    #[inline(always)]
                    || {
                        for (g, z) in gradient.iter_mut().zip(plane) {
                            *g = constant + slope * (z - shift);
                        }
                    },
                );
            },
        );
        gradient
    }
}

impl CustomOp1 for StatisticsError {
    fn name(&self) -> &'static str {
        "statistics-error"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let _span = trace_span!("statistics error").entered();
        let value = self.value(slice(storage, layout)?);
        Ok((CpuStorage::F32(vec![value]), Shape::from(())))
    }

    fn bwd(&self, z: &Tensor, _value: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let _span = trace_span!("statistics error, gradient").entered();
        let upstream = grad.to_scalar::<f32>()?;
        let gradient = with_slice(z, |z| Ok(self.gradient(z, upstream)))?;
        Ok(Some(Tensor::from_vec(gradient, z.shape(), z.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::noise;
    use candle_core::{DType, Device, Var};

    fn statistics() -> Statistics {
        let vector = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        Statistics::new(&vector(&[0.5, -1.0]), &vector(&[1.0, 4.0])).unwrap()
    }

    #[test]
    fn the_composition_for_other_devices_has_the_same_value_and_gradient() {
        for (height, width) in [(5, 3), (1, 1)] {
            let z = Var::from_tensor(&noise((3, 2, height, width), 1, DType::F32)).unwrap();
            let [ours, theirs] = [statistics_error(&z, &statistics()), composed(&z, &statistics())].map(Result::unwrap);
            let [a, b] = [&ours, &theirs].map(|error| error.to_scalar::<f32>().unwrap());
            assert!((a - b).abs() < 1e-5 * b.abs(), "{a} {b}");
            let gradient = |error: &Tensor| {
                let gradients = error.backward().unwrap();
                gradients.get(&z).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
            };
            for (a, b) in gradient(&ours).into_iter().zip(gradient(&theirs)) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        }
    }

    #[test]
    fn images_with_the_statistics_of_the_layer_have_no_error() {
        // Means 0.5 and -1, unbiased deviations 1 and 2.
        let h = 0.75f32.sqrt();
        let z = [0.5 + h, 0.5 - h, 0.5 + h, 0.5 - h, -1.0 + 2.0 * h, -1.0 - 2.0 * h, -1.0 + 2.0 * h, -1.0 - 2.0 * h];
        let z = Tensor::from_slice(&z, (1, 2, 2, 2), &Device::Cpu).unwrap();
        let error = statistics_error(&z, &statistics()).unwrap().to_scalar::<f32>().unwrap();
        assert!(error < 1e-10, "{error}");
        let moved = statistics_error(&(z + 2.0).unwrap(), &statistics()).unwrap().to_scalar::<f32>().unwrap();
        assert!((moved - 8.0).abs() < 1e-5, "{moved}");
    }

    #[test]
    fn value_and_gradient_are_those_of_plain_operations_in_f64() {
        let z = noise((3, 2, 3, 2), 5, DType::F32);
        let fused = Var::from_tensor(&z).unwrap();
        let error = statistics_error(&fused, &statistics()).unwrap();
        let plain = Var::from_tensor(&z.to_dtype(DType::F64).unwrap()).unwrap();
        let column = |values: &[f64]| Tensor::from_slice(values, (1, 2, 1), &Device::Cpu).unwrap();
        let flat = plain.flatten_from(2).unwrap();
        let centred = flat.broadcast_sub(&flat.mean_keepdim(2).unwrap()).unwrap();
        let std = ((centred.sqr().unwrap().sum_keepdim(2).unwrap() / 5.0).unwrap() + EPS).unwrap().sqrt().unwrap();
        let squared = |a: &Tensor, b: &[f64]| a.broadcast_sub(&column(b)).unwrap().sqr().unwrap().sum_all().unwrap();
        let of_mean = squared(&flat.mean_keepdim(2).unwrap(), &statistics().mean);
        let expected = ((of_mean + squared(&std, &statistics().std)).unwrap() / 3.0).unwrap();
        let value = f64::from(error.to_scalar::<f32>().unwrap());
        assert!((value / expected.to_scalar::<f64>().unwrap() - 1.0).abs() < 1e-6);
        let gradient = |loss: Tensor, z: &Var| {
            let gradient = loss.backward().unwrap().remove(z).unwrap().to_dtype(DType::F64).unwrap();
            gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap()
        };
        for (ours, theirs) in gradient(error, &fused).iter().zip(gradient(expected, &plain)) {
            assert!((ours - theirs).abs() < 1e-6, "{ours} {theirs}");
        }
    }

    #[test]
    fn a_map_of_one_pixel_is_moved_by_its_mean_alone() {
        let z = Var::from_tensor(&noise((2, 2, 1, 1), 7, DType::F32)).unwrap();
        let gradient = statistics_error(&z, &statistics()).unwrap().backward().unwrap().remove(&z).unwrap();
        let expected: Vec<f32> = z.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let expected: Vec<f32> = expected.iter().zip([0.5, -1.0, 0.5, -1.0]).map(|(z, mean)| z - mean).collect();
        assert_eq!(gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap(), expected);
    }
}

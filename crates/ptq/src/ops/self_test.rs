//! A second's proof that a GPU computes: one operation of each kind beside the CPU.

use super::cuda::open;
use crate::error::Result;
use crate::ops::conv::{Geometry, Padding, conv2d_relu};
use crate::ops::fake_quant::{ClipOrder, FakeQuant, Mask, fake_quant};
use crate::ops::pool::{Pool, max_pool2d};
use crate::ops::recon_error::recon_error;
use crate::rng::Stream;
use candle_core::{Device, Tensor, Var};

/// How far one operation on a GPU is from the CPU.
#[derive(Clone, Debug)]
pub struct Check {
    pub operation: &'static str,
    /// `|gpu - cpu| / |cpu|` in the Euclidean norm, the largest of its result and its gradients.
    pub distance: f64,
}

impl Check {
    /// Whether that is rounding: sums of some thousand terms in another order.
    pub fn is_passed(&self) -> bool {
        self.distance < 1e-4
    }
}

type Operation = (&'static str, fn(&[Tensor]) -> Result<Tensor>);

const OPERATIONS: [Operation; 6] = [
    ("matrix product", |t| Ok(t[0].flatten_from(1)?.matmul(&t[0].flatten_from(1)?.t()?)?)),
    ("convolution", |t| conv2d_relu(&t[0], &t[1], None, GEOMETRY, 1e6)),
    ("depthwise convolution", |t| {
        conv2d_relu(&t[0], &t[1].narrow(1, 0, 1)?, None, Geometry { groups: CHANNELS, ..GEOMETRY }, 1e6)
    }),
    ("fake quantization", |t| {
        let mask = Mask::Keyed { key: [1, 2], threshold: u32::MAX / 2 };
        let quant = FakeQuant { levels: (-2.0, 1.0), clip: ClipOrder::ClipThenRound, scale_gradient_factor: 1.0, mask };
        Ok(fake_quant(&t[0], &t[2], quant)?)
    }),
    ("max pooling", |t| max_pool2d(&t[0], Pool { kernel: 3, stride: 2, padding: 1 })),
    ("reconstruction error", |t| Ok(recon_error(&t[0], &(&t[0] * 0.5)?.detach(), None, 2.4)?)),
];

const CHANNELS: usize = 16;
const GEOMETRY: Geometry = Geometry { stride: 1, padding: Padding::Each(1), groups: 1 };

/// Runs each operation, forward and backward, on the CPU and on GPU `index`.
///
/// Errors: a GPU that cannot be used; an operation that fails there.
pub fn self_test(index: usize) -> Result<Vec<Check>> {
    let gpu = open(index)?;
    OPERATIONS.iter().map(|(operation, f)| Ok(Check { operation, distance: distance(&gpu, *f)? })).collect()
}

fn distance(gpu: &Device, f: fn(&[Tensor]) -> Result<Tensor>) -> Result<f64> {
    let [here, there] = [outcome(&Device::Cpu, f)?, outcome(gpu, f)?];
    let of_one = |(here, there): (&Vec<f32>, &Vec<f32>)| {
        let apart: f64 = here.iter().zip(there).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        let norm: f64 = here.iter().map(|a| f64::from(*a).powi(2)).sum();
        (apart / norm.max(f64::MIN_POSITIVE)).sqrt()
    };
    // A maximum would leave out what is not a number.
    let distances: Vec<f64> = here.iter().zip(&there).map(of_one).collect();
    Ok(distances.into_iter().fold(0.0, |largest, distance| if distance <= largest { largest } else { distance }))
}

/// Result and gradients.
fn outcome(device: &Device, f: fn(&[Tensor]) -> Result<Tensor>) -> Result<Vec<Vec<f32>>> {
    let noise = |shape: &[usize], use_of: u64| -> Result<Var> {
        let stream = Stream::new(0).at(use_of);
        let values = (0..shape.iter().product::<usize>() as u64).map(|i| 2.0 * stream.unit(i) as f32 - 1.0);
        Ok(Var::from_tensor(&Tensor::from_vec(values.collect(), shape, device)?)?)
    };
    let scale = Var::from_tensor(&Tensor::new(&[0.3f32], device)?)?;
    let vars = [noise(&[4, CHANNELS, 15, 17], 1)?, noise(&[CHANNELS, CHANNELS, 3, 3], 2)?, scale];
    let y = f(&vars.clone().map(|var| var.as_tensor().clone()))?;
    let values = |tensor: &Tensor| -> Result<Vec<f32>> { Ok(tensor.flatten_all()?.to_vec1()?) };
    let gradients = y.sqr()?.sum_all()?.backward()?;
    let gradients = vars.iter().filter_map(|var| gradients.get(var)).map(values);
    std::iter::once(values(&y)).chain(gradients).collect()
}

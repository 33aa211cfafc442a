//! Weights by a rule instead of training: for smoke tests, benchmarks and comparisons with other libraries
//! (`scripts/make_arch_golden.py` follows the same rule).

use super::ArchSpec;
use super::layout::Layout;
use crate::error::Result;
use candle_core::{Device, Tensor};
use std::collections::HashMap;

/// Tensors of a checkpoint of `arch` in `layout`: with `u` the [`noise`] of a tensor's name,
/// `running_var = 1 + u / 2`, `running_mean = bias = u / 5`, `weight = 1 + u / 4` of a BatchNorm layer and
/// `u sqrt(6 / fan_in)` of any other.
pub fn tensors(arch: &ArchSpec, layout: &Layout) -> Result<HashMap<String, Tensor>> {
    let tensors = super::tensors(arch, layout)?.into_iter();
    tensors.map(|(name, shape)| Ok((name.clone(), tensor(&name, &shape)?))).collect()
}

fn tensor(name: &str, shape: &[usize]) -> Result<Tensor> {
    let (offset, factor) = match name.rsplit('.').next() {
        Some("running_var") => (1.0, 0.5),
        Some("running_mean" | "bias") => (0.0, 0.2),
        _ if shape.len() == 1 => (1.0, 0.25),
        _ => (0.0, (6.0 / shape[1..].iter().product::<usize>() as f64).sqrt()),
    };
    let values = noise(name, shape.iter().product()).map(|u| (offset + factor * u) as f32);
    Ok(Tensor::from_vec(values.collect::<Vec<f32>>(), shape, &Device::Cpu)?)
}

/// `n` numbers in [-1, 1): element `i` from the upper 53 bits of SplitMix64 at `h + (i + 1) 0x9e3779b97f4a7c15`, with `h` the
/// 64-bit FNV-1a hash of `name`.
pub fn noise(name: &str, n: usize) -> impl Iterator<Item = f64> {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (1..=n as u64).map(move |i| {
        let mut z = hash.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    })
}

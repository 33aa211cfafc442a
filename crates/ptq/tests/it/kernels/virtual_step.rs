//! Steps of an unrolled Adam and their adjoints.

use super::host::{Grid, kernels};
use super::{BLOCK_ELEMENTS, COUNTS, noise};
use candle_core::{Device, Tensor};
use ptq::ops::virtual_step::{Moments, adam_adjoint, adam_step, normalised};

kernels! { VirtualStep of "virtual_step.cu":
    fn adam_step(
        theta: *const f64, g: *const f64, lr: *const f64, m: *const f64, v: *const f64, theta_out: *mut f64, m_out: *mut f64,
        v_out: *mut f64, factor: f64, eps: f64, n: u64,
    );
    fn adam_adjoint(
        adjoint: *const f64, g: *const f64, lr: *const f64, m: *const f64, v: *const f64, of_m: *const f64, of_v: *const f64,
        u: *mut f64, of_m_out: *mut f64, of_v_out: *mut f64, factor: f64, eps: f64, n: u64,
    );
    fn largest_of_blocks(x: *const f64, partial: *mut f64, n: u64);
    fn largest(partial: *const f64, size: *mut f64, blocks: u32);
    fn divide(x: *const f64, size: *const f64, y: *mut f64, n: u64);
}

const EPS: f64 = 1e-8;

fn numbers(n: usize, seed: u64) -> Vec<f64> {
    noise(n, seed).into_iter().map(f64::from).collect()
}

fn vector(values: &[f64]) -> Tensor {
    Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_vec1().unwrap()
}

/// Adam's bias correction at step `t`.
fn correction(t: i32) -> f64 {
    (1.0 - 0.999f64.powi(t)).sqrt() / (1.0 - 0.9f64.powi(t))
}

/// Three results of `n` elements that a kernel writes.
fn written(n: usize, kernel: impl FnOnce([*mut f64; 3])) -> [Vec<f64>; 3] {
    let mut results = [(); 3].map(|()| vec![0.0; n]);
    kernel(results.each_mut().map(Vec::as_mut_ptr));
    results
}

#[test]
fn steps_and_their_adjoints() {
    for kernels in VirtualStep::compiled() {
        for (n, t) in COUNTS.into_iter().zip([1, 2, 3, 1, 2, 3, 1, 2, 3]) {
            let [theta, mut g, lr, m, mut v, of_m, of_v] = std::array::from_fn(|i| numbers(n, i as u64));
            v.iter_mut().for_each(|v| *v = v.abs());
            // Where there was no gradient yet, the root has no slope.
            if let (Some(g), Some(v)) = (g.first_mut(), v.first_mut()) {
                (*g, *v) = (0.0, 0.0);
            }
            let moments = Moments { m: vector(&m), v: vector(&v) };
            let of_moments = Moments { m: vector(&of_m), v: vector(&of_v) };
            let [start, gradient, rates] = [&theta, &g, &lr].map(|values| vector(values));
            let inputs = [&theta, &g, &lr, &m, &v, &of_m, &of_v].map(|values| values.as_ptr());
            let [theta, g, lr, m, v, of_m, of_v] = inputs;
            let (grid, factor, len) = (|| Grid::each(n), correction(t as i32), n as u64);

            let (after, then) = adam_step(&start, &gradient, &rates, &moments, (t, EPS)).unwrap();
            let here = written(n, |[a, b, c]| kernels.adam_step(grid(), theta, g, lr, m, v, a, b, c, factor, EPS, len));
            assert!(here == [values(&after), values(&then.m), values(&then.v)], "step {t} of {n}");

            let both = (&moments, &of_moments);
            let (u, before) = adam_adjoint(&start, &gradient, &rates, both, (t, EPS)).unwrap();
            let here = written(n, |[a, b, c]| {
                kernels.adam_adjoint(grid(), theta, g, lr, m, v, of_m, of_v, a, b, c, factor, EPS, len);
            });
            assert!(here == [values(&u), values(&before.m), values(&before.v)], "adjoint {t} of {n}");
        }
    }
}

#[test]
fn directions_of_moderate_size() {
    for kernels in VirtualStep::compiled() {
        for n in COUNTS {
            for u in [numbers(n, 1), vec![0.0; n]] {
                let (unit, size) = normalised(&vector(&u)).unwrap();
                let blocks = n.div_ceil(BLOCK_ELEMENTS);
                let (mut partial, mut largest, mut divided) = (vec![0.0; blocks], [0.0], vec![0.0; n]);
                kernels.largest_of_blocks(Grid::blocks(blocks), u.as_ptr(), partial.as_mut_ptr(), n as u64);
                kernels.largest(Grid::blocks(1), partial.as_ptr(), largest.as_mut_ptr(), blocks as u32);
                kernels.divide(Grid::each(n), u.as_ptr(), largest.as_ptr(), divided.as_mut_ptr(), n as u64);
                assert!(values(&size) == largest && values(&unit) == divided, "{n} elements");
            }
        }
    }
}

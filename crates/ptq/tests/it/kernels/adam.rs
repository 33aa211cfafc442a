//! Steps of Adam.

use super::host::{Grid, THREADS, kernels};
use super::{COUNTS, assert_equal, flat, noise, tensor, with_edges};
use candle_core::{Tensor, Var};
use ptq::ops::adam::{AdamState, Step, step};

/// `MOST` of the source.
const MOST: usize = 64;

/// `Parameters` of the source.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Parameters {
    p: [*mut f32; MOST],
    m: [*mut f32; MOST],
    v: [*mut f32; MOST],
    g: [*const f32; MOST],
    step_size: [f32; MOST],
    end: [u32; MOST],
    len: [u32; MOST],
    count: u32,
}

kernels! { Adam of "adam.cu":
    fn adam(all: Parameters, correction: f32, factor: f32);
}

/// A step of parameters of all of these lengths at once.
fn compare(kernels: Adam, lens: &[usize], factor: f64) {
    let mut p: Vec<Vec<f32>> = lens.iter().enumerate().map(|(i, &n)| noise(n, i as u64)).collect();
    let (mut m, mut v): (Vec<_>, Vec<_>) = lens.iter().map(|&n| (vec![0f32; n], vec![0f32; n])).unzip();
    let vars: Vec<Var> = p.iter().map(|p| Var::from_tensor(&tensor(p, &[p.len()])).unwrap()).collect();
    let states: Vec<AdamState> = vars.iter().map(|var| AdamState::new(var).unwrap()).collect();
    for t in 1..10 {
        let edges = [0.0, 1e-30, 1e10, f32::NAN, f32::INFINITY, -0.0];
        let g = |(i, &n): (usize, &usize)| with_edges(noise(n, (100 * t + i) as u64), &edges);
        let g: Vec<Vec<f32>> = lens.iter().enumerate().map(g).collect();
        let gradients: Vec<Tensor> = g.iter().map(|g| tensor(g, &[g.len()])).collect();
        let lr = |i: usize| 1e-2 / (i + 1) as f64;
        let steps = states.iter().zip(&gradients).enumerate();
        let steps: Vec<Step> = steps.map(|(i, (state, gradient))| Step { state, gradient, lr: lr(i) }).collect();
        step(&steps, t, factor).unwrap();
        let mut all = Parameters {
            p: [std::ptr::null_mut(); MOST],
            m: [std::ptr::null_mut(); MOST],
            v: [std::ptr::null_mut(); MOST],
            g: [std::ptr::null(); MOST],
            step_size: [0.0; MOST],
            end: [0; MOST],
            len: [0; MOST],
            count: lens.len() as u32,
        };
        let mut blocks = 0;
        for (i, &n) in lens.iter().enumerate() {
            (all.p[i], all.m[i], all.v[i]) = (p[i].as_mut_ptr(), m[i].as_mut_ptr(), v[i].as_mut_ptr());
            all.g[i] = g[i].as_ptr();
            all.step_size[i] = (lr(i) / (1.0 - 0.9f64.powi(t as i32))) as f32;
            blocks += n.div_ceil(THREADS as usize);
            (all.end[i], all.len[i]) = (blocks as u32, n as u32);
        }
        let correction = (1.0 - 0.999f64.powi(t as i32)).sqrt() as f32;
        kernels.adam(Grid::blocks(blocks), all, correction, factor as f32);
    }
    for (i, (p, var)) in p.iter().zip(&vars).enumerate() {
        assert_equal(&format!("parameter {i} of {lens:?}"), p, &flat(var));
    }
}

#[test]
fn steps_of_adam() {
    for kernels in Adam::compiled() {
        COUNTS.iter().for_each(|&n| compare(kernels, &[n], 1.0));
        compare(kernels, &COUNTS, 0.3);
        let many: Vec<usize> = (0..MOST).map(|i| i * 37 % 600).collect();
        compare(kernels, &many, 1.0);
    }
}

//! Steps of Adam.

use super::host::{Grid, kernels};
use super::{COUNTS, assert_equal, flat, noise, tensor, with_edges};
use candle_core::Var;
use ptq::ops::adam::AdamState;

kernels! { Adam of "adam.cu":
    fn adam(
        p: *mut f32, m: *mut f32, v: *mut f32, g: *const f32, step_size: f32, correction: f32, n: u64,
    );
}

#[test]
fn steps_of_adam() {
    for kernels in Adam::compiled() {
        for n in COUNTS {
            let mut p = noise(n, 1);
            let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
            let var = Var::from_tensor(&tensor(&p, &[n])).unwrap();
            let state = AdamState::new(&var).unwrap();
            for t in 1..10 {
                let g = with_edges(noise(n, 10 + t as u64), &[0.0, 1e-30, 1e10, f32::NAN, f32::INFINITY, -0.0]);
                state.step(&tensor(&g, &[n]), t, 1e-2).unwrap();
                let correction = (1.0 - 0.999f64.powi(t as i32)).sqrt() as f32;
                let step_size = (1e-2 / (1.0 - 0.9f64.powi(t as i32))) as f32;
                let (p, m, v) = (p.as_mut_ptr(), m.as_mut_ptr(), v.as_mut_ptr());
                kernels.adam(Grid::each(n), p, m, v, g.as_ptr(), step_size, correction, n as u64);
            }
            assert_equal(&format!("{n} parameters"), &p, &flat(&var));
        }
    }
}

//! Against PyTorch's rules written out, central differences, and the composition for other devices.

use super::*;
use crate::ops::check::{central_difference, noise, with_second_derivatives};
use candle_core::{Device, Var};
use proptest::prelude::*;

fn flat(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn value_and_gradient(x: &Tensor, gy_seed: u64, pool: impl Fn(&Tensor) -> Result<Tensor>) -> (Vec<f64>, Vec<f64>) {
    let x = Var::from_tensor(x).unwrap();
    let y = pool(&x).unwrap();
    let gy = noise(y.dims(), gy_seed, x.dtype());
    let grads = (&y * gy).unwrap().sum_all().unwrap().backward().unwrap();
    (flat(&y), flat(grads.get(&x).unwrap()))
}

#[test]
fn a_window_takes_its_largest_value_and_its_gradient_goes_there() {
    let x = Tensor::new(&[[[[-5f32, -2., -9.], [-4., -8., -3.], [-1., -7., -6.]]]], &Device::Cpu).unwrap();
    let pool = Pool { kernel: 3, stride: 2, padding: 1 };
    let x = Var::from_tensor(&x).unwrap();
    let y = max_pool2d(&x, pool).unwrap();
    // All values are negative: padding counted as zero would win everywhere.
    assert_eq!(flat(&y), [-2., -2., -1., -3.]);
    let weights = Tensor::new(&[[[[1f32, 10.], [100., 1000.]]]], &Device::Cpu).unwrap();
    let grads = (y * weights).unwrap().sum_all().unwrap().backward().unwrap();
    assert_eq!(flat(grads.get(&x).unwrap()), [0., 11., 0., 0., 0., 1000., 100., 0., 0.]);
}

#[test]
fn the_first_of_equal_values_wins() {
    let x = Tensor::ones((1, 1, 4, 4), DType::F64, &Device::Cpu).unwrap();
    let pool = Pool { kernel: 2, stride: 2, padding: 0 };
    let x = Var::from_tensor(&x).unwrap();
    let grads = max_pool2d(&x, pool).unwrap().sum_all().unwrap().backward().unwrap();
    assert_eq!(flat(grads.get(&x).unwrap()), [1., 0., 1., 0., 0., 0., 0., 0., 1., 0., 1., 0., 0., 0., 0., 0.]);
}

#[test]
fn nan_is_not_hidden() {
    let x = Tensor::new(&[[[[1f32, f32::NAN], [2., 3.]]]], &Device::Cpu).unwrap();
    let pool = Pool { kernel: 2, stride: 1, padding: 0 };
    assert!(flat(&max_pool2d(&x, pool).unwrap())[0].is_nan());
    let windows = Windows::new(x.dims4().unwrap(), pool).unwrap();
    let composed = Maxima { windows, winners: Winners::Views(winning_views(&x, &windows).unwrap()) };
    assert!(flat(&composed.pick(&x).unwrap())[0].is_nan());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Values are rounded to quarters so that ties are common.
    #[test]
    fn the_composition_for_other_devices_agrees(
        batch in 1usize..3, channels in 1usize..4, kernel in 1usize..5, stride in 1usize..4, padding in 0usize..3,
        extra in (0usize..7, 0usize..7), seed in 0u64..1000,
    ) {
        let pool = Pool { kernel, stride, padding: padding.min(kernel / 2) };
        let x = noise((batch, channels, kernel + extra.0, kernel + extra.1), seed, DType::F64);
        let x = ((x * 4.).unwrap().floor().unwrap() / 4.).unwrap();
        let windows = Windows::new(x.dims4().unwrap(), pool).unwrap();
        let direct = value_and_gradient(&x, 7, |x| max_pool2d(x, pool));
        let winners = Winners::Views(winning_views(&x, &windows).unwrap());
        let maxima = Maxima { windows, winners };
        let composed = value_and_gradient(&x, 7, |x| maxima.pick(x));
        prop_assert_eq!(direct, composed);
    }
}

#[test]
fn views_and_both_element_types() {
    let pool = Pool { kernel: 3, stride: 2, padding: 1 };
    let x = noise((2, 6, 7, 8), 1, DType::F32);
    let part = x.narrow(1, 2, 3).unwrap();
    let direct = max_pool2d(&part, pool).unwrap();
    let wide = max_pool2d(&part.to_dtype(DType::F64).unwrap(), pool).unwrap();
    assert_eq!(direct.dims(), [2, 3, 4, 4]);
    assert_eq!(flat(&direct), flat(&wide));
}

#[test]
fn gradients_of_both_orders_match_central_differences() {
    with_second_derivatives("ops::pool::tests::gradients_of_both_orders_match_central_differences", || {
        let pool = Pool { kernel: 3, stride: 2, padding: 1 };
        let vars = [noise((2, 2, 5, 6), 1, DType::F64), noise((2, 2, 1, 1), 2, DType::F64)];
        let vars = vars.map(|t| Var::from_tensor(&t).unwrap());
        let inner = |x: &Tensor, v: &[Var]| -> Result<Tensor> {
            let pooled = max_pool2d(&x.tanh()?, pool)?.sqr()?;
            Ok(global_avg_pool(&pooled)?.mul(&v[1])?.sqr()?.sum_all()?)
        };
        let first = |v: &[Var]| inner(&v[0], v);
        let second = |v: &[Var]| {
            let grads = inner(&v[0], v)?.backward()?;
            inner(&v[0].sub(&(grads.get(&v[0]).unwrap() * 0.1)?)?, v)
        };
        let check = |loss: &dyn Fn(&[Var]) -> Result<Tensor>| {
            let grads = loss(&vars).unwrap().backward().unwrap();
            for i in 0..2 {
                let expected = central_difference(&vars, i, loss);
                for (got, expected) in flat(grads.get(&vars[i]).unwrap()).iter().zip(expected) {
                    assert!((got - expected).abs() < 1e-7, "{got}, expected {expected}");
                }
            }
        };
        check(&first);
        check(&second);
    });
}

#[test]
fn windows_that_do_not_fit_are_errors() {
    let x = noise((1, 1, 4, 4), 1, DType::F32);
    let problem = |kernel, stride, padding| max_pool2d(&x, Pool { kernel, stride, padding }).unwrap_err().to_string();
    assert!(problem(5, 1, 0).contains("does not fit"));
    assert!(problem(3, 1, 2).contains("2 padding <= kernel"));
    assert!(problem(0, 1, 0).contains("positive"));
    assert!(problem(2, 0, 0).contains("positive"));
}

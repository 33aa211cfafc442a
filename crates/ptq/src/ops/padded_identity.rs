//! The shortcut without parameters of residual blocks that change the shape: option A of He et al. (arXiv 1512.03385, section 3.3).

use super::composed::{Sliding, shifted_views};
use super::tape::plain::pad_with_zeros;
use crate::error::{Error, Result};
use candle_core::Tensor;

/// Every `stride`-th row and column of `x`, with `padding` channels of zeros before and behind its own:
/// `y[n, padding + c, i, j] = x[n, c, stride i, stride j]`.
///
/// Shapes: `x` `(N, C, H, W)`; result `(N, C + 2 padding, H', W')` with `H' = H / stride` rounded up.
/// Gradient: to `x`, to any order; the map is linear.
/// Errors: [`Error::Shape`] for a stride of 0.  Source: `LambdaLayer` of akamaster/pytorch_resnet_cifar10.
pub fn padded_identity(x: &Tensor, stride: usize, padding: usize) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    if stride == 0 {
        return Err(Error::Shape { op: "padded_identity", problem: "a stride of 0".to_string() });
    }
    let out = (h.div_ceil(stride), w.div_ceil(stride));
    let views = shifted_views(x, Sliding { kernel: (1, 1), stride, padding: 0, out })?;
    Ok(pad_with_zeros(&views[0], 1, padding, padding)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{central_difference, noise, with_second_derivatives};
    use candle_core::{DType, Var};

    #[test]
    fn it_is_a_convolution_with_zeros_and_ones() {
        let x = noise((2, 3, 5, 6), 1, DType::F64);
        let y = padded_identity(&x, 2, 2).unwrap();
        let one = |i: usize| if i / 3 == i % 3 + 2 { 1.0 } else { 0.0 };
        let weight = Tensor::from_vec((0..21).map(one).collect::<Vec<f64>>(), (7, 3, 1, 1), x.device()).unwrap();
        let expected = x.conv2d(&weight, 0, 2, 1, 1).unwrap();
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert_eq!((y.dims(), values(&y)), (&[2, 7, 3, 3][..], values(&expected)));
        assert_eq!(values(&padded_identity(&x, 1, 0).unwrap()), values(&x));
        assert!(padded_identity(&x, 0, 1).unwrap_err().to_string().contains("a stride of 0"));
    }

    #[test]
    fn gradients_agree_with_central_differences_in_both_orders() {
        with_second_derivatives(
            "ops::padded_identity::tests::gradients_agree_with_central_differences_in_both_orders",
            || {
                let x = Var::from_tensor(&noise((2, 2, 3, 4), 1, DType::F64)).unwrap();
                let loss =
                    |vars: &[Var]| -> Result<Tensor> { Ok(padded_identity(&vars[0], 2, 1)?.powf(3.0)?.sum_all()?) };
                let squared_norm = |vars: &[Var]| -> Result<Tensor> {
                    let store = loss(vars)?.backward()?;
                    Ok(store.get(&vars[0]).map_or_else(|| vars[0].zeros_like(), |g| g.sqr())?.sum_all()?)
                };
                let vars = [x];
                let checked = |of: &dyn Fn(&[Var]) -> Result<Tensor>| {
                    let store = of(&vars).unwrap().backward().unwrap();
                    let ours = store.get(&vars[0]).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
                    let differences = central_difference(&vars, 0, of);
                    assert!(ours.iter().any(|g| *g != 0.0));
                    for (ours, difference) in ours.iter().zip(differences) {
                        assert!((ours - difference).abs() < 1e-7, "{ours} {difference}");
                    }
                };
                checked(&loss);
                checked(&squared_norm);
            },
        );
    }
}

//! Whether a tensor holds numbers alone.

use super::kernel::{self, BLOCK};
use candle_core::{DType, Result, Tensor};
use rayon::prelude::*;
use tracing::trace_span;

/// Whether no element of `x` is NaN or infinite.
pub fn is_finite(x: &Tensor) -> Result<bool> {
    let _span = trace_span!("check of finiteness").entered();
    if !x.device().is_cpu() || x.dtype() != DType::F32 {
        // 0 times anything but a finite number is NaN.
        return Ok(x.affine(0.0, 0.0)?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()? == 0.0);
    }
    kernel::with_slice(&x.contiguous()?, |x: &[f32]| {
        let is_finite = |block: &[f32]| {
            kernel::vectorised(
                #[inline(always)]
                || block.iter().fold(true, |all, x| all & x.is_finite()),
            )
        };
        Ok(x.par_chunks(BLOCK).all(is_finite))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn one_element_that_is_no_number_is_found_wherever_it_is() {
        for dtype in [DType::F32, DType::F64] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, BLOCK, 2 * BLOCK + 6] {
                    let mut values = vec![f32::MAX; 2 * BLOCK + 7];
                    let check = |values: &[f32]| {
                        let x = Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap();
                        is_finite(&x.to_dtype(dtype).unwrap()).unwrap()
                    };
                    assert!(check(&values));
                    values[at] = bad;
                    assert!(!check(&values), "{bad} at {at}");
                }
            }
        }
    }
}

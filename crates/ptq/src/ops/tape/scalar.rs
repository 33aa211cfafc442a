//! A function whose value is one number, differentiated by Candle: its graph is small, and what leads to its argument is not.

use super::apply1;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor, Var, bail};

/// `f(x)`, a scalar of `f`, any composition of Candle's operations. Gradient (first order): to `x`; to nothing else that `f` uses.
///
/// Errors: those of `f`, and a value of another shape.
pub fn scalar<E: From<candle_core::Error>>(
    x: &Tensor,
    f: impl FnOnce(&Tensor) -> std::result::Result<Tensor, E>,
) -> std::result::Result<Tensor, E> {
    if !x.track_op() {
        return f(x);
    }
    let leaf = Var::from_tensor(&x.detach())?;
    let value = f(leaf.as_tensor())?;
    Ok(apply1(x, Scalar { leaf, value })?)
}

struct Scalar {
    /// The argument, of which `value` is a function.
    leaf: Var,
    value: Tensor,
}

impl Scalar {
    /// The value in memory of its own, and its shape.
    fn copied(&self) -> Result<(Storage, Shape)> {
        if self.value.rank() != 0 {
            bail!("a scalar function has a value of shape {:?}", self.value.dims());
        }
        let value = self.value.detach().force_contiguous()?;
        let (storage, layout) = value.storage_and_layout();
        Ok((storage.try_clone(layout)?, Shape::from(())))
    }
}

impl CustomOp1 for Scalar {
    fn name(&self) -> &'static str {
        "scalar"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        match self.copied()? {
            (Storage::Cpu(value), shape) => Ok((value, shape)),
            _ => bail!("a scalar function that leaves its device"),
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        match self.copied()? {
            (Storage::Cuda(value), shape) => Ok((value, shape)),
            _ => bail!("a scalar function that leaves its device"),
        }
    }

    fn bwd(&self, _x: &Tensor, _value: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let of_leaf = self.value.backward()?.remove(&self.leaf);
        of_leaf.map(|of_leaf| of_leaf.detach().broadcast_mul(grad)).transpose()
    }
}

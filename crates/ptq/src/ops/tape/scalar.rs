//! A function whose value is one number, differentiated by Candle: its graph is small, and what leads to its argument is not.

use super::apply1;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, Var, bail};
#[cfg(feature = "cuda")]
use candle_core::{CudaStorage, Storage};

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
    fn check(&self) -> Result<Shape> {
        match self.value.rank() {
            0 => Ok(Shape::from(())),
            _ => bail!("a scalar function has a value of shape {:?}", self.value.dims()),
        }
    }
}

impl CustomOp1 for Scalar {
    fn name(&self) -> &'static str {
        "scalar"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let shape = self.check()?;
        let value = match self.value.dtype() {
            DType::F32 => CpuStorage::F32(vec![self.value.to_scalar()?]),
            DType::F64 => CpuStorage::F64(vec![self.value.to_scalar()?]),
            other => bail!("a scalar function of {other:?}"),
        };
        Ok((value, shape))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        let shape = self.check()?;
        // One element of its own: a sum over all, scaled.
        let value = self.value.detach().copy()?;
        let (storage, layout) = value.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, shape)),
            _ => bail!("a scalar function that leaves its device"),
        }
    }

    fn bwd(&self, _x: &Tensor, _value: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let of_leaf = self.value.backward()?.remove(&self.leaf);
        of_leaf.map(|of_leaf| of_leaf.detach().broadcast_mul(grad)).transpose()
    }
}

//! Candle's operations, noted. Values, gradients and errors are those of the methods of [`Tensor`] with the same names; of an argument that
//! is a constant no gradient is computed.

use super::note;
use candle_core::{D, Result, Shape, Tensor};

/// `gradient` if `x` is no constant.
fn of(x: &Tensor, gradient: impl FnOnce() -> Result<Tensor>) -> Result<Option<Tensor>> {
    x.track_op().then(gradient).transpose()
}

/// `a + b`, of one shape.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(note((a + b)?, &[a, b], |_, _, grad| Ok(vec![Some(grad.clone()), Some(grad.clone())])))
}

/// `a - b`, of one shape.
pub fn sub(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let y = (a - b)?;
    Ok(note(y, &[a, b], |args, _, grad| Ok(vec![Some(grad.clone()), of(&args[1], || grad.neg())?])))
}

/// `a * b`, of one shape.
pub fn mul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(note((a * b)?, &[a, b], |args, _, grad| {
        Ok(vec![of(&args[0], || grad * &args[1])?, of(&args[1], || grad * &args[0])?])
    }))
}

/// `x * x`.
pub fn sqr(x: &Tensor) -> Result<Tensor> {
    Ok(note(x.sqr()?, &[x], |args, _, grad| Ok(vec![Some((&args[0] * grad)?.affine(2.0, 0.0)?)])))
}

/// `e^x`.
pub fn exp(x: &Tensor) -> Result<Tensor> {
    Ok(note(x.exp()?, &[x], |_, y, grad| Ok(vec![Some((grad * y)?)])))
}

/// `-x`.
pub fn neg(x: &Tensor) -> Result<Tensor> {
    Ok(note(x.neg()?, &[x], |_, _, grad| Ok(vec![Some(grad.neg()?)])))
}

/// `x * factor + term`.
pub fn affine(x: &Tensor, factor: f64, term: f64) -> Result<Tensor> {
    Ok(note(x.affine(factor, term)?, &[x], move |_, _, grad| Ok(vec![Some(grad.affine(factor, 0.0)?)])))
}

/// `a + b`, where `b` is repeated to the shape of `a`.
pub fn broadcast_add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(note(a.broadcast_add(b)?, &[a, b], |args, _, grad| {
        Ok(vec![Some(grad.clone()), of(&args[1], || folded(grad, &args[1]))?])
    }))
}

/// `a * b`, where `b` is repeated to the shape of `a`.
pub fn broadcast_mul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(note(a.broadcast_mul(b)?, &[a, b], |args, _, grad| {
        let of_b = || folded(&(grad * &args[0])?, &args[1]);
        Ok(vec![of(&args[0], || grad.broadcast_mul(&args[1]))?, of(&args[1], of_b)?])
    }))
}

/// `a / b`, where `b` is repeated to the shape of `a`.
pub fn broadcast_div(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(note(a.broadcast_div(b)?, &[a, b], |args, _, grad| {
        let (a, b) = (&args[0], &args[1]);
        let of_b = || folded(&(grad * a)?.broadcast_div(&b.sqr()?)?.neg()?, b);
        Ok(vec![of(a, || grad.broadcast_div(b))?, of(b, of_b)?])
    }))
}

/// The gradient of `b` where that of `b` repeated is `grad`.
fn folded(grad: &Tensor, b: &Tensor) -> Result<Tensor> {
    let left = grad.rank() - b.rank();
    let repeated = (0..grad.rank()).filter(|&dim| dim < left || grad.dims()[dim] != b.dims()[dim - left]);
    grad.sum_keepdim(repeated.collect::<Vec<_>>())?.reshape(b.shape())
}

/// The matrix product of `a` and `b`.
pub fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(note(a.matmul(b)?, &[a, b], |args, _, grad| {
        let (a, b) = (&args[0], &args[1]);
        Ok(vec![of(a, || grad.matmul(&b.t()?))?, of(b, || a.t()?.matmul(grad))?])
    }))
}

/// The transpose of `x` in its last two dimensions.
pub fn t(x: &Tensor) -> Result<Tensor> {
    Ok(note(x.t()?, &[x], |_, _, grad| Ok(vec![Some(grad.t()?)])))
}

/// `x` in another shape.
pub fn reshape(x: &Tensor, shape: impl Into<Shape>) -> Result<Tensor> {
    Ok(note(x.reshape(shape.into())?, &[x], |args, _, grad| Ok(vec![Some(grad.reshape(args[0].shape())?)])))
}

/// `x` with its dimensions from `dim` on as one.
pub fn flatten_from(x: &Tensor, dim: usize) -> Result<Tensor> {
    Ok(note(x.flatten_from(dim)?, &[x], |args, _, grad| Ok(vec![Some(grad.reshape(args[0].shape())?)])))
}

/// `x` in row-major order.
pub fn contiguous(x: &Tensor) -> Result<Tensor> {
    Ok(note(x.contiguous()?, &[x], |_, _, grad| Ok(vec![Some(grad.clone())])))
}

/// The sum of all elements.
pub fn sum_all(x: &Tensor) -> Result<Tensor> {
    Ok(note(x.sum_all()?, &[x], |args, _, grad| Ok(vec![Some(grad.broadcast_as(args[0].shape())?)])))
}

/// The mean over the last two dimensions, which stay with one element.
pub fn mean_of_planes(x: &Tensor) -> Result<Tensor> {
    Ok(note(x.mean_keepdim((D::Minus2, D::Minus1))?, &[x], |args, _, grad| {
        let pixels = args[0].dim(D::Minus2)? * args[0].dim(D::Minus1)?;
        Ok(vec![Some(grad.affine(1.0 / pixels as f64, 0.0)?.broadcast_as(args[0].shape())?)])
    }))
}

/// `x` at the `len` positions of dimension `dim` from `start` on.
pub fn narrow(x: &Tensor, dim: usize, start: usize, len: usize) -> Result<Tensor> {
    Ok(note(x.narrow(dim, start, len)?, &[x], move |args, _, grad| {
        let behind = args[0].dim(dim)? - start - len;
        Ok(vec![Some(grad.pad_with_zeros(dim, start, behind)?)])
    }))
}

/// `x` between zeros in dimension `dim`.
pub fn pad_with_zeros(x: &Tensor, dim: usize, before: usize, behind: usize) -> Result<Tensor> {
    Ok(note(x.pad_with_zeros(dim, before, behind)?, &[x], move |args, _, grad| {
        Ok(vec![Some(grad.narrow(dim, before, args[0].dim(dim)?)?)])
    }))
}

/// `x` `(A, B, C, D)` as `(B, C, D, A)`.
pub fn first_dimension_last(x: &Tensor) -> Result<Tensor> {
    Ok(note(x.permute((1, 2, 3, 0))?, &[x], |_, _, grad| Ok(vec![Some(grad.permute((3, 0, 1, 2))?)])))
}

/// Rows `rows` of `x`.
pub fn index_rows(x: &Tensor, rows: &Tensor) -> Result<Tensor> {
    let y = x.index_select(rows, 0)?;
    let rows = rows.clone();
    Ok(note(y, &[x], move |args, _, grad| Ok(vec![Some(args[0].zeros_like()?.index_add(&rows, grad, 0)?)])))
}

/// `a` and behind it `b`, joined in their first dimension.
pub fn stacked_rows(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(note(Tensor::cat(&[a, b], 0)?, &[a, b], |args, _, grad| {
        let (of_a, of_b) = (args[0].dim(0)?, args[1].dim(0)?);
        Ok(vec![of(&args[0], || grad.narrow(0, 0, of_a))?, of(&args[1], || grad.narrow(0, of_a, of_b))?])
    }))
}

//! Convolutions and their two gradients as matrix products by cuBLAS, one for each image and group.
//!
//! Where kernels are of single pixels these are products with the input itself: beside cuDNN, whose deterministic algorithms for the weight
//! gradient take up to ten times as long, those that are large enough. Without cuDNN it is all but depthwise ones, whose input is unfolded into
//! the columns of a matrix before (im2col), so many images at a time as there is room for.

use super::launch::{Module, add_images, arguments, blocks_of_each, convolution, launch, module, u32_of};
use super::values::Values;
use crate::ops::sizes::Sizes;
use candle_core::cuda_backend::cudarc::cublas::sys::cublasOperation_t::{self, CUBLAS_OP_N, CUBLAS_OP_T};
use candle_core::cuda_backend::cudarc::cublas::{Gemm, GemmConfig, StridedBatchedConfig};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, CudaViewMut};
use candle_core::{CudaDevice, Error, Result};
use std::ops::Range;

const IM2COL: Module = module!("im2col");
/// Columns, or weight gradients of single images, that are there at a time, in values: 256 MiB. Weight gradients are added up in such
/// parts, so this size is part of the results.
const MOST_VALUES: usize = 1 << 26;

/// Whether cuDNN takes longer. Images of fewer pixels make matrices that are too small to fill a GPU.
#[cfg(feature = "cudnn")]
pub fn are_faster_than_cudnn(sizes: &Sizes) -> bool {
    sizes.is_pointwise() && sizes.groups == 1 && sizes.out_pixels() >= 196 && sizes.batch > 0
}

/// `y[n] = w columns[n]`.
pub fn forward(x: &Values, w: &Values, sizes: &Sizes) -> Result<CudaSlice<f32>> {
    let of = Matrices::of(sizes);
    let mut y = x.room(sizes.y_len())?;
    for images in parts(sizes.batch, of.unfolded) {
        let columns = Columns::under(x, sizes, &images)?;
        for group in 0..sizes.groups {
            let product = Product {
                size: [of.pixels, of.filters, of.terms],
                a: Factor { op: CUBLAS_OP_N, rows: of.pixels, apart: sizes.groups * of.columns },
                b: Factor { op: CUBLAS_OP_N, rows: of.terms, apart: 0 },
                apart: sizes.out_image(),
                images: images.len(),
            };
            let to = &mut y.slice_mut((images.start * sizes.groups + group) * of.output..);
            product.of(x.device, &columns.view(group * of.columns), &w.elements.slice(group * of.weight..), to)?;
        }
    }
    Ok(y)
}

/// `columns[n] = w^T gy[n]`, and what these give back to the input.
pub fn input_gradient(gy: &Values, w: &Values, sizes: &Sizes) -> Result<CudaSlice<f32>> {
    let of = Matrices::of(sizes);
    let mut gx = gy.room(sizes.x_len())?;
    for images in parts(sizes.batch, of.unfolded) {
        let start = images.start * sizes.in_image();
        let mut unfolded = match of.unfolded {
            0 => None,
            values => Some(gy.room(images.len() * values)?),
        };
        for group in 0..sizes.groups {
            let product = Product {
                size: [of.pixels, of.terms, of.filters],
                a: Factor { op: CUBLAS_OP_N, rows: of.pixels, apart: sizes.out_image() },
                b: Factor { op: CUBLAS_OP_T, rows: of.terms, apart: 0 },
                apart: sizes.groups * of.columns,
                images: images.len(),
            };
            let to = &mut match &mut unfolded {
                Some(columns) => columns.slice_mut(group * of.columns..),
                None => gx.slice_mut(start + group * of.columns..),
            };
            let gy_of = gy.elements.slice((images.start * sizes.groups + group) * of.output..);
            product.of(gy.device, &gy_of, &w.elements.slice(group * of.weight..), to)?;
        }
        if let Some(columns) = unfolded {
            let gx_of = gx.slice(start..images.end * sizes.in_image());
            let arguments = arguments![&columns, &gx_of, convolution(sizes)?, gx_of.len() as u64];
            // SAFETY: as many columns as these images have.
            unsafe { launch(gy.device, &IM2COL, "col2im", blocks_of_each(gx_of.len()), &arguments)? };
        }
    }
    Ok(gx)
}

/// `gw = sum over n of gy[n] columns[n]^T`, the images added up in their order.
pub fn weight_gradient(x: &Values, gy: &Values, sizes: &Sizes) -> Result<CudaSlice<f32>> {
    let of = Matrices::of(sizes);
    let parts: Vec<Range<usize>> = parts(sizes.batch, of.unfolded.max(sizes.weight())).collect();
    let of_parts = x.room(parts.len() * sizes.weight())?;
    for (part, images) in parts.iter().enumerate() {
        let columns = Columns::under(x, sizes, images)?;
        let mut of_images = x.room(images.len() * sizes.weight())?;
        for group in 0..sizes.groups {
            let product = Product {
                size: [of.terms, of.filters, of.pixels],
                a: Factor { op: CUBLAS_OP_T, rows: of.pixels, apart: sizes.groups * of.columns },
                b: Factor { op: CUBLAS_OP_N, rows: of.pixels, apart: sizes.out_image() },
                apart: sizes.weight(),
                images: images.len(),
            };
            let gy_of = gy.elements.slice((images.start * sizes.groups + group) * of.output..);
            let to = &mut of_images.slice_mut(group * of.weight..);
            product.of(x.device, &columns.view(group * of.columns), &gy_of, to)?;
        }
        let to = of_parts.slice(part * sizes.weight()..(part + 1) * sizes.weight());
        add_images(x.device, &of_images, images.len(), &to)?;
    }
    if parts.len() == 1 {
        return Ok(of_parts);
    }
    let gw = x.room(sizes.weight())?;
    add_images(x.device, &of_parts, parts.len(), &gw.as_view())?;
    Ok(gw)
}

/// The images of a batch in parts of at most [`MOST_VALUES`], with so many values for an image; of at least one image.
fn parts(batch: usize, of_image: usize) -> impl Iterator<Item = Range<usize>> {
    let images = MOST_VALUES.checked_div(of_image).unwrap_or(batch).max(1);
    (0..batch).step_by(images).map(move |start| start..(start + images).min(batch))
}

/// Sizes of the matrices of one group of one image: `output = weight columns`.
struct Matrices {
    pixels: usize,
    filters: usize,
    terms: usize,
    columns: usize,
    output: usize,
    weight: usize,
    /// Values of the columns of all groups of an image, 0 where they are those of the input.
    unfolded: usize,
}

impl Matrices {
    fn of(sizes: &Sizes) -> Self {
        let (pixels, filters, terms) = (sizes.out_pixels(), sizes.c_out_of_group(), sizes.terms());
        let unfolded = if sizes.is_pointwise() { 0 } else { sizes.groups * terms * pixels };
        Self {
            pixels,
            filters,
            terms,
            columns: terms * pixels,
            output: filters * pixels,
            weight: filters * terms,
            unfolded,
        }
    }
}

/// What is under the windows of some images.
enum Columns<'a> {
    Input(CudaView<'a, f32>),
    Unfolded(CudaSlice<f32>),
}

impl<'a> Columns<'a> {
    fn under(x: &'a Values, sizes: &Sizes, images: &Range<usize>) -> Result<Self> {
        let x_of = x.elements.slice(images.start * sizes.in_image()..images.end * sizes.in_image());
        let of_image = Matrices::of(sizes).unfolded;
        if of_image == 0 {
            return Ok(Columns::Input(x_of));
        }
        let columns = x.room(images.len() * of_image)?;
        let arguments = arguments![&x_of, &columns, convolution(sizes)?, columns.len() as u64];
        // SAFETY: as many columns as these images have.
        unsafe { launch(x.device, &IM2COL, "im2col", blocks_of_each(columns.len()), &arguments)? };
        Ok(Columns::Unfolded(columns))
    }

    fn view(&self, start: usize) -> CudaView<'_, f32> {
        match self {
            Columns::Input(x) => x.slice(start..),
            Columns::Unfolded(columns) => columns.slice(start..),
        }
    }
}

/// `c[n] = a[n] b[n]` in the order of columns, which is that of rows of the transposed matrices.
struct Product {
    /// Rows and columns of `c`, and what is summed over.
    size: [usize; 3],
    a: Factor,
    b: Factor,
    /// How far the results of two images are apart.
    apart: usize,
    images: usize,
}

struct Factor {
    /// Whether it is transposed.
    op: cublasOperation_t,
    /// The length of its columns in memory.
    rows: usize,
    /// How far the matrices of two images are apart; 0 if they have the same.
    apart: usize,
}

impl Product {
    fn of(&self, device: &CudaDevice, a: &CudaView<f32>, b: &CudaView<f32>, c: &mut CudaViewMut<f32>) -> Result<()> {
        let [m, n, k] = self.size;
        let int = |number: usize| u32_of(number).map(|number| number as i32);
        let gemm = GemmConfig {
            transa: self.a.op,
            transb: self.b.op,
            m: int(m)?,
            n: int(n)?,
            k: int(k)?,
            alpha: 1.0,
            lda: int(self.a.rows)?,
            ldb: int(self.b.rows)?,
            beta: 0.0,
            ldc: int(m)?,
        };
        let config = StridedBatchedConfig {
            gemm,
            batch_size: int(self.images)?,
            stride_a: self.a.apart as i64,
            stride_b: self.b.apart as i64,
            stride_c: self.apart as i64,
        };
        // SAFETY: `conv` has checked the lengths of the arguments, and `c` holds a product for each image.
        unsafe { device.cublas_handle().gemm_strided_batched(config, a, b, c) }.map_err(Error::wrap)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_in_parts() {
        let of = |batch, of_image| parts(batch, of_image).map(|images| (images.start, images.end)).collect::<Vec<_>>();
        assert_eq!(of(5, 0), [(0, 5)]);
        assert_eq!(of(5, MOST_VALUES / 2), [(0, 2), (2, 4), (4, 5)]);
        assert_eq!(of(2, MOST_VALUES + 1), [(0, 1), (1, 2)]);
        assert_eq!(of(2, MOST_VALUES / 2), [(0, 2)]);
        assert!(of(0, 0).is_empty() && of(0, 7).is_empty());
    }
}

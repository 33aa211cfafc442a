//! Convolutions of single pixels and their two gradients as matrix products, one for each image, by cuBLAS.
//!
//! cuDNN's deterministic algorithms for the weight gradient take up to ten times as long.

use super::launch::{Module, arguments, blocks_of_each, launch, module, u32_of};
use super::values::Values;
use crate::ops::sizes::Sizes;
use candle_core::cuda_backend::cudarc::cublas::sys::cublasOperation_t::{self, CUBLAS_OP_N, CUBLAS_OP_T};
use candle_core::cuda_backend::cudarc::cublas::{Gemm, GemmConfig, StridedBatchedConfig};
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{Error, Result};

const SUMS: Module = module!("sums");
/// Images of fewer pixels make matrices that are too small to fill a GPU.
const FEWEST_PIXELS: usize = 196;

/// Whether these are such convolutions, and large enough to gain by it.
pub fn are_products(sizes: &Sizes) -> bool {
    sizes.is_pointwise() && sizes.groups == 1 && sizes.out_pixels() >= FEWEST_PIXELS && sizes.batch > 0
}

/// `y[n] = w x[n]`.
pub fn forward(x: &Values, w: &Values, sizes: &Sizes) -> Result<CudaSlice<f32>> {
    let mut y = x.room(sizes.y_len())?;
    let (pixels, c_in, c_out) = (sizes.out_pixels(), sizes.c_in, sizes.c_out);
    let product =
        Product { size: [pixels, c_out, c_in], a: (CUBLAS_OP_N, pixels, c_in * pixels), b: (CUBLAS_OP_N, c_in, 0) };
    product.of(x, w, &mut y, sizes.batch)?;
    Ok(y)
}

/// `gx[n] = w^T gy[n]`.
pub fn input_gradient(gy: &Values, w: &Values, sizes: &Sizes) -> Result<CudaSlice<f32>> {
    let mut gx = gy.room(sizes.x_len())?;
    let (pixels, c_in, c_out) = (sizes.out_pixels(), sizes.c_in, sizes.c_out);
    let product =
        Product { size: [pixels, c_in, c_out], a: (CUBLAS_OP_N, pixels, c_out * pixels), b: (CUBLAS_OP_T, c_in, 0) };
    product.of(gy, w, &mut gx, sizes.batch)?;
    Ok(gx)
}

/// `gw = sum over n of gy[n] x[n]^T`, the images added up in their order.
pub fn weight_gradient(x: &Values, gy: &Values, sizes: &Sizes) -> Result<CudaSlice<f32>> {
    let (pixels, c_in, c_out) = (sizes.out_pixels(), sizes.c_in, sizes.c_out);
    let mut of_images = x.room(sizes.batch * sizes.weight())?;
    let product = Product {
        size: [c_in, c_out, pixels],
        a: (CUBLAS_OP_T, pixels, c_in * pixels),
        b: (CUBLAS_OP_N, pixels, c_out * pixels),
    };
    product.of(x, gy, &mut of_images, sizes.batch)?;
    let gw = x.room(sizes.weight())?;
    let arguments = arguments![&of_images, &gw, u32_of(sizes.batch)?, gw.len() as u64];
    // SAFETY: a product for each image, each as large as the weight.
    unsafe { launch(x.device, &SUMS, "add_images", blocks_of_each(gw.len()), &arguments)? };
    Ok(gw)
}

/// `c[n] = a[n] b[n]` in the order of columns, which is that of rows of the transposed matrices.
struct Product {
    /// Rows and columns of `c`, and what is summed over.
    size: [usize; 3],
    /// Whether it is transposed, the length of its columns in memory, and how far the matrices of two images are apart (0: the same).
    a: (cublasOperation_t, usize, usize),
    b: (cublasOperation_t, usize, usize),
}

impl Product {
    fn of(&self, a: &Values, b: &Values, c: &mut CudaSlice<f32>, images: usize) -> Result<()> {
        let [m, n, k] = self.size;
        let int = |number: usize| u32_of(number).map(|number| number as i32);
        let gemm = GemmConfig {
            transa: self.a.0,
            transb: self.b.0,
            m: int(m)?,
            n: int(n)?,
            k: int(k)?,
            alpha: 1.0,
            lda: int(self.a.1)?,
            ldb: int(self.b.1)?,
            beta: 0.0,
            ldc: int(m)?,
        };
        let config = StridedBatchedConfig {
            gemm,
            batch_size: int(images)?,
            stride_a: self.a.2 as i64,
            stride_b: self.b.2 as i64,
            stride_c: (m * n) as i64,
        };
        // SAFETY: `conv` has checked the lengths of the arguments, and `c` holds a product for each image.
        unsafe { a.device.cublas_handle().gemm_strided_batched(config, &a.elements, &b.elements, c) }
            .map_err(Error::wrap)?;
        Ok(())
    }
}

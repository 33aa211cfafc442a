//! Matrix products over slices: the one place that calls the `gemm` crate.

use super::vector::Real;
use std::ops::Range;

/// A dense matrix in a slice, row-major or the transpose of one.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T: Real> Matrix<'a, T> {
    /// `data` read as `rows` rows of `cols` values.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a {rows}x{cols} matrix");
        Matrix { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The same values with rows and columns exchanged.
    pub fn transposed(self) -> Self {
        Matrix { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    /// Some of the columns.
    pub fn columns(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.cols, "columns {range:?} of {}", self.cols);
        // Without elements, the first one may lie past the end of the slice.
        let first = (range.start * self.col_stride).min(self.data.len());
        Matrix { data: &self.data[first..], cols: range.len(), ..self }
    }
}

/// What becomes of the previous content of a destination.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Write {
    Overwrite,
    Add,
}

/// `dst = lhs rhs` or `dst += lhs rhs`, on the calling thread; `dst` is row-major.
#[allow(unsafe_code)]
pub(super) fn multiply<T: Real>(dst: &mut [T], write: Write, lhs: Matrix<T>, rhs: Matrix<T>) {
    let (m, k, n) = (lhs.rows, lhs.cols, rhs.cols);
    assert_eq!(k, rhs.rows, "inner dimensions of {m}x{k} times {}x{n}", rhs.rows);
    assert_eq!(dst.len(), m * n, "destination of a {m}x{n} product");
    // SAFETY: gemm reads lhs[i * row_stride + p * col_stride] for i < m, p < k, likewise rhs for p < k, j < n, and
    // accesses dst[i * n + j] for i < m, j < n. `Matrix::new`, `transposed` and `columns` keep all of the former inside their
    // slices, the assertion above the latter; `dst` is borrowed mutably and so overlaps neither. T is f32 or f64.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            1,
            n as isize,
            write == Write::Add,
            lhs.data.as_ptr(),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            T::one(),
            T::one(),
            false,
            false,
            false,
            gemm::Parallelism::None,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_plain_and_transposed_matrices() {
        // [1 2 3; 4 5 6] and its product with its own transpose.
        let a = [1f64, 2., 3., 4., 5., 6.];
        let a = Matrix::new(&a, 2, 3);
        let mut square = [0.; 4];
        multiply(&mut square, Write::Overwrite, a, a.transposed());
        assert_eq!(square, [14., 32., 32., 77.]);
        multiply(&mut square, Write::Add, a, a.transposed());
        assert_eq!(square, [28., 64., 64., 154.]);
    }

    #[test]
    fn products_of_some_columns() {
        let a = [1f64, 2., 3., 4., 5., 6.];
        let a = Matrix::new(&a, 2, 3);
        // [2; 5]^T [1 2; 4 5], and the second column of [1 4; 2 5; 3 6].
        let mut product = [0.; 2];
        multiply(&mut product, Write::Overwrite, a.columns(1..2).transposed(), a.columns(0..2));
        assert_eq!(product, [22., 29.]);
        let mut last = [0.; 3];
        multiply(&mut last, Write::Overwrite, a.transposed().columns(1..2), Matrix::new(&[1.], 1, 1));
        assert_eq!(last, [4., 5., 6.]);
    }

    #[test]
    #[should_panic(expected = "columns 1..4 of 3")]
    fn columns_that_are_not_there() {
        Matrix::new(&[0f32; 6], 2, 3).columns(1..4);
    }

    #[test]
    #[should_panic(expected = "inner dimensions")]
    fn mismatched_products_stop_before_the_unsafe_call() {
        let a = [0f32; 6];
        multiply(&mut [0.; 4], Write::Overwrite, Matrix::new(&a, 2, 3), Matrix::new(&a, 2, 3));
    }
}

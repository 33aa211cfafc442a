//! Columns of the pixels under windows, beside the convolution that picks each of them.

use super::host::{Grid, kernels};
use super::sizes::{Sizes, each_geometry};
use super::{assert_equal, eighths, outcome, tensor, written};
use ptq::ops::conv::{Geometry, conv2d};

kernels! { Im2col of "im2col.cu":
    fn im2col(x: *const f32, columns: *mut f32, sizes: Sizes, n: u64);
    fn col2im(columns: *const f32, x: *mut f32, sizes: Sizes, n: u64);
}

#[test]
fn columns_and_what_they_give_back() {
    let kernels = [(1, 1), (2, 2), (3, 3), (5, 5), (3, 1), (1, 3), (6, 3)];
    each_geometry(&kernels, 1, |kernel, (h, w), out, geometry| {
        for images in [1, 3] {
            columns([images, 2, h, w], out, kernel, geometry);
        }
    });
}

fn columns(shape: [usize; 4], out: (usize, usize), (k_h, k_w): (usize, usize), geometry: Geometry) {
    let what = format!("{shape:?}, {k_h}x{k_w}, {geometry:?}");
    let [images, channels, h, w] = shape;
    let terms = channels * k_h * k_w;
    let (n, n_columns) = (images * channels * h * w, images * terms * out.0 * out.1);
    let (x, g) = (eighths(n, 1), eighths(n_columns, 2));
    // Filter t is one at its term t and zero elsewhere.
    let picks: Vec<f32> = (0..terms * terms).map(|at| f32::from(u8::from(at / terms == at % terms))).collect();
    let picks = tensor(&picks, &[terms, channels, k_h, k_w]);
    let (value, [of_x]) = outcome([&tensor(&x, &shape)], &g, |[x]| conv2d(x, &picks, None, geometry).unwrap());
    let sizes = Sizes::of(shape, out, (k_h, k_w), geometry);
    for kernels in Im2col::compiled() {
        let grid = Grid::each(n_columns);
        let columns = written(n_columns, |columns| kernels.im2col(grid, x.as_ptr(), columns, sizes, n_columns as u64));
        assert_equal(&what, &columns, &value);
        let gx = written(n, |gx| kernels.col2im(Grid::each(n), g.as_ptr(), gx, sizes, n as u64));
        assert_equal(&format!("{what}, back"), &gx, &of_x);
    }
}

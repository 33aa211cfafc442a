//! Depthwise convolutions.

use super::host::{Grid, kernels};
use super::sizes::{Sizes, each_geometry};
use super::{Sums, assert_equal, eighths, outcome, tensor, written};
use ptq::ops::conv::{Geometry, conv2d};

kernels! { Depthwise of "depthwise.cu":
    fn depthwise_forward(x: *const f32, weight: *const f32, y: *mut f32, sizes: Sizes, n: u64);
    fn depthwise_input_gradient(gy: *const f32, weight: *const f32, gx: *mut f32, sizes: Sizes, n: u64);
    fn depthwise_weight_gradient(x: *const f32, gy: *const f32, of_images: *mut f32, sizes: Sizes);
}

#[test]
fn depthwise_convolutions_and_their_gradients() {
    // Blocks take nine taps at a time: fewer than nine, nine, one more, several times nine with and without a rest.
    let kernels = [(1, 1), (2, 2), (3, 3), (5, 5), (7, 7), (3, 1), (1, 3), (2, 5), (6, 3), (3, 6)];
    each_geometry(&kernels, 3, |kernel, (h, w), out, geometry| {
        for images in [0, 1, 3] {
            depthwise([images, 3, h, w], out, kernel, geometry);
        }
    });
}

fn depthwise(shape: [usize; 4], (out_h, out_w): (usize, usize), (k_h, k_w): (usize, usize), geometry: Geometry) {
    let what = format!("{shape:?}, {k_h}x{k_w}, {geometry:?}");
    let [images, channels, h, w] = shape;
    let (n, n_out, taps) = (images * channels * h * w, images * channels * out_h * out_w, channels * k_h * k_w);
    let (x, weight, gy) = (eighths(n, 1), eighths(taps, 2), eighths(n_out, 3));
    let inputs = [&tensor(&x, &shape), &tensor(&weight, &[channels, 1, k_h, k_w])];
    let (value, [of_x, of_weight]) = outcome(inputs, &gy, |[x, w]| conv2d(x, w, None, geometry).unwrap());
    let sizes = Sizes::of(shape, (out_h, out_w), (k_h, k_w), geometry);
    for (kernels, sums) in Depthwise::compiled().zip(Sums::compiled()) {
        let (x, weight, gy) = (x.as_ptr(), weight.as_ptr(), gy.as_ptr());
        let y = written(n_out, |y| kernels.depthwise_forward(Grid::each(n_out), x, weight, y, sizes, n_out as u64));
        assert_equal(&what, &y, &value);
        let gx = written(n, |gx| kernels.depthwise_input_gradient(Grid::each(n), gy, weight, gx, sizes, n as u64));
        assert_equal(&format!("{what}, gradient of the input"), &gx, &of_x);
        let planes = Grid::blocks(images * channels);
        let of_images = written(images * taps, |of_images| {
            kernels.depthwise_weight_gradient(planes, x, gy, of_images, sizes);
        });
        let gw =
            written(taps, |gw| sums.add_images(Grid::each(taps), of_images.as_ptr(), gw, images as u32, taps as u64));
        assert_equal(&format!("{what}, gradient of the weight"), &gw, &of_weight);
    }
}

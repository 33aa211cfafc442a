//! Values that change places.

use super::host::{Grid, kernels};
use super::{PLANES, assert_equal, flat, noise, outcome, tensor, written};
use ptq::ops::layout::{join_channels, pixel_shuffle};

kernels! { Layout of "layout.cu":
    fn pixels_from_channels(x: *const f32, y: *mut f32, h: u32, w: u32, n: u64);
    fn channels_from_pixels(x: *const f32, y: *mut f32, h: u32, w: u32, n: u64);
    fn joined(a: *const f32, b: *const f32, y: *mut f32, of_a: u32, of_b: u32, n: u64);
}

#[test]
fn pixels_from_channels_and_back() {
    for layout in Layout::compiled() {
        for ((images, channels), (h, w)) in
            [(0, 4), (1, 4), (3, 4), (2, 12)].iter().flat_map(|sizes| PLANES.map(|plane| (*sizes, plane)))
        {
            let shape = [images, channels, h, w];
            let n = shape.iter().product();
            let (x, gy) = (noise(n, 1), noise(n, 2));
            let (value, [gradient]) = outcome([&tensor(&x, &shape)], &gy, |[x]| pixel_shuffle(x).unwrap());
            let (h, w) = (h as u32, w as u32);
            let y = written(n, |y| layout.pixels_from_channels(Grid::each(n), x.as_ptr(), y, h, w, n as u64));
            assert_equal(&format!("{shape:?}"), &y, &value);
            let gx = written(n, |gx| layout.channels_from_pixels(Grid::each(n), gy.as_ptr(), gx, h, w, n as u64));
            assert_equal(&format!("{shape:?}, gradient"), &gx, &gradient);
        }
    }
}

#[test]
fn channels_side_by_side() {
    for layout in Layout::compiled() {
        for (images, [of_a, of_b]) in
            [0, 1, 3].iter().flat_map(|images| [[1, 1], [3, 2], [1, 70]].map(|channels| (*images, channels)))
        {
            for (h, w) in PLANES {
                let shapes = [[images, of_a, h, w], [images, of_b, h, w]];
                let (a, b) = (noise(images * of_a * h * w, 1), noise(images * of_b * h * w, 2));
                let expected = join_channels(&tensor(&a, &shapes[0]), &tensor(&b, &shapes[1])).unwrap();
                let n = a.len() + b.len();
                let y = written(n, |y| {
                    let (of_a, of_b) = ((of_a * h * w) as u32, (of_b * h * w) as u32);
                    layout.joined(Grid::each(n), a.as_ptr(), b.as_ptr(), y, of_a, of_b, n as u64);
                });
                assert_equal(&format!("{shapes:?}"), &y, &flat(&expected));
            }
        }
    }
}

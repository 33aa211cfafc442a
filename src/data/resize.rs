//! Antialiased resizing of 8-bit images, bit for bit as Pillow's `Image.resize`.
//!
//! Pillow's way (its `Resample.c`): one pass over rows, one over columns, each with a filter whose support grows with the
//! reduction; weights in fixed point with 22 fractional bits; the pixels between the passes rounded to 8 bits. Networks
//! were trained and published on such images, so another rounding would be another test set. Where the height loses more
//! than twice as many pixels as the width, the columns come first, as since Pillow 13.0.

use super::decode::Pixels;
use serde::{Deserialize, Serialize};

/// How pixels between pixels are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interpolation {
    Bilinear,
    /// With `a = -0.5`, as Pillow's.
    Bicubic,
}

/// Fractional bits of a weight: 8 bits of a pixel and two for overshooting are left of 32.
const PRECISION: u32 = 32 - 8 - 2;

impl Interpolation {
    /// Half the width of the filter, in pixels of the larger grid.
    fn support(self) -> f64 {
        match self {
            Interpolation::Bilinear => 1.0,
            Interpolation::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        match self {
            Interpolation::Bilinear if x < 1.0 => 1.0 - x,
            Interpolation::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Interpolation::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            _ => 0.0,
        }
    }
}

/// Rows and columns of a resized image that are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub top: usize,
    pub left: usize,
    pub height: usize,
    pub width: usize,
}

/// `window` of `image` resized to `height` x `width`; only what the window shows is computed.
///
/// `window` must lie inside the resized image.
pub fn resize(image: &Pixels, (height, width): (usize, usize), window: Window, by: Interpolation) -> Pixels {
    let columns = Taps::new(image.width, width, window.left..window.left + window.width, by);
    let rows = Taps::new(image.height, height, window.top..window.top + window.height, by);
    let horizontally = match image.channels {
        3 => horizontally::<3>,
        _ => horizontally::<1>,
    };
    let data = if is_vertical_first((image.height, image.width), (height, width)) {
        let data = vertically(&image.data, image.width * image.channels, &rows);
        let down = Pixels { data, ..image.sized(window.height, image.width) };
        horizontally(&down, &columns, 0..window.height)
    } else {
        let sources = rows.sources();
        let across = horizontally(image, &columns, sources.clone());
        vertically(&across, window.width * image.channels, &rows.behind(sources.start))
    };
    Pixels { data, ..image.sized(window.height, window.width) }
}

/// Whether Pillow does the columns before the rows when `from`, height and width, becomes `to`.
fn is_vertical_first(from: (usize, usize), to: (usize, usize)) -> bool {
    let lost = |from: usize, to: usize| from as i64 - to as i64;
    let (rows, columns) = (lost(from.0, to.0), lost(from.1, to.1));
    rows > 0 && rows > 2 * columns
}

/// For each output position the input positions that it is a weighted sum of.
struct Taps {
    /// First input position of each output position, with its weights.
    of: Vec<(usize, Vec<i32>)>,
}

impl Taps {
    /// Of the output positions `wanted` when `from` positions become `to`; a size that stays is copied.
    fn new(from: usize, to: usize, wanted: std::ops::Range<usize>, by: Interpolation) -> Self {
        if from == to {
            return Self { of: wanted.map(|position| (position, vec![1 << PRECISION])).collect() };
        }
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let support = by.support() * stretch;
        let taps = |position: usize| {
            let centre = (position as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let last = ((centre + support + 0.5) as usize).min(from);
            let weight = |x: usize| by.weight((x as f64 - centre + 0.5) / stretch);
            let weights: Vec<f64> = (first..last).map(weight).collect();
            let sum: f64 = weights.iter().sum();
            let fixed = |weight: &f64| (weight / sum * f64::from(1 << PRECISION)).round() as i32;
            (first, weights.iter().map(fixed).collect())
        };
        Self { of: wanted.map(taps).collect() }
    }

    /// The input positions that any output position needs.
    fn sources(&self) -> std::ops::Range<usize> {
        let first = self.of.iter().map(|(first, _)| *first).min().unwrap_or(0);
        let last = self.of.iter().map(|(first, weights)| first + weights.len()).max().unwrap_or(0);
        first..last
    }

    /// The same where the first `positions` of the input are left out, which no output position needs.
    fn behind(mut self, positions: usize) -> Self {
        self.of.iter_mut().for_each(|(first, _)| *first -= positions);
        self
    }
}

fn rounded(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Half a unit of the last place that is kept.
const HALF: i32 = 1 << (PRECISION - 1);

/// Rows `rows` of `image`, resized in width. All rows of an image of one column could be more than the memory holds.
fn horizontally<const C: usize>(image: &Pixels, columns: &Taps, rows: std::ops::Range<usize>) -> Vec<u8> {
    let row_bytes = columns.of.len() * C;
    let mut across = vec![0; rows.len() * row_bytes];
    for (y, target) in rows.zip(across.chunks_exact_mut(row_bytes.max(1))) {
        let source = &image.data[y * image.width * C..][..image.width * C];
        let target = target.chunks_exact_mut(C);
        for (pixel, (first, weights)) in target.zip(&columns.of) {
            let mut sums = [HALF; C];
            for (source, weight) in source[first * C..].chunks_exact(C).zip(weights) {
                for (sum, level) in sums.iter_mut().zip(source) {
                    *sum += i32::from(*level) * weight;
                }
            }
            for (level, sum) in pixel.iter_mut().zip(sums) {
                *level = rounded(sum);
            }
        }
    }
    across
}

fn vertically(across: &[u8], row_bytes: usize, rows: &Taps) -> Vec<u8> {
    let mut resized = Vec::with_capacity(rows.of.len() * row_bytes);
    let mut sums = vec![0i32; row_bytes];
    for (first, weights) in &rows.of {
        sums.fill(HALF);
        for (row, weight) in across[first * row_bytes..].chunks_exact(row_bytes).zip(weights) {
            for (sum, level) in sums.iter_mut().zip(row) {
                *sum += i32::from(*level) * weight;
            }
        }
        resized.extend(sums.iter().map(|sum| rounded(*sum)));
    }
    resized
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(height: usize, width: usize) -> Window {
        Window { top: 0, left: 0, height, width }
    }

    fn pattern(height: usize, width: usize, channels: usize) -> Pixels {
        let data = (0..height * width * channels).map(|i| (i * 37 % 251) as u8).collect();
        Pixels { height, width, channels, data }
    }

    #[test]
    fn a_constant_image_stays_constant_and_an_unchanged_size_changes_nothing() {
        for by in [Interpolation::Bilinear, Interpolation::Bicubic] {
            let constant = Pixels { height: 13, width: 17, channels: 3, data: vec![201; 13 * 17 * 3] };
            for (height, width) in [(5, 7), (29, 31), (13, 4)] {
                assert!(resize(&constant, (height, width), whole(height, width), by).data.iter().all(|v| *v == 201));
            }
            let image = pattern(9, 8, 3);
            assert_eq!(resize(&image, (9, 8), whole(9, 8), by), image);
        }
    }

    #[test]
    fn the_middle_of_a_long_image_is_that_of_the_whole() {
        let side = 100_000;
        let mut image = Pixels { height: side, width: 1, channels: 1, data: vec![7; side] };
        image.data[side / 2] = 200;
        // Its shorter side becomes 256: the middle shows two or three of its pixels.
        let window = Window { top: 128 * side, left: 16, height: 224, width: 224 };
        let shown = resize(&image, (256 * side, 256), window, Interpolation::Bilinear);
        assert_eq!((shown.data.len(), shown.data.iter().max()), (224 * 224, Some(&200)));
    }

    #[test]
    fn a_window_is_cut_out_of_the_whole() {
        let image = pattern(40, 30, 3);
        let by = Interpolation::Bicubic;
        let all = resize(&image, (20, 15), whole(20, 15), by);
        let window = Window { top: 3, left: 4, height: 9, width: 8 };
        let part = resize(&image, (20, 15), window, by);
        for (y, row) in part.data.chunks(8 * 3).enumerate() {
            assert_eq!(row, &all.data[((y + 3) * 15 + 4) * 3..][..8 * 3]);
        }
    }
}

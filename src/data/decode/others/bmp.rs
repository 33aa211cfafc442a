//! BMP files of 16 bits for a pixel: Pillow rounds their levels down.

use super::{Pixels, number};

/// Where the header of Windows 3 and its successors has bits for a pixel, the way of coding, and masks of the colours.
const BITS: usize = 28;
const CODING: usize = 30;
const MASKS: usize = 54;
/// Ways of coding with masks.
const WITH_MASKS: [usize; 2] = [3, 6];

/// `pixels` of `file` with the levels that Pillow gives.
///
/// Errors: masks of other than 5 or 6 bits where a pixel has 16, which Pillow refuses too.
pub(super) fn as_pillow(file: &[u8], mut pixels: Pixels) -> Result<Pixels, String> {
    if number::<4>(file, 14) < 40 || number::<2>(file, BITS) != 16 || pixels.channels != 3 {
        return Ok(pixels);
    }
    let bits = match WITH_MASKS.contains(&number::<4>(file, CODING)) {
        true => [0, 4, 8].map(|at| number::<4>(file, MASKS + at).count_ones()),
        false => [5; 3],
    };
    if bits.iter().any(|bits| !matches!(bits, 5 | 6)) {
        return Err(format!("a BMP with {bits:?} bits for red, green and blue, which is not read"));
    }
    let most = bits.map(|bits| (1u32 << bits) - 1);
    for pixel in pixels.data.chunks_exact_mut(3) {
        for (level, most) in pixel.iter_mut().zip(most) {
            // The crate rounds to the nearest: back to the stored number, then down.
            let stored = (u32::from(*level) * most + 127) / 255;
            *level = (stored * 255 / most) as u8;
        }
    }
    Ok(pixels)
}

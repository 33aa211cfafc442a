//! Colours of rows, with the fixed point of libjpeg's `jdcolor.c`, 16 fractional bits.

/// `n / 65536` rounded; what is multiplied with a chroma level around 0.
const fn fixed(n: f64) -> i32 {
    (n * 65536.0 + 0.5) as i32
}

const RED_CR: i32 = fixed(1.402);
const GREEN_CB: i32 = fixed(0.34414);
const GREEN_CR: i32 = fixed(0.71414);
const BLUE_CB: i32 = fixed(1.772);
const HALF: i32 = 1 << 15;

/// Pixels whose colours are computed at once.
const BLOCK: usize = 32;

/// RGB pixels of rows of luma and chroma.
#[inline(always)]
pub(super) fn rgb_row(y: &[u8], cb: &[u8], cr: &[u8], pixels: &mut [u8]) {
    let whole = y.len() / BLOCK * BLOCK;
    let blocks = y.chunks_exact(BLOCK).zip(cb.chunks_exact(BLOCK)).zip(cr.chunks_exact(BLOCK));
    for (((y, cb), cr), pixels) in blocks.zip(pixels.chunks_exact_mut(3 * BLOCK)) {
        let mut levels = [[0; BLOCK]; 3];
        for (x, ((y, cb), cr)) in y.iter().zip(cb).zip(cr).enumerate() {
            let [red, green, blue] = rgb(*y, *cb, *cr);
            (levels[0][x], levels[1][x], levels[2][x]) = (red, green, blue);
        }
        for (x, pixel) in pixels.chunks_exact_mut(3).enumerate() {
            (pixel[0], pixel[1], pixel[2]) = (levels[0][x], levels[1][x], levels[2][x]);
        }
    }
    let rest = y[whole..].iter().zip(&cb[whole..]).zip(&cr[whole..]);
    for (((y, cb), cr), pixel) in rest.zip(pixels[3 * whole..].chunks_exact_mut(3)) {
        pixel.copy_from_slice(&rgb(*y, *cb, *cr));
    }
}

/// RGB of luma and chroma.
#[inline(always)]
pub(super) fn rgb(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    [
        clipped(y + ((RED_CR * cr + HALF) >> 16)),
        clipped(y + ((HALF - GREEN_CB * cb - GREEN_CR * cr) >> 16)),
        clipped(y + ((BLUE_CB * cb + HALF) >> 16)),
    ]
}

#[inline(always)]
fn clipped(level: i32) -> u8 {
    level.max(0).min(255) as u8
}

/// RGB of inks as Adobe stores them, inverted: Pillow's `(255 - K) * (255 - C) / 255`.
#[inline(always)]
pub(super) fn rgb_of_inks(inks: [u8; 3], black: u8) -> [u8; 3] {
    inks.map(|ink| {
        let product = u32::from(255 - ink) * u32::from(black) + 128;
        // Division by 255, rounded.
        black - ((product + (product >> 8)) >> 8) as u8
    })
}

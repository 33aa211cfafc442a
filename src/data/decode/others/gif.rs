//! GIF files whose first picture leaves a part of the screen uncovered.

use super::{Pixels, number};

/// `pixels` of `file` with Pillow's colour where the first picture does not reach: the transparent one, else the first of
/// its palette.
///
/// Errors: a picture that is larger than the screen, which Pillow would enlarge.
pub(super) fn as_pillow(file: &[u8], mut pixels: Pixels) -> Result<Pixels, String> {
    let Some(picture) = Picture::first(file) else { return Ok(pixels) };
    let (right, bottom) = (picture.left + picture.width, picture.top + picture.height);
    if right > pixels.width || bottom > pixels.height {
        return Err("a GIF whose picture is larger than its screen, which is not read".to_string());
    }
    let colour = file.get(picture.palette + 3 * picture.transparent.unwrap_or(0)..).unwrap_or_default();
    let colour = [0, 1, 2].map(|channel| colour.get(channel).copied().unwrap_or(0));
    for (y, row) in pixels.data.chunks_exact_mut(3 * pixels.width).enumerate() {
        let rows = picture.top..bottom;
        for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
            if !(rows.contains(&y) && (picture.left..right).contains(&x)) {
                pixel.copy_from_slice(&colour);
            }
        }
    }
    Ok(pixels)
}

/// Where a picture lies on the screen, and where its palette begins in the file.
struct Picture {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
    palette: usize,
    /// Index of the transparent colour.
    transparent: Option<usize>,
}

impl Picture {
    fn first(file: &[u8]) -> Option<Self> {
        let palette_bytes = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
        let mut at = 13 + palette_bytes(*file.get(10)?);
        let mut transparent = None;
        loop {
            match file.get(at)? {
                // An extension: a kind and blocks, each with its length, the last one empty.
                0x21 => {
                    if file.get(at + 1) == Some(&0xf9) && file.get(at + 3)? & 1 == 1 {
                        transparent = Some(number::<1>(file, at + 6));
                    }
                    at += 2;
                    while *file.get(at)? != 0 {
                        at += 1 + number::<1>(file, at);
                    }
                    at += 1;
                }
                0x2c => {
                    let [left, top, width, height] = [1, 3, 5, 7].map(|field| number::<2>(file, at + field));
                    let palette = if palette_bytes(*file.get(at + 9)?) > 0 { at + 10 } else { 13 };
                    return Some(Self { left, top, width, height, palette, transparent });
                }
                _ => return None,
            }
        }
    }
}

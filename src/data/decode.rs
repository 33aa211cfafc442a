//! Image files to 8-bit pixels, bit for bit as Pillow's `Image.open(...).convert("RGB")` gives them.
//!
//! The format is told by the content: ImageNet has a PNG and CMYK files under the name `.JPEG`. Orientation tags are
//! ignored, as Pillow and torchvision ignore them (but TIFF's, which Pillow obeys).

mod jpeg;
mod others;
mod png;

use crate::disk::foreign::{caught, unreadable};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// An image of 8-bit levels, channels interleaved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    pub height: usize,
    pub width: usize,
    /// 1 or 3.
    pub channels: usize,
    /// `(H, W, C)`.
    pub data: Vec<u8>,
}

impl Pixels {
    /// An image without content of another size.
    pub(super) fn sized(&self, height: usize, width: usize) -> Pixels {
        Pixels { height, width, channels: self.channels, data: Vec::new() }
    }

    /// The same image with 1 or 3 channels: grey levels repeated, or Pillow's luma `(19595 R + 38470 G + 7471 B) / 65536`.
    pub(super) fn with_channels(self, channels: usize) -> Pixels {
        let data = match (self.channels, channels) {
            (1, 3) => self.data.iter().flat_map(|grey| [*grey; 3]).collect(),
            (3, 1) => {
                let weighted = |rgb: &[u8]| {
                    19595 * u32::from(rgb[0]) + 38470 * u32::from(rgb[1]) + 7471 * u32::from(rgb[2]) + 0x8000
                };
                self.data.chunks_exact(3).map(|rgb| (weighted(rgb) >> 16) as u8).collect()
            }
            _ => return self,
        };
        Pixels { data, channels, ..self }
    }
}

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Bmp,
    Gif,
    Jpeg,
    Png,
    Tiff,
    WebP,
}

impl Format {
    /// For messages.
    pub const NAMES: &str = "JPEG, PNG, WebP, BMP, TIFF and GIF";
    /// Bytes at the beginning of a file that tell its format.
    pub const TELLING: usize = 18;

    /// The format of a file that begins with `bytes`.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Some(Format::Jpeg),
            [0x89, b'P', b'N', b'G', ..] => Some(Format::Png),
            [b'G', b'I', b'F', b'8', ..] => Some(Format::Gif),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Format::WebP),
            [b'I', b'I', b'*' | b'+', 0, ..] | [b'M', b'M', 0, b'*' | b'+', ..] => Some(Format::Tiff),
            // Two letters could begin any text; the size of the second header is one of few.
            [b'B', b'M', _, _, _, _, _, _, _, _, _, _, _, _, 12 | 16 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0, ..] => {
                Some(Format::Bmp)
            }
            _ => None,
        }
    }
}

/// Pixels above which Pillow takes a file for a decompression bomb.
const MOST_PIXELS: u64 = 178_956_970;
/// Bytes of the largest image file: as many as such a number of pixels of three levels take without compression.
pub const LARGEST_IMAGE: u64 = 1 << 29;
/// Pixels from which on an image is large. While it is decoded it may take ten bytes a pixel.
const LARGE: u64 = 1 << 25;
/// Most pixels of a large image for a byte of its file. Deflate makes up to 8,256 of one, if they have two levels.
const PIXELS_PER_BYTE: u64 = 10_000;
/// Held while a large image is in memory: the threads of a machine with several each would need more than it has.
static LARGE_IMAGE: Mutex<()> = Mutex::new(());

/// Decodes an image file to `channels` (1 or 3) channels; what is wrong with it as text.
///
/// Greyscale, CMYK and YCCK (with Adobe's inverted levels, as Pillow takes all of them), palettes and 16 bits become RGB;
/// an alpha channel is dropped; of several pictures the first is taken. Errors: another format, a truncated or altered
/// file, more pixels than Pillow would take, an animated PNG.
pub fn decode(bytes: &[u8], channels: usize) -> Result<Pixels, String> {
    with_pixels(bytes, channels, |pixels| pixels)
}

/// What `then` makes of the pixels; of large images only one at a time is in memory until it is done with it.
pub fn with_pixels<T>(bytes: &[u8], channels: usize, then: impl FnOnce(Pixels) -> T) -> Result<T, String> {
    let mut claim = Claim { file: bytes.len() as u64, turn: None };
    let decoded = caught(|| match Format::of(bytes) {
        Some(Format::Jpeg) => jpeg::decode(bytes, &mut claim),
        Some(Format::Png) => png::decode(bytes, &mut claim),
        Some(format) => others::decode(bytes, format, &mut claim),
        None if bytes.is_empty() => Err("empty".to_string()),
        None => Err(format!("no image that is read here ({} are)", Format::NAMES)),
    });
    let pixels = decoded.unwrap_or_else(|text| Err(unreadable(&text)))?;
    Ok(then(pixels.with_channels(channels)))
}

/// What a file claims to be, to be checked before any memory is taken for it.
struct Claim {
    /// Bytes of the file.
    file: u64,
    /// For as long as a large image is in memory.
    turn: Option<MutexGuard<'static, ()>>,
}

impl Claim {
    /// Waits for other large images, if it is one. Errors: a size that would take more memory than an image does.
    fn size(&mut self, height: u64, width: u64) -> Result<(), String> {
        let pixels = match height.checked_mul(width) {
            Some(0) => return Err("an image without pixels".to_string()),
            Some(pixels) if pixels <= MOST_PIXELS => pixels,
            _ => return Err(format!("{height} x {width} pixels: more than {MOST_PIXELS}, as Pillow bounds them")),
        };
        if pixels >= LARGE {
            if pixels / PIXELS_PER_BYTE > self.file {
                return Err(format!(
                    "{height} x {width} pixels in {} bytes, which cannot hold an image of them",
                    self.file
                ));
            }
            self.turn = Some(LARGE_IMAGE.lock().unwrap_or_else(PoisonError::into_inner));
        }
        Ok(())
    }
}

/// `pixels` if it has as much content as its size says.
fn exact(pixels: Pixels) -> Result<Pixels, String> {
    match pixels.data.len() == pixels.height * pixels.width * pixels.channels && !pixels.data.is_empty() {
        true => Ok(pixels),
        false => Err(format!("{} levels for {} x {} pixels", pixels.data.len(), pixels.height, pixels.width)),
    }
}

#[cfg(test)]
mod tests;

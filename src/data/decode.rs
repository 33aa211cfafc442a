//! Image files to 8-bit pixels, bit for bit as Pillow's `Image.open(...).convert("RGB")` gives them.
//!
//! The format is told by the content: ImageNet has a PNG and CMYK files under the name `.JPEG`. Orientation tags are
//! ignored, as Pillow and torchvision ignore them (but TIFF's, which Pillow obeys).

mod jpeg;
mod others;
mod png;

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

/// Decodes an image file to `channels` (1 or 3) channels; what is wrong with it as text.
///
/// Greyscale, CMYK and YCCK (with Adobe's inverted levels, as Pillow takes all of them), palettes and 16 bits become RGB;
/// an alpha channel is dropped; of several pictures the first is taken. Errors: another format, a truncated or altered
/// file, more pixels than Pillow would take, an animated PNG.
pub fn decode(bytes: &[u8], channels: usize) -> Result<Pixels, String> {
    let pixels = match Format::of(bytes) {
        Some(Format::Jpeg) => jpeg::decode(bytes)?,
        Some(Format::Png) => png::decode(bytes)?,
        Some(format) => others::decode(bytes, format)?,
        None if bytes.is_empty() => return Err("empty".to_string()),
        None => return Err(format!("no image that is read here ({} are)", Format::NAMES)),
    };
    Ok(pixels.with_channels(channels))
}

/// Refuses a size that would take more memory than an image does; to be asked before any is taken.
fn check_size(height: u64, width: u64) -> Result<(), String> {
    match height.checked_mul(width) {
        Some(0) => Err("an image without pixels".to_string()),
        Some(pixels) if pixels <= MOST_PIXELS => Ok(()),
        _ => Err(format!("{height} x {width} pixels: more than {MOST_PIXELS}, as Pillow bounds them")),
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

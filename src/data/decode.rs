//! JPEG and PNG files to 8-bit pixels, as Pillow's `Image.open(...).convert("RGB")` gives them.
//!
//! Orientation tags are ignored, as Pillow and torchvision ignore them. JPEG decoders differ from libjpeg by a level or
//! two in some pixels; the size of that is tested in `preprocess`.

use png::Transformations;
use std::io::Cursor;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

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

/// Decodes a JPEG or PNG file to `channels` (1 or 3) channels; what is wrong with it as text.
///
/// Greyscale, CMYK and YCCK (with Adobe's inverted levels, as Pillow takes all of them), palettes and 16 bits become RGB;
/// an alpha channel is dropped. Errors: another format, a truncated or altered file, more than one picture.
pub fn decode(bytes: &[u8], channels: usize) -> Result<Pixels, String> {
    let pixels = match bytes {
        [0xff, 0xd8, 0xff, ..] => jpeg(bytes)?,
        [0x89, b'P', b'N', b'G', ..] => png(bytes)?,
        [b'G', b'I', b'F', b'8', ..] => return Err("a GIF (animated or not); JPEG and PNG are read".to_string()),
        [] => return Err("empty".to_string()),
        _ => return Err("neither JPEG nor PNG".to_string()),
    };
    Ok(pixels.with_channels(channels))
}

fn jpeg(bytes: &[u8]) -> Result<Pixels, String> {
    let options = DecoderOptions::default().set_strict_mode(true).jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    let data = decoder.decode().map_err(|error| format!("a truncated or altered JPEG: {error:?}"))?;
    let (width, height) = decoder.dimensions().ok_or("a JPEG without a size")?;
    // The decoder fills up what is missing in the last rows; the end marker is the only sign of it.
    // Coded levels contain no markers, but a thumbnail before them is a JPEG of its own.
    let last = |marker: u8| bytes.windows(2).rposition(|pair| pair == [0xff, marker]);
    if last(0xd9) < last(0xda) {
        return Err("a truncated JPEG: it has no end marker".to_string());
    }
    exact(Pixels { height, width, channels: 3, data })
}

fn png(bytes: &[u8]) -> Result<Pixels, String> {
    let broken = |error: png::DecodingError| format!("a truncated or altered PNG: {error}");
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(broken)?;
    if reader.info().animation_control.is_some_and(|animation| animation.num_frames > 1) {
        return Err("an animated PNG".to_string());
    }
    let size = reader.output_buffer_size().ok_or("a PNG larger than memory")?;
    let mut data = vec![0; size];
    let frame = reader.next_frame(&mut data).map_err(broken)?;
    reader.finish().map_err(broken)?;
    data.truncate(frame.buffer_size());
    let (height, width, samples) = (frame.height as usize, frame.width as usize, frame.color_type.samples());
    // With an alpha channel the last sample of each pixel is dropped.
    let channels = if samples < 3 { 1 } else { 3 };
    let data = match samples == channels {
        true => data,
        false => data.chunks_exact(samples).flat_map(|pixel| pixel[..channels].to_vec()).collect(),
    };
    exact(Pixels { height, width, channels, data })
}

/// `pixels` if it has a pixel and as much content as its size says.
fn exact(pixels: Pixels) -> Result<Pixels, String> {
    match pixels.data.len() == pixels.height * pixels.width * pixels.channels && !pixels.data.is_empty() {
        true => Ok(pixels),
        false => Err(format!("{} levels for {} x {} pixels", pixels.data.len(), pixels.height, pixels.width)),
    }
}

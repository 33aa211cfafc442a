//! BMP, GIF, TIFF and WebP files, through the `image` crate; what that crate makes otherwise than Pillow is put right
//! here, or refused.

use super::{Claim, Format, Pixels, exact};
use image::codecs::{bmp::BmpDecoder, gif::GifDecoder, tiff::TiffDecoder, webp::WebPDecoder};
use image::{ColorType, DynamicImage, ExtendedColorType, ImageDecoder, ImageResult};
use std::io::Cursor;

mod bmp;
mod gif;
mod tiff;

pub(super) fn decode(bytes: &[u8], format: Format, claim: &mut Claim) -> Result<Pixels, String> {
    let file = Cursor::new(bytes);
    match format {
        Format::Bmp => bmp::as_pillow(bytes, levels("BMP", BmpDecoder::new(file), claim)?),
        Format::Gif => gif::as_pillow(bytes, levels("GIF", GifDecoder::new(file), claim)?),
        Format::Tiff => {
            tiff::check(bytes)?;
            levels("TIFF", TiffDecoder::new(file), claim)
        }
        Format::WebP => levels("WebP", WebPDecoder::new(file), claim),
        Format::Jpeg | Format::Png => Err("a file for another decoder".to_string()),
    }
}

/// Grey or RGB levels, turned as a TIFF file says, without an alpha channel.
fn levels<D: ImageDecoder>(name: &str, decoder: ImageResult<D>, claim: &mut Claim) -> Result<Pixels, String> {
    let broken =
        |error: image::ImageError| format!("a truncated or altered {name}, or one of an unusual kind: {error}");
    let mut decoder = decoder.map_err(broken)?;
    let (width, height) = decoder.dimensions();
    claim.size(height.into(), width.into())?;
    let colour = decoder.color_type();
    if matches!(decoder.original_color_type(), ExtendedColorType::Cmyk8 | ExtendedColorType::Cmyk16) {
        return Err(format!("a {name} of inks (CMYK), which is not read"));
    }
    if !matches!(colour, ColorType::L8 | ColorType::La8 | ColorType::L16 | ColorType::Rgb8 | ColorType::Rgba8) {
        return Err(format!("a {name} of {} bits for a pixel, which is not read", colour.bits_per_pixel()));
    }
    // Pillow obeys the orientation of TIFF alone.
    let orientation = match name {
        "TIFF" => Some(decoder.orientation().map_err(broken)?),
        _ => None,
    };
    let mut image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    orientation.into_iter().for_each(|orientation| image.apply_orientation(orientation));
    let (height, width) = (image.height() as usize, image.width() as usize);
    let (channels, data) = match image {
        DynamicImage::ImageLuma8(image) => (1, image.into_raw()),
        // Pillow clips grey levels of 16 bits.
        DynamicImage::ImageLuma16(image) => (1, image.into_raw().iter().map(|level| (*level).min(255) as u8).collect()),
        DynamicImage::ImageLumaA8(image) => (1, image.into_raw().chunks_exact(2).map(|pixel| pixel[0]).collect()),
        DynamicImage::ImageRgb8(image) => (3, image.into_raw()),
        DynamicImage::ImageRgba8(image) => {
            (3, image.into_raw().chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect())
        }
        _ => return Err(format!("a {name} of a kind that is not read")),
    };
    exact(Pixels { height, width, channels, data })
}

/// The number of `N` bytes at `at`, the lowest first; 0 where the file has ended.
fn number<const N: usize>(bytes: &[u8], at: usize) -> usize {
    let bytes = bytes.get(at..at.saturating_add(N)).unwrap_or_default();
    bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

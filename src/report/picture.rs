//! Stored pictures as PNG.

use crate::error::{Error, Result};
use crate::store::PixelPairs;

/// Larger images are made smaller on a sheet, by a whole factor.
const LARGEST: usize = 64;
/// Level of the lines between images.
const GAP: u8 = 255;

/// PNG of `pixels`, row by row, the channels (1 or 3) of a pixel together.
pub fn png(width: usize, height: usize, channels: usize, pixels: &[u8]) -> Result<Vec<u8>> {
    let refused = |problem: String| Error::Report(format!("cannot make a PNG of {width} x {height} pixels: {problem}"));
    let side = |side: usize| u32::try_from(side).map_err(|error| refused(error.to_string()));
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side(width)?, side(height)?);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_color(if channels == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb });
    encoder.set_compression(png::Compression::High);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(pixels));
    written.map_err(|error| refused(error.to_string()))?;
    Ok(bytes)
}

/// PNG with the images in a row, their transforms below, and the differences (grey where nothing changed) below these.
pub fn sheet(pixels: &PixelPairs) -> Result<Vec<u8>> {
    let factor = pixels.height.max(pixels.width).div_ceil(LARGEST).max(1);
    let (height, width) = (pixels.height / factor, pixels.width / factor);
    let difference = pixels.difference();
    let rows = [&pixels.x, &pixels.t_x, &difference];
    let (across, down) = (pixels.x.len() * (width + 1), rows.len() * (height + 1));
    let mut sheet = vec![GAP; across * down * pixels.channels];
    for (row, images) in rows.into_iter().enumerate() {
        for (column, image) in images.iter().enumerate() {
            for (index, level) in smaller(image, pixels, factor).into_iter().enumerate() {
                let (pixel, channel) = (index / pixels.channels, index % pixels.channels);
                let (y, x) = (row * (height + 1) + pixel / width, column * (width + 1) + pixel % width);
                sheet[(y * across + x) * pixels.channels + channel] = level;
            }
        }
    }
    png(across, down, pixels.channels, &sheet)
}

/// Means over squares of `factor` pixels; what is left over at the right and bottom is cut off.
fn smaller(image: &[u8], pixels: &PixelPairs, factor: usize) -> Vec<u8> {
    let (height, width, channels) = (pixels.height / factor, pixels.width / factor, pixels.channels);
    let mean = |index: usize| {
        let (pixel, channel) = (index / channels, index % channels);
        let (top, left) = (pixel / width * factor, pixel % width * factor);
        let at = |y: usize, x: usize| usize::from(image[((top + y) * pixels.width + left + x) * channels + channel]);
        let sum: usize = (0..factor).flat_map(|y| (0..factor).map(move |x| (y, x))).map(|(y, x)| at(y, x)).sum();
        (sum / (factor * factor)) as u8
    };
    (0..height * width * channels).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> (u32, u32, Vec<u8>) {
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut buffer = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut buffer).unwrap();
        buffer.truncate(info.buffer_size());
        (info.width, info.height, buffer)
    }

    #[test]
    fn a_sheet_has_images_transforms_and_differences_below_each_other() {
        let pixels = PixelPairs { height: 1, width: 2, channels: 1, x: vec![vec![0, 100]], t_x: vec![vec![200, 100]] };
        let (width, height, levels) = decoded(&sheet(&pixels).unwrap());
        assert_eq!((width, height), (3, 6));
        assert_eq!(levels, [0, 100, 255, 255, 255, 255, 200, 100, 255, 255, 255, 255, 228, 128, 255, 255, 255, 255]);
    }

    #[test]
    fn large_images_become_means_of_squares() {
        let image: Vec<u8> =
            (0..128 * 128 * 3).map(|index| if index % 3 == 0 { 10 } else { (index / 3 % 2) as u8 * 8 }).collect();
        let pixels = PixelPairs { height: 128, width: 128, channels: 3, x: vec![image.clone()], t_x: vec![image] };
        let (width, height, levels) = decoded(&sheet(&pixels).unwrap());
        assert_eq!((width, height), (65, 195));
        assert_eq!(levels[..6], [10, 4, 4, 10, 4, 4]);
    }
}

//! PNG files.

use super::{Claim, Pixels, exact};
use png::{BitDepth, ColorType, Transformations};
use std::io::Cursor;

pub(super) fn decode(bytes: &[u8], claim: &mut Claim) -> Result<Pixels, String> {
    let broken = |error: png::DecodingError| format!("a truncated or altered PNG: {error}");
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    let header = decoder.read_header_info().map_err(broken)?;
    claim.size(header.height.into(), header.width.into())?;
    // Pillow clips grey levels of 16 bits, and takes the upper bits of all others.
    let is_clipped = (header.bit_depth, header.color_type) == (BitDepth::Sixteen, ColorType::Grayscale);
    decoder.set_transformations(match is_clipped {
        true => Transformations::IDENTITY,
        false => Transformations::EXPAND | Transformations::STRIP_16,
    });
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
    if is_clipped {
        let data = data.chunks_exact(2).map(|level| u16::from_be_bytes([level[0], level[1]]).min(255) as u8).collect();
        return exact(Pixels { height, width, channels: 1, data });
    }
    // With an alpha channel the last sample of each pixel is dropped.
    let channels = if samples < 3 { 1 } else { 3 };
    let data = match samples == channels {
        true => data,
        false => data.chunks_exact(samples).flat_map(|pixel| pixel[..channels].to_vec()).collect(),
    };
    exact(Pixels { height, width, channels, data })
}

//! JPEG files: Pillow's pixels are those of libjpeg-turbo, whose rounding in the inverse transform, in chroma between
//! samples and in colours is one of many that the standard allows.
//!
//! That library parses and decodes the codes (`library`). What follows is here, with its arithmetic: its C code is about
//! half as fast as its assembler, which would need another program to build it. Pillow hears none of the library's
//! warnings; its own condition is that the file goes on until all rows are there.

mod colour;
mod idct;
mod library;
mod upsample;

use super::{Claim, Pixels, exact};
use library::{ColourSpace, Component, Library};
use std::panic::{AssertUnwindSafe, catch_unwind};
use upsample::Plane;

pub(super) fn decode(bytes: &[u8], claim: &mut Claim) -> Result<Pixels, String> {
    match catch_unwind(AssertUnwindSafe(|| decoded(bytes, claim))) {
        Ok(pixels) => pixels,
        Err(panic) => {
            let problem =
                panic.downcast::<String>().map_or_else(|_| "a fault in its decoder".to_string(), |text| *text);
            Err(format!("a truncated or altered JPEG, or one of an unusual kind: {problem}"))
        }
    }
}

fn decoded(bytes: &[u8], claim: &mut Claim) -> Result<Pixels, String> {
    let mut library = Library::open(bytes);
    let (height, width) = library.size();
    claim.size(height as u64, width as u64)?;
    let components = library.components();
    if !matches!(components.len(), 1 | 3 | 4) {
        return Err(format!("a JPEG of {} components: 1, 3 and 4 are read", components.len()));
    }
    let truncated = Err("a truncated JPEG: it ends before the last row".to_string());
    library.read_coefficients();
    if library.is_truncated() {
        return truncated;
    }
    if library.is_unfinished() {
        return exact(smoothed(bytes, components.len()));
    }
    let colours = library.colours();
    let planes = components
        .iter()
        .enumerate()
        .map(|(index, component)| plane(&library, index, (component, &components), (height, width)));
    let planes = planes.collect::<Result<Vec<Plane>, String>>()?;
    exact(interleaved(&planes, colours, (height, width)))
}

/// The samples of component `index`.
///
/// Errors: sampling factors that do not divide each other, which libjpeg refuses too.
fn plane(
    library: &Library,
    index: usize,
    (component, all): (&Component, &[Component]),
    (height, width): (usize, usize),
) -> Result<Plane, String> {
    let most = |factor: fn(&Component) -> usize| all.iter().map(factor).max().unwrap_or(1);
    let most = (most(|component| component.sampling.0), most(|component| component.sampling.1));
    let (across, down) = component.sampling;
    if most.0 % across != 0 || most.1 % down != 0 {
        return Err(format!("a JPEG with {across} x {down} samples for {} x {} of another component", most.0, most.1));
    }
    let (columns, rows) = component.blocks;
    let steps = library.steps(index);
    let mut levels = vec![0; 64 * columns * rows];
    for (row, levels) in levels.chunks_exact_mut(64 * columns).enumerate() {
        let blocks = library.blocks(index, row);
        vectorised(
            #[inline(always)]
            || idct::samples(blocks, &steps, levels),
        );
    }
    let (height, width) = ((height * down).div_ceil(most.1), (width * across).div_ceil(most.0));
    Ok(Plane { levels, stride: 8 * columns, height, width, parts: (most.0 / across, most.1 / down) })
}

/// The image whose components are `planes`, grey or RGB.
fn interleaved(planes: &[Plane], colours: ColourSpace, (height, width): (usize, usize)) -> Pixels {
    let channels = if planes.len() == 1 { 1 } else { 3 };
    let mut data = vec![0; height * width * channels];
    let (mut rows, mut sums) = (vec![Vec::new(); planes.len()], Vec::new());
    for (y, pixels) in data.chunks_exact_mut(width * channels).enumerate() {
        vectorised(
            #[inline(always)]
            || {
                let mut levels: [&[u8]; 4] = [&[]; 4];
                for (levels, (plane, row)) in levels.iter_mut().zip(planes.iter().zip(&mut rows)) {
                    *levels = &plane.upsampled(y, row, &mut sums)[..width];
                }
                match (&levels[..planes.len()], colours) {
                    ([grey], _) => pixels.copy_from_slice(grey),
                    ([y, cb, cr], ColourSpace::JCS_YCbCr) => colour::rgb_row(y, cb, cr, pixels),
                    ([r, g, b], _) => {
                        for (((pixel, r), g), b) in pixels.chunks_exact_mut(3).zip(*r).zip(*g).zip(*b) {
                            pixel.copy_from_slice(&[*r, *g, *b]);
                        }
                    }
                    ([c, m, y, k], _) => {
                        for ((((pixel, c), m), y), k) in pixels.chunks_exact_mut(3).zip(*c).zip(*m).zip(*y).zip(*k) {
                            let inks = match colours {
                                ColourSpace::JCS_YCCK => colour::rgb(*c, *m, *y).map(|level| 255 - level),
                                _ => [*c, *m, *y],
                            };
                            pixel.copy_from_slice(&colour::rgb_of_inks(inks, *k));
                        }
                    }
                    _ => {}
                }
            },
        );
    }
    Pixels { height, width, channels, data }
}

/// An image whose progression stops early, through all of the library: it smooths over its blocks.
fn smoothed(bytes: &[u8], components: usize) -> Pixels {
    let mut library = Library::open(bytes);
    let (height, width) = library.size();
    let (colours, channels) = match components {
        1 => (ColourSpace::JCS_GRAYSCALE, 1),
        3 => (ColourSpace::JCS_RGB, 3),
        _ => (ColourSpace::JCS_CMYK, 4),
    };
    let data = library.rows(colours, channels);
    match channels {
        4 => {
            let inks = data.chunks_exact(4);
            let data = inks.flat_map(|inks| colour::rgb_of_inks([inks[0], inks[1], inks[2]], inks[3])).collect();
            Pixels { height, width, channels: 3, data }
        }
        _ => Pixels { height, width, channels, data },
    }
}

/// Runs `f` compiled for the widest vector instructions of this machine; loops to vectorise must be inlined into it.
#[inline(always)]
fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

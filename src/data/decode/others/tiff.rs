//! Kinds of TIFF files that would be decoded to other levels than Pillow's.

/// Tags of the way of compression and of what an alpha channel means.
const COMPRESSION: u16 = 259;
const EXTRA_SAMPLES: u16 = 338;

/// Errors: JPEG inside of TIFF, and levels multiplied by alpha.
pub(super) fn check(file: &[u8]) -> Result<(), String> {
    match (tag(file, COMPRESSION), tag(file, EXTRA_SAMPLES)) {
        (Some(6 | 7), _) => Err("a TIFF that holds JPEG, which is not read".to_string()),
        (_, Some(1)) => Err("a TIFF whose levels are multiplied by alpha, which is not read".to_string()),
        _ => Ok(()),
    }
}

/// The first value of a tag of the first picture, which must be a 16-bit number.
fn tag(file: &[u8], tag: u16) -> Option<u64> {
    let is_low_first = file.first()? == &b'I';
    let number = |at: usize, bytes: usize| -> Option<u64> {
        let bytes = file.get(at..at.checked_add(bytes)?)?;
        let append = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(match is_low_first {
            true => bytes.iter().rev().fold(0, append),
            false => bytes.iter().fold(0, append),
        })
    };
    // Offsets take 4 or 8 bytes, and so do numbers of values; an entry holds its tag, its type, these, and the first value.
    let (width, first, counts) = match number(2, 2)? {
        43 => (8, number(8, 8)?, 8),
        _ => (4, number(4, 4)?, 2),
    };
    let first = usize::try_from(first).ok()?;
    let entries = first.checked_add(counts)?;
    let size = 4 + 2 * width;
    (0..number(first, counts)?)
        .map_while(|index| entries.checked_add(usize::try_from(index).ok()?.checked_mul(size)?))
        .take_while(|at| *at < file.len())
        .find(|at| number(*at, 2) == Some(u64::from(tag)))
        .and_then(|at| number(at + 4 + width, 2))
}

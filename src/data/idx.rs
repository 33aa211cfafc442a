//! The IDX format of MNIST and Fashion-MNIST: unsigned bytes with their dimensions.

use crate::error::{Error, Result};

/// Dimensions and content of an IDX file of unsigned bytes.
#[derive(Debug)]
pub struct Idx<'a> {
    pub dims: Vec<usize>,
    pub content: &'a [u8],
}

/// Parses `bytes`, which must have `rank` dimensions and end where they say; `path` is for messages.
pub fn parse<'a>(path: &str, bytes: &'a [u8], rank: usize) -> Result<Idx<'a>> {
    let header = 4 + 4 * rank;
    if bytes.len() < header || bytes[..4] != [0, 0, 8, rank as u8] {
        return Err(Error::content(path, format!("not an IDX file of bytes with {rank} dimensions")));
    }
    let dims: Vec<usize> = bytes[4..header]
        .chunks_exact(4)
        .map(|dim| u32::from_be_bytes([dim[0], dim[1], dim[2], dim[3]]) as usize)
        .collect();
    let expected = dims.iter().try_fold(1usize, |product, dim| product.checked_mul(*dim));
    let content = &bytes[header..];
    match expected {
        Some(expected) if expected == content.len() => Ok(Idx { dims, content }),
        _ => Err(Error::content(
            path,
            format!("{} bytes after the header, but dimensions {dims:?}: truncated or altered", content.len()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_should_and_refuses_the_rest() {
        let good = [0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9];
        let idx = parse("x", &good, 1).unwrap();
        assert_eq!((idx.dims, idx.content), (vec![3], &[7u8, 8, 9][..]));
        for bad in [&good[..10], &[&good[..], &[1]].concat(), &good[..5], &[], &[0, 0, 9, 1, 0, 0, 0, 0]] {
            let error = parse("some/path", bad, 1).unwrap_err().to_string();
            assert!(error.starts_with("some/path"), "{error}");
        }
        let huge = [0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255];
        assert!(parse("x", &huge, 3).is_err());
    }
}

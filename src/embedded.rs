//! The files under `assets/` that are compiled into the binary, with their checksums.

use crate::disk::sha256;
use crate::error::{Error, Result};

/// One embedded file.
pub struct Embedded {
    /// Path under `assets/`.
    pub path: &'static str,
    bytes: &'static [u8],
}

macro_rules! embed {
    ($($path:literal),* $(,)?) => {
        &[$(Embedded { path: $path, bytes: include_bytes!(concat!("../assets/", $path)) }),*]
    };
}

/// Every embedded file; `assets/SHA256SUMS` lists them, beside the weights that a grid names as files.
pub const FILES: &[Embedded] = embed![
    "fashion-mnist/pool-images-idx3-ubyte.gz",
    "fashion-mnist/pool-labels-idx1-ubyte.gz",
    "fashion-mnist/test-images-idx3-ubyte.gz",
    "fashion-mnist/test-labels-idx1-ubyte.gz",
    "mobilenetv2-tiny-fashion-mnist/card.toml",
    "mobilenetv2-tiny-fashion-mnist/model.safetensors",
    "resnet20-fashion-mnist/card.toml",
    "resnet20-fashion-mnist/model.safetensors",
];

const SUMS: &str = include_str!("../assets/SHA256SUMS");

/// Whether there is an embedded file `path`.
pub fn contains(path: &str) -> bool {
    FILES.iter().any(|file| file.path == path)
}

/// The content of embedded file `path` and its SHA-256, checked against `assets/SHA256SUMS`.
pub fn read(path: &str) -> Result<(&'static [u8], String)> {
    let Some(file) = FILES.iter().find(|file| file.path == path) else {
        return Err(Error::content(path, "is not among the embedded files"));
    };
    Ok((file.bytes, verify(path, file.bytes)?))
}

/// The SHA-256 of `bytes`; an error unless it is the one listed for `path`.
fn verify(path: &str, bytes: &[u8]) -> Result<String> {
    let sum = sha256(&[bytes]);
    let expected = SUMS.lines().find_map(|line| line.split_once("  ").filter(|(_, listed)| *listed == path));
    match expected {
        Some((expected, _)) if expected == sum => Ok(sum),
        _ => Err(Error::content(
            path,
            format!("the embedded file has SHA-256 {sum}, not that of SHA256SUMS; rebuild the binary"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_file_is_listed_and_every_listed_file_unaltered() {
        for file in FILES {
            read(file.path).unwrap();
        }
        for line in SUMS.lines() {
            let (_, path) = line.split_once("  ").unwrap();
            let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/").to_string() + path).unwrap();
            verify(path, &bytes).unwrap();
        }
    }

    #[test]
    fn an_altered_byte_or_an_unlisted_file_is_refused() {
        for file in FILES {
            let mut altered = file.bytes.to_vec();
            altered[file.bytes.len() / 2] ^= 1;
            let error = verify(file.path, &altered).unwrap_err().to_string();
            assert!(error.contains(file.path) && error.contains("SHA-256"), "{error}");
        }
        assert!(verify("unlisted", FILES[0].bytes).is_err());
        assert!(!contains("unlisted") && read("unlisted").is_err());
    }
}

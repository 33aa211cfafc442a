//! Fashion-MNIST (arXiv 1708.07747) as embedded: 10,000 test images and a pool of 4,096 training images.

use super::idx::{self, LARGEST, unzip};
use super::item::InMemory;
use crate::embedded;
use crate::error::Result;

/// Mean and standard deviation of grey levels / 255 over the training images.
pub const MEAN: [f64; 1] = [0.2860];
pub const STD: [f64; 1] = [0.3530];
/// Embedded training images, in random order.
pub const POOL: usize = 4096;

/// Pool and test images.
pub(super) fn embedded() -> Result<(InMemory, InMemory)> {
    Ok((split("pool")?, split("test")?))
}

fn split(name: &str) -> Result<InMemory> {
    let [images, labels] = ["images-idx3", "labels-idx1"].map(|kind| format!("fashion-mnist/{name}-{kind}-ubyte.gz"));
    idx::decode(
        (&images, &unzip(&images, embedded::read(&images)?.0, LARGEST)?),
        (&labels, &unzip(&labels, embedded::read(&labels)?.0, LARGEST)?),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_truncated_or_altered_archive_is_refused() {
        let path = "fashion-mnist/pool-labels-idx1-ubyte.gz";
        let archive = embedded::read(path).unwrap().0;
        assert_eq!(unzip(path, archive, LARGEST).unwrap().len(), 8 + POOL);
        // Its last eight bytes are a checksum and the length of its content.
        let mut altered = archive.to_vec();
        altered[archive.len() - 6] ^= 1;
        for bad in [&archive[..0], &archive[..100], &archive[..archive.len() - 1], &altered] {
            assert!(unzip(path, bad, LARGEST).unwrap_err().to_string().starts_with(path));
        }
    }
}

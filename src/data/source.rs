//! Where the images of a split lie: in memory, in files, or in the rows of Parquet shards.

use super::folder::Files;
use super::item::{InMemory, Item};
use super::shards::Shards;
use crate::error::Result;

/// Images with their labels, read one by one or many at once.
#[derive(Debug)]
pub(super) enum ImageSource {
    Memory(InMemory),
    Files(Files),
    Shards(Shards),
}

impl ImageSource {
    /// Number of images.
    pub fn len(&self) -> usize {
        match self {
            ImageSource::Memory(stored) => stored.labels.len(),
            ImageSource::Files(files) => files.len(),
            ImageSource::Shards(shards) => shards.len(),
        }
    }

    /// The images at `indices`, in that order. Errors: files that cannot be read; labels out of range.
    pub fn read(&self, indices: &[u32]) -> Result<Vec<Item>> {
        match self {
            ImageSource::Memory(stored) => Ok(indices.iter().map(|index| stored.item(*index as usize)).collect()),
            ImageSource::Files(files) => files.read(indices),
            ImageSource::Shards(shards) => shards.read(indices),
        }
    }

    /// SHA-256 of all images where they are in memory, else of names and sizes: of a pool, whose drawn images are hashed
    /// themselves. A test split has its [`Self::content_sha256`].
    pub fn sha256(&self) -> String {
        match self {
            ImageSource::Memory(stored) => stored.sha256(),
            ImageSource::Files(files) => files.sha256.clone(),
            ImageSource::Shards(shards) => shards.sha256.clone(),
        }
    }

    /// What says which class an image has, beside the names of the files.
    pub fn labelling(&self) -> &str {
        match self {
            ImageSource::Memory(_) | ImageSource::Files(_) => "",
            ImageSource::Shards(shards) => shards.label_column(),
        }
    }

    /// Bytes of images in memory.
    pub fn memory_bytes(&self) -> u64 {
        match self {
            ImageSource::Memory(stored) => stored.levels.len() as u64,
            ImageSource::Files(_) | ImageSource::Shards(_) => 0,
        }
    }

    /// Whether that hash covers the content of the images.
    pub fn is_hashed_whole(&self) -> bool {
        matches!(self, ImageSource::Memory(_))
    }

    /// The largest label, where labels are known without reading every image.
    pub fn largest_label(&self) -> Option<u32> {
        match self {
            ImageSource::Memory(stored) => stored.labels.iter().copied().max(),
            ImageSource::Files(files) => files.largest_label(),
            ImageSource::Shards(shards) => shards.largest_label(),
        }
    }
}

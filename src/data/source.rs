//! Where the images of a split lie: in memory, in files, or in the rows of Parquet shards.

use super::folder::Files;
use super::item::{Item, Stored};
use super::shards::Shards;
use crate::error::Result;

/// Images with their labels, read one by one or many at once.
#[derive(Debug)]
pub(super) enum Source {
    Memory(Stored),
    Files(Files),
    Shards(Shards),
}

impl Source {
    /// Number of images.
    pub fn len(&self) -> usize {
        match self {
            Source::Memory(stored) => stored.labels.len(),
            Source::Files(files) => files.len(),
            Source::Shards(shards) => shards.len(),
        }
    }

    /// The images at `indices`, in that order. Errors: files that cannot be read; labels out of range.
    pub fn read(&self, indices: &[u32]) -> Result<Vec<Item>> {
        match self {
            Source::Memory(stored) => Ok(indices.iter().map(|index| stored.item(*index as usize)).collect()),
            Source::Files(files) => files.read(indices),
            Source::Shards(shards) => shards.read(indices),
        }
    }

    /// SHA-256 of all images where they are in memory, else of names and sizes: of a pool, whose drawn images are hashed
    /// themselves. A test split has its [`Self::content_sha256`].
    pub fn sha256(&self) -> String {
        match self {
            Source::Memory(stored) => stored.sha256(),
            Source::Files(files) => files.sha256.clone(),
            Source::Shards(shards) => shards.sha256.clone(),
        }
    }

    /// What says which class an image has, beside the names of the files.
    pub fn labelling(&self) -> &str {
        match self {
            Source::Memory(_) | Source::Files(_) => "",
            Source::Shards(shards) => shards.label_column(),
        }
    }

    /// Bytes of images in memory.
    pub fn memory_bytes(&self) -> u64 {
        match self {
            Source::Memory(stored) => stored.levels.len() as u64,
            Source::Files(_) | Source::Shards(_) => 0,
        }
    }

    /// Whether that hash covers the content of the images.
    pub fn is_hashed_whole(&self) -> bool {
        matches!(self, Source::Memory(_))
    }

    /// The largest label, where labels are known without reading every image.
    pub fn largest_label(&self) -> Option<u32> {
        match self {
            Source::Memory(stored) => stored.labels.iter().copied().max(),
            Source::Files(files) => files.largest_label(),
            Source::Shards(shards) => shards.largest_label(),
        }
    }
}

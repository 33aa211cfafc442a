//! Where the images of a split lie: in memory, in files, or in the rows of Parquet shards.

use super::decode::{Pixels, decode};
use super::folder::Files;
use super::shards::Shards;
use crate::assets::embedded::sha256;
use crate::error::Result;

/// Images with their labels, read one by one or many at once.
#[derive(Debug)]
pub(super) enum Source {
    Memory(Stored),
    Files(Files),
    Shards(Shards),
}

/// One image as it is stored.
#[derive(Debug)]
pub(super) struct Item {
    /// Its path, for messages.
    pub name: String,
    pub label: u32,
    pub content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Levels(Pixels),
    /// An image file ([`decode`]).
    Encoded(Vec<u8>),
}

impl Item {
    /// SHA-256 of its label and what is stored, in lower-case hexadecimal.
    pub fn sha256(&self) -> String {
        let content = match &self.content {
            Content::Levels(pixels) => &pixels.data,
            Content::Encoded(bytes) => bytes,
        };
        sha256(&[&self.label.to_le_bytes(), content])
    }

    /// Its pixels with `channels` channels; what is wrong with it, with its path.
    pub fn decoded(self, channels: usize) -> Result<(Pixels, u32), String> {
        let pixels = match self.content {
            Content::Levels(pixels) => Ok(pixels.with_channels(channels)),
            Content::Encoded(bytes) => decode(&bytes, channels),
        };
        Ok((pixels.map_err(|problem| format!("{}: {problem}", self.name))?, self.label))
    }
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

/// Images of one size in memory, `(N, H, W, C)`, 8 bits per level.
#[derive(Debug)]
pub(super) struct Stored {
    /// Path of what was read, for messages.
    pub path: String,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub levels: Vec<u8>,
    pub labels: Vec<u32>,
}

impl Stored {
    /// SHA-256 of levels and labels.
    pub fn sha256(&self) -> String {
        let labels: Vec<u8> = self.labels.iter().map(|label| *label as u8).collect();
        sha256(&[&self.levels, &labels])
    }

    fn item(&self, index: usize) -> Item {
        let size = self.height * self.width * self.channels;
        let data = self.levels[index * size..][..size].to_vec();
        let pixels = Pixels { height: self.height, width: self.width, channels: self.channels, data };
        Item {
            name: format!("{}, image {index}", self.path),
            label: self.labels[index],
            content: Content::Levels(pixels),
        }
    }
}

//! Images with their labels, as they are stored: one of them, or all of a split in memory.

use super::decode::{Pixels, with_pixels};
use crate::disk::sha256;

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

    /// What `then` makes of its pixels with `channels` channels, and its label; what is wrong with it, with its path.
    pub fn decoded<T>(self, channels: usize, then: impl FnOnce(Pixels) -> T) -> Result<(T, u32), String> {
        let made = match self.content {
            Content::Levels(pixels) => Ok(then(pixels.with_channels(channels))),
            Content::Encoded(bytes) => with_pixels(&bytes, channels, then),
        };
        Ok((made.map_err(|problem| format!("{}: {problem}", self.name))?, self.label))
    }
}

/// Images of one size in memory, `(N, H, W, C)`, 8 bits per level.
#[derive(Debug)]
pub(super) struct InMemory {
    /// Path of what was read, for messages.
    pub path: String,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub levels: Vec<u8>,
    pub labels: Vec<u32>,
}

impl InMemory {
    /// SHA-256 of levels and labels.
    pub fn sha256(&self) -> String {
        let labels: Vec<u8> = self.labels.iter().map(|label| *label as u8).collect();
        sha256(&[&self.levels, &labels])
    }

    /// Image `index`.
    pub fn item(&self, index: usize) -> Item {
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

//! The images of a split as a network takes them: chosen ones at once, or all of them in batches made ahead.

use super::item::Item;
use super::preprocess::Preprocess;
use super::source::ImageSource;
use crate::disk::sha256 as hashed;
use crate::error::{Error, Result};
use candle_core::{Device, Tensor};
use ptq::ops::upload::Upload;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Raised when decoding or preprocessing of files changes, so that images that went through it count as other images.
const FILES_REVISION: u32 = 2;
/// Likewise for the preprocessing of images that are levels already.
const LEVELS_REVISION: u32 = 1;
/// Batches that wait, decoded, while a network works on another.
const AHEAD: usize = 2;

/// What becomes of an image that cannot be decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Corrupt {
    /// It ends the cell.
    #[default]
    Error,
    /// It is left out, named on the terminal and counted in the record.
    Skip,
}

impl Corrupt {
    /// Whether an image that cannot be decoded is an error.
    pub fn is_error(&self) -> bool {
        *self == Corrupt::Error
    }
}

/// Images in memory, with their labels.
#[derive(Clone, Debug)]
pub struct Split {
    /// `(N, C, H, W)`, f32, normalised as the network expects.
    pub images: Tensor,
    /// Class of each image.
    pub labels: Vec<u32>,
    /// SHA-256 of what determines the split, in lower-case hexadecimal.
    pub sha256: String,
}

/// Images of a split wherever they lie, with how they are preprocessed. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ImageSet {
    source: Arc<ImageSource>,
    len: usize,
    /// SHA-256 of what determines the split and its pixels, in lower-case hexadecimal: labels and images themselves where they
    /// are in memory or the split is a test split, else names and sizes.
    pub sha256: String,
    preprocess: Arc<Preprocess>,
    pub corrupt: Corrupt,
    device: Device,
}

/// Images decoded and preprocessed, and what was wrong with those that are missing.
#[derive(Default)]
struct Decoded {
    levels: Vec<f32>,
    labels: Vec<u32>,
    skipped: Vec<String>,
}

/// Some images in order.
pub struct Batch {
    /// `(N, C, H, W)`; `None` if all were skipped.
    pub images: Option<Tensor>,
    pub labels: Vec<u32>,
    /// What is wrong with the images that were left out, with their paths.
    pub skipped: Vec<String>,
}

impl ImageSet {
    /// All images of `source`, which has the hash `sha256`; `is_default` tells whether `preprocess` is part of the data set's
    /// definition.
    pub(super) fn new(
        source: ImageSource,
        sha256: String,
        preprocess: Preprocess,
        is_default: bool,
        corrupt: Corrupt,
        device: &Device,
    ) -> Self {
        let of_steps =
            |revision: u32| hashed(&[format!("{sha256}, {}, revision {revision}", preprocess.identity()).as_bytes()]);
        let sha256 = match (source.is_hashed_whole(), is_default) {
            (true, true) => sha256,
            (true, false) => of_steps(LEVELS_REVISION),
            (false, _) => of_steps(FILES_REVISION),
        };
        let (len, preprocess) = (source.len(), Arc::new(preprocess));
        Self { source: Arc::new(source), len, sha256, preprocess, corrupt, device: device.clone() }
    }

    /// Number of images, readable or not.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first `n` images, as a set of their own that has the same hash.
    pub fn truncated(&self, n: usize) -> Self {
        Self { len: self.len.min(n), ..self.clone() }
    }

    /// Channels, height and width.
    pub fn size(&self) -> (usize, usize, usize) {
        let (height, width) = self.preprocess.crop;
        (self.preprocess.channels(), height, width)
    }

    /// Bytes of images that this keeps in memory.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.source.memory_bytes()
    }

    /// The largest label, where it is known without reading every image.
    pub(super) fn largest_label(&self) -> Option<u32> {
        self.source.largest_label()
    }

    /// The first `n` images in memory.
    pub fn first(&self, n: usize) -> Result<Split> {
        self.select(&(0..self.len.min(n) as u32).collect::<Vec<_>>(), self.sha256.clone())
    }

    /// The images at `indices` in memory; an unreadable one is an error.
    pub(super) fn select(&self, indices: &[u32], sha256: String) -> Result<Split> {
        let mut decoded = Decoded::default();
        for indices in indices.chunks(READ) {
            decoded.append(self.decoded(self.source.read(indices)?, Corrupt::Error)?);
        }
        let Batch { images, labels, .. } =
            self.batch(decoded, |levels, size| Tensor::from_vec(levels, &size, &self.device))?;
        let images = images.ok_or_else(|| Error::Usage("no images".to_string()))?;
        Ok(Split { images, labels, sha256 })
    }

    /// The first `n` readable images of `order`, as their indices, with the SHA-256 of indices and images and what is
    /// wrong with the unreadable ones before the last.
    ///
    /// Errors: an unreadable image where it is not skipped, and there is a need to look; not enough readable ones.
    pub(super) fn choose(&self, order: &[u32], n: usize) -> Result<(Vec<u32>, String, Vec<String>)> {
        let (mut chosen, mut skipped, mut contents) = (Vec::with_capacity(n), Vec::new(), Vec::new());
        let mut rest = order.iter().copied();
        while chosen.len() < n {
            let candidates: Vec<u32> = rest.by_ref().take(READ.min(n - chosen.len())).collect();
            if candidates.is_empty() {
                let problem = format!("only {} of {n} calibration images are readable: {}", chosen.len(), skipped[0]);
                return Err(Error::Usage(problem));
            }
            if self.source.is_hashed_whole() {
                chosen.extend(candidates);
                continue;
            }
            let items = self.source.read(&candidates)?;
            let hashes: Vec<String> = items.par_iter().map(Item::sha256).collect();
            let problems: Vec<Option<String>> = match self.corrupt {
                Corrupt::Error => vec![None; items.len()],
                Corrupt::Skip => {
                    let channels = self.preprocess.channels();
                    items.into_par_iter().map(|item| item.decoded(channels, |_| ()).err()).collect()
                }
            };
            for ((index, hash), problem) in candidates.into_iter().zip(hashes).zip(problems) {
                match problem {
                    Some(problem) => skipped.push(problem),
                    None => {
                        chosen.push(index);
                        contents.push(hash);
                    }
                }
            }
        }
        let indices: Vec<u8> = chosen.iter().flat_map(|index| index.to_le_bytes()).collect();
        let hash = hashed(&[self.sha256.as_bytes(), &indices, contents.concat().as_bytes()]);
        Ok((chosen, hash, skipped))
    }

    /// All images in batches of `size`, decoded by a thread of its own, and on their way to a device, ahead of who takes them.
    pub fn batches(&self, size: usize) -> Batches {
        let (sender, receiver) = sync_channel(AHEAD);
        let set = self.clone();
        let thread = std::thread::spawn(move || set.send_batches(size.max(1), &sender));
        Batches { left: self.len, size: size.max(1), receiver: Some(receiver), thread: Some(thread) }
    }

    /// Ends early when nobody listens any more, or after an error.
    fn send_batches(&self, size: usize, sender: &SyncSender<Result<Batch>>) {
        let (indices, mut upload) = ((0..self.len as u32).collect::<Vec<_>>(), Upload::new(&self.device));
        for indices in indices.chunks(size) {
            let decoded = self.source.read(indices).and_then(|items| self.decoded(items, self.corrupt));
            let batch = decoded.and_then(|decoded| self.batch(decoded, |levels, size| upload.tensor(levels, &size)));
            let is_last = batch.is_err();
            if sender.send(batch).is_err() || is_last {
                return;
            }
        }
    }

    fn decoded(&self, items: Vec<Item>, corrupt: Corrupt) -> Result<Decoded> {
        let channels = self.preprocess.channels();
        let decode = |item: Item| item.decoded(channels, |pixels| self.preprocess.apply(&pixels));
        let images: Vec<Result<(Vec<f32>, u32), String>> = items.into_par_iter().map(decode).collect();
        let mut decoded = Decoded::default();
        for image in images {
            match image {
                Ok((levels, label)) => {
                    decoded.levels.extend(levels);
                    decoded.labels.push(label);
                }
                Err(problem) if corrupt == Corrupt::Skip => decoded.skipped.push(problem),
                Err(problem) => {
                    let remedy = "get it again, or leave such images out with corrupt = \"skip\"";
                    return Err(Error::Image(format!("{problem}; {remedy}")));
                }
            }
        }
        Ok(decoded)
    }

    /// `upload` puts levels on the device.
    fn batch(
        &self,
        decoded: Decoded,
        upload: impl FnOnce(Vec<f32>, [usize; 4]) -> candle_core::Result<Tensor>,
    ) -> Result<Batch> {
        let Decoded { levels, labels, skipped } = decoded;
        let (channels, height, width) = self.size();
        let images = match labels.len() {
            0 => None,
            n => Some(upload(levels, [n, channels, height, width])?),
        };
        Ok(Batch { images, labels, skipped })
    }
}

/// Images whose files are in memory at once, where a whole split is not.
const READ: usize = 256;

impl Decoded {
    fn append(&mut self, other: Decoded) {
        self.levels.extend(other.levels);
        self.labels.extend(other.labels);
        self.skipped.extend(other.skipped);
    }
}

/// Batches of an [`ImageSet`] in order; ends after an error.
pub struct Batches {
    /// Images not yet seen.
    left: usize,
    size: usize,
    receiver: Option<Receiver<Result<Batch>>>,
    thread: Option<JoinHandle<()>>,
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left = self.left.saturating_sub(self.size);
        let received = self.receiver.as_ref().and_then(|receiver| receiver.recv().ok());
        // Without its thread an iterator has no batches: it has panicked.
        let batch = received.unwrap_or_else(|| Err(Error::Panicked("while decoding images".to_string())));
        if batch.is_err() {
            self.left = 0;
        }
        Some(batch)
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        // Wakes a thread that waits for room.
        self.receiver = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was an error here.
            let _ = thread.join();
        }
    }
}

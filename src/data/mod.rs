//! Data sets: a pool that calibration samples are drawn from, and a test split.
//!
//! [`DATASETS`] names them, [`location`] says where their images lie, a source reads them, and an [`ImageSet`]
//! decodes and preprocesses them. A calibration sample is put into memory; a test split is streamed in batches, since
//! ImageNet's would take 30 GB.
//!
//! | format | read by |
//! |---|---|
//! | embedded Fashion-MNIST, MNIST's IDX files | `idx` |
//! | CIFAR's binary files | `cifar` |
//! | folders of image files | `folder` |
//! | the Hub's Parquet shards | `shards`; `hub_shards` says which of those on the Hub are needed |

mod cifar;
mod contents;
pub mod decode;
mod fashion_mnist;
mod folder;
pub mod hub_set;
pub mod hub_shards;
mod idx;
mod images;
mod item;
pub mod location;
pub mod preprocess;
mod resize;
mod shard_claims;
mod shard_names;
mod shards;
mod source;
mod thrift;

pub use images::{Batch, Batches, Corrupt, ImageSet, Split};
pub use preprocess::CardSize;
pub use resize::Interpolation;

use crate::disk::cache::Cache;
use crate::error::{Error, Result};
use crate::hub::Hub;
use candle_core::Device;
use hub_shards::HubShards;
use item::InMemory;
use location::{Location, locate};
use preprocess::Preprocess;
use ptq::revisions::Module;
use ptq::rng::{Purpose, Stream};
use shards::{Labels, Shards};
use source::ImageSource;
use std::path::Path;

/// Preprocessing of images, and how calibration samples are drawn. What changes for files alone, as decoding does, raises
/// `FILES_REVISION` in `images.rs` instead, by which images of files have another hash.
pub const MODULE: Module = Module { name: "data", revision: 1 };

/// A data set ready for use.
#[derive(Clone, Debug)]
pub struct Data {
    /// Training images that calibration samples are drawn from.
    pub pool: ImageSet,
    pub test: ImageSet,
    pub preprocess: Preprocess,
    /// Where it was found.
    pub location: Location,
    /// Number of classes; `None` where nothing says it.
    classes: Option<usize>,
    /// Whether the pool is in random order already.
    is_shuffled: bool,
}

impl Data {
    /// Bytes of images in memory, whether used or not.
    pub fn memory_bytes(&self) -> u64 {
        self.pool.memory_bytes() + self.test.memory_bytes()
    }
}

/// Which images of the pool a cell calibrates on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Positions in the pool, in the order of the images.
    pub indices: Vec<u32>,
    /// SHA-256 of the pool, of the indices, and of the images where the pool's does not cover them.
    pub sha256: String,
    /// What is wrong with the images that others took the place of.
    pub skipped: Vec<String>,
}

impl Data {
    /// Which `n` images `seed` draws: the first of a permutation of the pool (of the pool itself for seed 0, where it is
    /// in random order already); unreadable ones are left out where that is asked for.
    ///
    /// Errors: `n` is 0 or larger than the pool; files that cannot be read.
    pub fn sample(&self, n: usize, seed: u64) -> Result<Sample> {
        let pool = self.pool.len();
        if n == 0 || n > pool {
            return Err(Error::Usage(format!("calib-images = {n}: must be 1 to {pool}, the size of the pool")));
        }
        let order: Vec<u32> = match seed {
            0 if self.is_shuffled => (0..pool as u32).collect(),
            _ => Stream::new(seed).purpose(Purpose::Calibration).permutation(pool),
        };
        let (indices, sha256, skipped) = self.pool.choose(&order, n)?;
        Ok(Sample { indices, sha256, skipped })
    }

    /// The images of `sample`, in memory.
    pub fn materialise(&self, sample: &Sample) -> Result<Split> {
        self.pool.select(&sample.indices, sample.sha256.clone())
    }

    /// The calibration sample of `n` images that `seed` draws, in memory.
    pub fn calibration(&self, n: usize, seed: u64) -> Result<Split> {
        self.materialise(&self.sample(n, seed)?)
    }

    /// Refuses a network that takes images of other channels or tells other classes apart.
    pub fn check_fit(&self, network: &str, (channels, classes): (usize, usize)) -> Result<()> {
        let own = self.preprocess.channels();
        if channels != own {
            return Err(Error::Sanity(format!("{network} takes images of {channels} channels, these have {own}")));
        }
        let mismatch = match (self.classes, self.test.largest_label()) {
            (Some(known), _) => (known != classes).then(|| format!("the data have {known}")),
            (None, Some(largest)) => (largest as usize >= classes).then(|| format!("the data have a label {largest}")),
            (None, None) => None,
        };
        match mismatch {
            None => Ok(()),
            Some(data) => Err(Error::Sanity(format!(
                "{network} tells {classes} classes apart, {data} ({}); usual suspects: a part of the data set, the \
                 checkpoint",
                self.location
            ))),
        }
    }
}

/// What a cell says about its data, beside their name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// Where they lie, as the cell has it.
    pub data: Option<&'a str>,
    /// Text of the checkpoint's `config.json`, which says how it wants its images.
    pub config: Option<&'a str>,
    /// The preprocessing itself, which counts before that of `config`.
    pub preprocess: Option<&'a Preprocess>,
    /// Which of the two sizes that it may describe.
    pub size: CardSize,
    pub corrupt: Corrupt,
    /// Where hashes of test splits are remembered.
    pub contents: Option<&'a Cache>,
    /// Where data on the Hub come from; `None`: as the environment says.
    pub hub: Option<&'a Hub>,
    /// How many images a sample will have: it decides how much of a pool on the Hub is needed.
    pub calib_images: usize,
}

/// Pool and test images in memory.
type Splits = (InMemory, InMemory);
/// Reads what is compiled in.
type Embedded = fn() -> Result<Splits>;
/// Reads files of an original format from a folder.
type Original = fn(&Path) -> Result<Splits>;

/// One data set.
pub struct DatasetSpec {
    /// As written in a grid.
    pub name: &'static str,
    /// As printed in captions.
    pub title: &'static str,
    /// Number of classes; `None` where the data say it.
    pub classes: Option<usize>,
    /// How its images are preprocessed unless the checkpoint says otherwise.
    pub preprocess: fn() -> Preprocess,
    /// Number of pool images and reader, if it is compiled in.
    embedded: Option<(usize, Embedded)>,
    /// Reader of a folder of files in the set's original format.
    binary: Option<Original>,
    idx: Option<Original>,
    /// Names of the label's column in Parquet shards.
    labels: &'static [&'static str],
}

/// Every known data set.
pub const DATASETS: &[DatasetSpec] = &[
    DatasetSpec {
        name: "fashion-mnist",
        title: "Fashion-MNIST",
        classes: Some(10),
        preprocess: || Preprocess::unresized(idx::SIZE[0], &fashion_mnist::MEAN, &fashion_mnist::STD),
        embedded: Some((fashion_mnist::POOL, fashion_mnist::embedded)),
        idx: Some(idx::folder),
        ..PLAIN
    },
    DatasetSpec {
        name: "mnist",
        title: "MNIST",
        classes: Some(10),
        preprocess: || Preprocess::unresized(idx::SIZE[0], &[0.1307], &[0.3081]),
        idx: Some(idx::folder),
        ..PLAIN
    },
    DatasetSpec {
        name: "kmnist",
        title: "Kuzushiji-MNIST",
        classes: Some(10),
        preprocess: || Preprocess::unresized(idx::SIZE[0], &[0.1918], &[0.3483]),
        idx: Some(idx::folder),
        ..PLAIN
    },
    DatasetSpec {
        name: "cifar-10",
        title: "CIFAR-10",
        classes: Some(10),
        preprocess: || Preprocess::unresized(32, &cifar::MEAN_10, &cifar::STD_10),
        binary: Some(cifar::cifar10),
        ..PLAIN
    },
    DatasetSpec {
        name: "cifar-100",
        title: "CIFAR-100",
        classes: Some(100),
        preprocess: || Preprocess::unresized(32, &cifar::MEAN_100, &cifar::STD_100),
        binary: Some(cifar::cifar100),
        labels: &["fine_label"],
        ..PLAIN
    },
    DatasetSpec { name: "imagenet", title: "ImageNet", classes: Some(1000), ..PLAIN },
    PLAIN,
];

/// Any images in folders or shards; what the other data sets have in common with them.
const PLAIN: DatasetSpec = DatasetSpec {
    name: "image-folder",
    title: "Images",
    classes: None,
    preprocess: Preprocess::imagenet,
    embedded: None,
    binary: None,
    idx: None,
    labels: &["label"],
};

/// The data set called `name`.
pub fn find(name: &str) -> Option<&'static DatasetSpec> {
    DATASETS.iter().find(|dataset| dataset.name == name)
}

impl DatasetSpec {
    /// Number of pool images where they are compiled in and a cell names no other place.
    pub fn embedded_pool(&self) -> Option<usize> {
        self.embedded.map(|(images, _)| images)
    }

    /// The data set from where `request` or `HARNESS_DATA` says, ready to be decoded on `device`.
    ///
    /// Nothing is decoded yet, but all that can be wrong without that is found: missing splits, classes, images, shards and
    /// columns, labels out of range, a number of classes that is not the data set's. Errors: each of these, with the path.
    pub fn load(&self, request: &Request, device: &Device) -> Result<Data> {
        let default = (self.preprocess)();
        let preprocess = match (request.preprocess, request.config) {
            (Some(own), _) => own.clone(),
            (None, Some(config)) => {
                Preprocess::from_timm_config(config, request.size)?.unwrap_or_else(|| default.clone())
            }
            (None, None) => default.clone(),
        };
        if preprocess.channels() != default.channels() {
            let problem = format!("{} channels, but {} has {}", preprocess.channels(), self.name, default.channels());
            return Err(Error::content("config.json", problem));
        }
        let of_environment;
        let hub = match request.hub {
            Some(hub) => hub,
            None => {
                of_environment = Hub::silent();
                &of_environment
            }
        };
        let location = match locate(self, request.data, location::root().as_deref())? {
            Location::Hub(set) => Location::Hub(set.of(hub.resolve(&set.repo)?)),
            location => location,
        };
        let (pool, test, classes) = self.sources(&location, (hub, request.calib_images))?;
        let is_default = preprocess == default;
        let (of_pool, of_test) = (pool.sha256(), test.content_sha256(request.contents)?);
        let set =
            |source, sha256| ImageSet::new(source, sha256, preprocess.clone(), is_default, request.corrupt, device);
        let is_shuffled = location == Location::Embedded;
        Ok(Data { pool: set(pool, of_pool), test: set(test, of_test), preprocess, location, classes, is_shuffled })
    }

    /// Pool and test split of a set on the Hub, downloaded if they are not there.
    fn sources_on_hub(&self, needed: &HubShards, hub: &Hub) -> Result<(ImageSource, ImageSource)> {
        let labels = Labels { columns: self.labels, classes: self.classes };
        let (pool, test) = needed.fetch(hub)?;
        let (pool, test) = (Shards::of(&pool, labels, false)?, Shards::of(&test, labels, true)?);
        if needed.is_part() {
            let (own, all) = (pool.classes()?.len(), test.classes()?.len());
            // A random part has most of them: of as many images as classes, 63 %.
            if 2 * own < all.min(pool.len()) {
                return Err(Error::Sanity(format!(
                    "the {} of {} shards that calibration images are drawn from have {own} of {all} classes: {} is sorted \
                     by class; download all of it, and name its folder as data = \"parquet:PATH\"",
                    needed.pool.len(),
                    needed.of,
                    needed.set
                )));
            }
        }
        Ok((ImageSource::Shards(pool), ImageSource::Shards(test)))
    }

    /// Pool, test split and number of classes at `location`; of a pool on `hub` as much as a sample of `calib_images` needs.
    fn sources(
        &self,
        location: &Location,
        (hub, calib_images): (&Hub, usize),
    ) -> Result<(ImageSource, ImageSource, Option<usize>)> {
        let stored = |(pool, test): Splits| (ImageSource::Memory(pool), ImageSource::Memory(test), self.classes);
        let missing = |format: &str| {
            let problem = format!("{} is not read from {format}: data = \"{location}\"", self.name);
            Error::Usage(problem)
        };
        match location {
            Location::Embedded => match self.embedded {
                Some((_, read)) => Ok(stored(read()?)),
                None => Err(missing("the binary")),
            },
            Location::Binary(path) => Ok(stored(self.binary.ok_or_else(|| missing("binary files"))?(path)?)),
            Location::Idx(path) => Ok(stored(self.idx.ok_or_else(|| missing("IDX files"))?(path)?)),
            Location::Folder(path) => {
                let classes = folder::classes(&path.join(VAL))?;
                if let Some(known) = self.classes.filter(|known| *known != classes.len()) {
                    let problem = format!(
                        "{} classes, but {} has {known}: with other folders class indices would be others (dataset = \
                         \"{}\" takes any number)",
                        classes.len(),
                        self.name,
                        PLAIN.name
                    );
                    return Err(Error::content(path.join(VAL), problem));
                }
                let test = folder::Files::open(path, VAL, &classes)?;
                let pool = folder::Files::open(path, TRAIN, &classes)?;
                Ok((ImageSource::Files(pool), ImageSource::Files(test), Some(classes.len())))
            }
            Location::Parquet(path) => {
                let labels = Labels { columns: self.labels, classes: self.classes };
                let test = Shards::open(path, &shard_names::TEST, labels, true)?;
                let pool = Shards::open(path, &shard_names::POOL, labels, false)?;
                Ok((ImageSource::Shards(pool), ImageSource::Shards(test), self.classes))
            }
            Location::Hub(set) => {
                let (pool, test) = self.sources_on_hub(&HubShards::choose(set, calib_images, hub)?, hub)?;
                Ok((pool, test, self.classes))
            }
        }
    }
}

/// Folders of an image folder's splits.
const TRAIN: &str = "train";
const VAL: &str = "val";

#[cfg(test)]
mod tests;

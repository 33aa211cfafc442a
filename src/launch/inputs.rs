//! What a cell starts from: network, calibration sample, test split. Loaded once per process, however many cells share it.

use super::memory::Footprint;
use crate::assets::checkpoint::{Card, Checkpoint, load_weights};
use crate::data::hub_set::HubSet;
use crate::data::hub_shards::{HubShards, images_to_draw_from};
use crate::data::location::Location;
use crate::data::preprocess::Preprocess;
use crate::data::{self, CardSize, Corrupt, Data, ImageSet, Request, Sample, Split};
use crate::disk::cache::Cache;
use crate::error::{Error, Result};
use crate::experiment::Cell;
use crate::experiment::Hashes;
use crate::hub::{HUB_PREFIX, Hub};
use candle_core::{Device, DeviceLocation};
use ptq::arch::{self, ArchSpec};
use ptq::graph::{Network, Op};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The inputs of one cell.
pub struct Inputs {
    /// As pretrained, BatchNorm not folded.
    pub network: Network,
    pub calib: Split,
    /// Where the calibration images come from.
    pub sample: Sample,
    pub test: ImageSet,
    pub preprocess: Preprocess,
    pub hashes: Hashes,
    /// What the checkpoint's card promises.
    pub card: Option<Card>,
}

/// Loads inputs and remembers them.
pub struct Loader {
    device: Device,
    hub: Arc<Hub>,
    checkpoints: HashMap<CheckpointKey, Checkpoint>,
    data: HashMap<DataKey, Data>,
    samples: HashMap<SampleKey, Sample>,
    /// The images of the last sample: those of ImageNet take 600 MB.
    calib: Option<(SampleKey, Split)>,
    footprints: HashMap<(CheckpointKey, DataKey), Footprint>,
    /// Hashes of test splits, if there is a folder for them.
    contents: Option<Cache>,
    /// What cells need of data on the Hub, by place and how much is drawn from.
    on_hub: HashMap<(String, usize), HubShards>,
}

type CheckpointKey = (String, String, String);

/// What determines a cell's data: name, place, how much of a pool on the Hub, how unreadable images are treated, the checkpoint's
/// `config.json` and which of its sizes counts.
#[derive(Clone, PartialEq, Eq, Hash)]
struct DataKey {
    dataset: String,
    data: Option<String>,
    drawn_from: Option<usize>,
    skip: bool,
    config: Option<String>,
    size: CardSize,
}

type SampleKey = (DataKey, usize, u64);

impl Loader {
    /// Loads on `device`; loaders that share a Hub see the same commits of its branches.
    pub fn new(device: &Device, hub: impl Into<Arc<Hub>>) -> Self {
        Self {
            device: device.clone(),
            hub: hub.into(),
            checkpoints: HashMap::new(),
            data: HashMap::new(),
            samples: HashMap::new(),
            calib: None,
            footprints: HashMap::new(),
            contents: None,
            on_hub: HashMap::new(),
        }
    }

    /// The Hub that it asks for weights and data.
    pub fn hub(&self) -> Arc<Hub> {
        self.hub.clone()
    }

    /// Remembers hashes of test splits on disk in `cache`, so that these are read whole only once.
    pub fn remembering(self, cache: &Path) -> Self {
        Self { contents: Some(Cache::new(Self::cache(cache))), ..self }
    }

    /// The part of the folder `cache` that is for hashes of test splits.
    pub fn cache(cache: &Path) -> PathBuf {
        cache.join("contents")
    }

    /// That of its device.
    pub fn device_name(&self) -> String {
        device_name(&self.device)
    }

    /// Everything that determines the result of `cell` beside itself.
    pub fn hashes(&mut self, cell: &Cell) -> Result<Hashes> {
        let weights = self.checkpoint(cell)?.sha256.clone();
        let calib = self.sample(cell)?.sha256;
        let test = self.data(cell)?.test.sha256.clone();
        Ok(Hashes { weights, calib, test })
    }

    /// Errors: anything that cannot be read; a network that does not fit the data.
    pub fn inputs(&mut self, cell: &Cell) -> Result<Inputs> {
        let hashes = self.hashes(cell)?;
        let checkpoint = self.checkpoint(cell)?.clone();
        let card = checkpoint.card.clone();
        let network = arch::load(arch_of(cell)?, checkpoint.tensors, &checkpoint.source, &self.device)?;
        let data = self.data(cell)?;
        data.check_fit(network.arch, channels_and_classes(&network)?)?;
        let (test, preprocess) = (data.test.clone(), data.preprocess.clone());
        let (sample, calib) = (self.sample(cell)?, self.calibration(cell)?);
        Ok(Inputs { network, calib, sample, test, preprocess, hashes, card })
    }

    /// What `cell` will take of the memory, in bytes, with at most `memory_bytes` of activations ([`Footprint::peak_bytes`]).
    pub fn peak_bytes(&mut self, cell: &Cell, memory_bytes: u64) -> Result<u64> {
        let key = (checkpoint_key(cell), self.data_key(cell)?);
        if !self.footprints.contains_key(&key) {
            let checkpoint = self.checkpoint(cell)?.clone();
            let network = arch::load(arch_of(cell)?, checkpoint.tensors, &checkpoint.source, &self.device)?;
            let data = self.data(cell)?;
            let (channels, height, width) = data.test.size();
            let footprint = Footprint::new(&network, [channels, height, width], data.memory_bytes())?;
            self.footprints.insert(key.clone(), footprint);
        }
        Ok(self.footprints[&key].peak_bytes(cell, memory_bytes))
    }

    /// The file that the weights of `cell` were loaded from; one on the Hub has its commit.
    pub fn weights_source(&self, cell: &Cell) -> Option<String> {
        Some(self.checkpoints.get(&checkpoint_key(cell))?.source.clone())
    }

    /// Where the data of `cell` were found on the Hub, with the commit; `None` if they are elsewhere or not loaded.
    pub fn data_source(&self, cell: &Cell) -> Option<String> {
        let config = self.checkpoints.get(&checkpoint_key(cell))?.config.clone();
        match &self.data.get(&data_key(cell, config))?.location {
            location @ Location::Hub(_) => Some(location.to_string()),
            _ => None,
        }
    }

    /// Has the data of `cell` count as those of `source`, a name on the Hub with the commit that another process found.
    ///
    /// Errors: another name than the cell's, or none.
    pub fn pin_data(&self, cell: &Cell, source: &str) -> Result<()> {
        let own = set_on_hub(cell)?;
        match (own, source.parse::<HubSet>().map_err(Error::Usage)?) {
            (Some(own), pinned) if own.repo.name() == pinned.repo.name() && pinned.repo.commit().is_some() => {
                self.hub.pin(&own.repo, pinned.repo.revision());
                Ok(())
            }
            _ => Err(Error::Usage(format!("{source} is no commit of data = {:?}", cell.data))),
        }
    }

    /// The shards that `cell` needs of data on the Hub, downloaded or not; `None` where its data are elsewhere.
    pub fn on_hub(&mut self, cell: &Cell) -> Result<Option<&HubShards>> {
        let Some(set) = set_on_hub(cell)? else { return Ok(None) };
        let key = (set.to_string(), images_to_draw_from(cell.calib_images));
        if !self.on_hub.contains_key(&key) {
            let needed = HubShards::choose(&set, cell.calib_images, &self.hub)?;
            self.on_hub.insert(key.clone(), needed);
        }
        Ok(self.on_hub.get(&key))
    }

    fn checkpoint(&mut self, cell: &Cell) -> Result<&Checkpoint> {
        let key = checkpoint_key(cell);
        if !self.checkpoints.contains_key(&key) {
            let checkpoint = load_weights(&cell.weights, arch_of(cell)?, &cell.dataset, &self.device, &self.hub)?;
            self.checkpoints.insert(key.clone(), checkpoint);
        }
        Ok(&self.checkpoints[&key])
    }

    fn data_key(&mut self, cell: &Cell) -> Result<DataKey> {
        let config = self.checkpoint(cell)?.config.clone();
        Ok(data_key(cell, config))
    }

    fn data(&mut self, cell: &Cell) -> Result<&Data> {
        let key = self.data_key(cell)?;
        if !self.data.contains_key(&key) {
            let Some(dataset) = data::find(&cell.dataset) else {
                return Err(Error::Usage(format!("there is no data set {:?}", cell.dataset)));
            };
            let request = Request {
                data: cell.data.as_deref(),
                config: key.config.as_deref(),
                preprocess: None,
                size: key.size,
                corrupt: cell.corrupt,
                contents: self.contents.as_ref(),
                hub: Some(&self.hub),
                calib_images: cell.calib_images,
            };
            let data = dataset.load(&request, &self.device)?;
            self.data.insert(key.clone(), data);
        }
        Ok(&self.data[&key])
    }

    fn sample(&mut self, cell: &Cell) -> Result<Sample> {
        let key = (self.data_key(cell)?, cell.calib_images, cell.seed);
        if let Some(sample) = self.samples.get(&key) {
            return Ok(sample.clone());
        }
        let sample = self.data(cell)?.sample(cell.calib_images, cell.seed)?;
        self.samples.insert(key, sample.clone());
        Ok(sample)
    }

    fn calibration(&mut self, cell: &Cell) -> Result<Split> {
        let key = (self.data_key(cell)?, cell.calib_images, cell.seed);
        if let Some((_, split)) = self.calib.as_ref().filter(|(of, _)| *of == key) {
            return Ok(split.clone());
        }
        let sample = self.sample(cell)?;
        self.calib = None;
        let split = self.data(cell)?.materialise(&sample)?;
        self.calib = Some((key, split.clone()));
        Ok(split)
    }
}

/// `cpu` or `cuda:N`.
pub fn device_name(device: &Device) -> String {
    match device.location() {
        DeviceLocation::Cpu => "cpu".to_string(),
        DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}

fn checkpoint_key(cell: &Cell) -> CheckpointKey {
    (cell.arch.clone(), cell.weights.clone(), cell.dataset.clone())
}

/// `config` is that of the cell's checkpoint.
fn data_key(cell: &Cell, config: Option<String>) -> DataKey {
    let is_on_hub = cell.data.as_ref().is_some_and(|data| data.starts_with(HUB_PREFIX));
    DataKey {
        dataset: cell.dataset.clone(),
        data: cell.data.clone(),
        drawn_from: is_on_hub.then(|| images_to_draw_from(cell.calib_images)),
        skip: cell.corrupt == Corrupt::Skip,
        config,
        size: cell.preprocess,
    }
}

/// The set on the Hub that the data of `cell` are.
fn set_on_hub(cell: &Cell) -> Result<Option<HubSet>> {
    match &cell.data {
        Some(data) if data.starts_with(HUB_PREFIX) => data.parse().map(Some).map_err(Error::Usage),
        _ => Ok(None),
    }
}

/// The number of channels that `network` takes and of classes that it tells apart.
fn channels_and_classes(network: &Network) -> Result<(usize, usize)> {
    let mut weighted = network.units.iter().flat_map(|unit| &unit.nodes).filter_map(|node| {
        let groups = if let Op::Conv(conv) = &node.op { conv.geometry.groups } else { 1 };
        node.op.weight().map(|weight| (weight, groups))
    });
    let first = weighted.next();
    let last = weighted.next_back().or(first);
    match (first, last) {
        (Some((first, groups)), Some((last, _))) => Ok((first.dim(1)? * groups, last.dim(0)?)),
        _ => Err(Error::Sanity(format!("{} has no layer with weights", network.arch))),
    }
}

/// Grids are checked when they are read; a cell from elsewhere may name anything.
pub(super) fn arch_of(cell: &Cell) -> Result<&'static ArchSpec> {
    arch::find(&cell.arch).ok_or_else(|| Error::Usage(format!("there is no architecture {:?}", cell.arch)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{Revisions, RunId};
    use crate::store::record::Record;
    use ptq::recipe::{ClassifierMix, ConvTarget};

    /// Ids of stored runs: another way to read, normalise or hash the embedded images would orphan them. Of a recipe from before
    /// some of its fields, which are left out where they say what was done then.
    #[test]
    fn the_ids_of_cells_on_fashion_mnist_stay_as_they_were() {
        let mut loader = Loader::new(&Device::Cpu, Hub::silent());
        for (seed, id) in [(0, "resnet20-w2a2-qdrop-s0-55d8fd564c"), (2, "resnet20-w2a2-qdrop-s2-65a9731b09")] {
            let mut cell = Cell { calib_images: 256, ..Record::sample("x", "qdrop", "W2A2", seed).cell };
            cell.recipe.conv_target = ConvTarget::default();
            cell.recipe.classifier_mix = ClassifierMix::default();
            let hashes = loader.hashes(&cell).unwrap();
            assert_eq!(RunId::new(&cell, &hashes, &Revisions { method: 1, ..Revisions::default() }).to_string(), id);
        }
    }

    #[test]
    fn a_network_for_other_images_or_classes_is_refused() {
        let mut loader = Loader::new(&Device::Cpu, Hub::silent());
        let cell = Record::sample("x", "qdrop", "W2A2", 0).cell;
        let network = loader.inputs(&cell).unwrap().network;
        assert_eq!(channels_and_classes(&network).unwrap(), (1, 10));
        let data = loader.data(&cell).unwrap();
        for (fit, problem) in [((3, 10), "takes images of 3 channels, these have 1"), ((1, 1000), "tells 1000 classes")]
        {
            let error = data.check_fit("net", fit).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
        data.check_fit("net", (1, 10)).unwrap();
    }
}

//! What a cell starts from: network, calibration sample, test split. Loaded once per process, however many cells share it.

use crate::arch::{self, ArchSpec};
use crate::assets::checkpoint::{Card, Checkpoint, load_weights};
use crate::assets::hub::Hub;
use crate::data::{self, Data, Split};
use crate::error::{Error, Result};
use crate::experiment::Cell;
use crate::graph::Network;
use crate::store::record::Hashes;
use candle_core::{Device, DeviceLocation};
use std::collections::HashMap;

/// The inputs of one cell.
pub struct Inputs {
    /// As pretrained, BatchNorm not folded.
    pub network: Network,
    pub calib: Split,
    pub test: Split,
    pub hashes: Hashes,
    /// What the checkpoint's card promises.
    pub card: Option<Card>,
}

/// Loads inputs and remembers them.
pub struct Loader {
    device: Device,
    hub: Hub,
    checkpoints: HashMap<(String, String, String), Checkpoint>,
    data: HashMap<String, Data>,
    calibrations: HashMap<(String, usize, u64), Split>,
}

impl Loader {
    pub fn new(device: &Device, hub: Hub) -> Self {
        Self {
            device: device.clone(),
            hub,
            checkpoints: HashMap::new(),
            data: HashMap::new(),
            calibrations: HashMap::new(),
        }
    }

    /// `cpu` or `cuda:N`.
    pub fn device_name(&self) -> String {
        match self.device.location() {
            DeviceLocation::Cpu => "cpu".to_string(),
            DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
            DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
        }
    }

    /// Everything that determines the result of `cell` beside itself.
    pub fn hashes(&mut self, cell: &Cell) -> Result<Hashes> {
        let weights = self.checkpoint(cell)?.sha256.clone();
        let calib = self.calibration(cell)?.sha256;
        let test = self.data(cell)?.test.sha256.clone();
        Ok(Hashes { weights, calib, test })
    }

    pub fn inputs(&mut self, cell: &Cell) -> Result<Inputs> {
        let hashes = self.hashes(cell)?;
        let checkpoint = self.checkpoint(cell)?.clone();
        let card = checkpoint.card.clone();
        let network = arch::load(arch_of(cell)?, checkpoint, &self.device)?;
        Ok(Inputs { network, calib: self.calibration(cell)?, test: self.data(cell)?.test.clone(), hashes, card })
    }

    /// The file that the weights of `cell` were loaded from; one on the Hub has its commit.
    pub fn weights_source(&self, cell: &Cell) -> Option<String> {
        Some(self.checkpoints.get(&key(cell))?.source.clone())
    }

    fn checkpoint(&mut self, cell: &Cell) -> Result<&Checkpoint> {
        let key = key(cell);
        if !self.checkpoints.contains_key(&key) {
            let checkpoint = load_weights(&cell.weights, arch_of(cell)?, &cell.dataset, &self.device, &self.hub)?;
            self.checkpoints.insert(key.clone(), checkpoint);
        }
        Ok(&self.checkpoints[&key])
    }

    fn data(&mut self, cell: &Cell) -> Result<&Data> {
        if !self.data.contains_key(&cell.dataset) {
            let Some(dataset) = data::find(&cell.dataset) else {
                return Err(Error::Usage(format!("there is no data set {:?}", cell.dataset)));
            };
            self.data.insert(cell.dataset.clone(), (dataset.load)(&self.device)?);
        }
        Ok(&self.data[&cell.dataset])
    }

    fn calibration(&mut self, cell: &Cell) -> Result<Split> {
        let key = (cell.dataset.clone(), cell.calib_images, cell.seed);
        if let Some(split) = self.calibrations.get(&key) {
            return Ok(split.clone());
        }
        let split = self.data(cell)?.calibration(cell.calib_images, cell.seed)?;
        self.calibrations.insert(key, split.clone());
        Ok(split)
    }
}

/// What determines a checkpoint.
fn key(cell: &Cell) -> (String, String, String) {
    (cell.arch.clone(), cell.weights.clone(), cell.dataset.clone())
}

/// Grids are checked when they are read; a cell from elsewhere may name anything.
pub(super) fn arch_of(cell: &Cell) -> Result<&'static ArchSpec> {
    arch::find(&cell.arch).ok_or_else(|| Error::Usage(format!("there is no architecture {:?}", cell.arch)))
}

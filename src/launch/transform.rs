//! The transform network of a cell, warmed up once per configuration and remembered.

use super::inputs::Inputs;
use super::ranges::computed_on;
use crate::data;
use crate::disk::cache::Cache;
use crate::error::{Error, Result};
use crate::experiment::Cell;
use crate::experiment::revisions::in_key;
use ptq::meta::nets::Transform;
use ptq::meta::nets::{TransformNet, too_small};
use ptq::meta::warm_up::{untrained, warmed_up};
use ptq::recon::event::Control;
use ptq::revisions::{META, OPS};
use ptq::rng::Stream;
use std::path::{Path, PathBuf};
use tracing::info_span;

/// Warmed-up networks in a folder, by everything that determines them.
pub struct TransformCache {
    cache: Cache,
}

impl TransformCache {
    /// The part of the folder `cache` that is for transform networks.
    pub fn folder(cache: &Path) -> PathBuf {
        cache.join("transform")
    }

    /// In its part of the folder `cache`.
    pub fn new(cache: &Path) -> Self {
        Self { cache: Cache::new(Self::folder(cache)) }
    }

    /// The network of `cell` as it is before its first unit; `None` if the cell has none.
    ///
    /// Errors: images too small for its depth.
    pub fn network(&self, cell: &Cell, inputs: &Inputs, control: &Control) -> Result<Option<TransformNet>> {
        let Some(config) = &cell.transform else { return Ok(None) };
        let images = &inputs.calib.images;
        let (_, channels, height, width) = images.dims4()?;
        if let Some(problem) = too_small(config, height, width) {
            return Err(Error::Usage(format!("transform.depth: {problem}")));
        }
        let stream = Stream::new(cell.seed);
        if !config.net.0.needs_warm_up || config.warmup_iterations == 0 {
            return Ok(Some(untrained(config, images, stream)?));
        }
        let key = key(config, cell.seed, channels, inputs)?;
        let _held = self.cache.hold(&key);
        if let Some(bytes) = self.cache.get(&key) {
            let net = untrained(config, images, stream)?;
            // What does not fit only costs a warm-up.
            let loaded = candle_core::safetensors::load_buffer(&bytes, images.device()).map_err(ptq::Error::from);
            if loaded.and_then(|tensors| net.parameters.load(&tensors)).is_ok() {
                return Ok(Some(net));
            }
        }
        let net = info_span!("warm-up").in_scope(|| warmed_up(config, images, stream, control))?;
        let bytes = safetensors::serialize(net.parameters.tensors()?, None)
            .map_err(|error| Error::Usage(format!("the transform network cannot be written: {error}")))?;
        self.cache.put(&key, &bytes);
        Ok(Some(net))
    }
}

/// All that a warm-up depends on.
fn key(config: &Transform, seed: u64, channels: usize, inputs: &Inputs) -> Result<String> {
    let config = toml::to_string(config).map_err(|error| Error::Usage(format!("transform: {error}")))?;
    let revisions = in_key(&[OPS, META, data::MODULE]);
    let device = computed_on(&inputs.calib.images);
    Ok(format!("{config}seed = {seed}\nchannels = {channels}\n{revisions}{device}\n{}", inputs.hashes.calib))
}

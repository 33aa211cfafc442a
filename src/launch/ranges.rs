//! Starting ranges of quantizers, searched once for all cells that start from the same ones, and remembered.

use super::inputs::Inputs;
use crate::data;
use crate::disk::cache::Cache;
use crate::error::{Error, Result};
use crate::experiment::Cell;
use crate::experiment::revisions::in_key;
use crate::store::processor;
use candle_core::{Device, Tensor};
use ptq::graph::Network;
use ptq::ops::device;
use ptq::quant::model::QuantModel;
use ptq::quant::range_search::Range;
use ptq::recipe::SearchPrefix;
use ptq::recon::start::{search_ranges, searches_first};
use ptq::revisions::{OPS, QUANT};
use safetensors::SafeTensors;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Ranges in a folder, by everything that determines them.
pub struct RangeCache {
    cache: Cache,
}

impl RangeCache {
    /// The part of the folder `cache` that is for ranges.
    pub fn folder(cache: &Path) -> PathBuf {
        cache.join("ranges")
    }

    /// In its part of the folder `cache`.
    pub fn new(cache: &Path) -> Self {
        Self { cache: Cache::new(Self::folder(cache)) }
    }

    /// [`ptq::recon::start::prepare`] of `network`, which is that of `inputs`, folded as the cell's recipe says.
    pub fn prepared(&self, cell: &Cell, network: &Network, inputs: &Inputs) -> Result<QuantModel> {
        let (bits, setting, recipe) = (cell.bits, cell.setting, &cell.recipe);
        let weights_key = weights_key(cell, inputs);
        let held = self.cache.hold(&weights_key);
        let kept = self.cache.get(&weights_key).and_then(|bytes| read(&bytes));
        let kept = kept.and_then(|ranges| QuantModel::with_weight_ranges(network, bits, setting, recipe, &ranges).ok());
        let mut model = match kept {
            Some(model) => model,
            None => {
                let model = QuantModel::new(network, bits, setting, recipe)?;
                self.cache.put(&weights_key, &written(&model.weight_ranges()?)?);
                model
            }
        };
        drop(held);
        if searches_first(recipe) {
            let acts_key = acts_key(cell, inputs, &weights_key);
            let _held = self.cache.hold(&acts_key);
            let kept = self.cache.get(&acts_key).and_then(|bytes| read(&bytes));
            if kept.is_none_or(|ranges| model.set_act_ranges(&ranges, inputs.calib.images.device()).is_err()) {
                search_ranges(&mut model, &inputs.calib.images, recipe)?;
                self.cache.put(&acts_key, &written(&model.act_ranges()?)?);
            }
        }
        Ok(model)
    }
}

/// All that the weights' ranges depend on; not the bits of activations, so that cells share them across these.
fn weights_key(cell: &Cell, inputs: &Inputs) -> String {
    let (recipe, hashes) = (&cell.recipe, &inputs.hashes);
    format!(
        "weights\n{}{} {}\n{:?} {:?} {}\n{}",
        in_key(&[OPS, QUANT]),
        cell.arch,
        hashes.weights,
        recipe.batch_norm,
        recipe.weight_search,
        cell.bits.w,
        computed_on(&inputs.calib.images)
    )
}

/// All that the activations' ranges depend on: the weights' ranges only where quantized weights compute the activations.
fn acts_key(cell: &Cell, inputs: &Inputs, weights_key: &str) -> String {
    let (recipe, hashes) = (&cell.recipe, &inputs.hashes);
    let network = match recipe.act_search_prefix {
        SearchPrefix::FullPrecision => {
            format!("{} {} {:?}\n{}", cell.arch, hashes.weights, recipe.batch_norm, computed_on(&inputs.calib.images))
        }
        // Roundings start from the same weights, but for ties.
        _ => format!("{weights_key}\n{:?}", recipe.rounding),
    };
    format!(
        "activations\n{}{network}\n{} {}\n{:?} {:?} {:?} {} {}",
        in_key(&[OPS, QUANT, data::MODULE]),
        hashes.calib,
        recipe.act_search_images,
        recipe.act_search,
        recipe.placement,
        cell.setting,
        recipe.classifier_input_8bit,
        cell.bits.a
    )
}

/// Where the last bits come from: machines may share a folder, and what is remembered must be what is computed.
pub(super) fn computed_on(images: &Tensor) -> String {
    format!("{:?}, {}{}", images.device().location(), processor::instructions(), precision_of(images))
}

/// What keys say of the precision of the device that `images` are on: nothing of the default.
pub(super) fn precision_of(images: &Tensor) -> String {
    let precision = device::precision_of(images.device());
    if precision.is_f32() { String::new() } else { format!(", {precision}") }
}

/// Tensor `i` `(2, n)` holds the scales and zero points of quantizer `i`; it has no columns if that was not searched.
fn written(ranges: &[Vec<Range>]) -> Result<Vec<u8>> {
    let tensors = ranges.iter().enumerate().map(|(index, ranges)| {
        let values: Vec<f32> =
            ranges.iter().map(|range| range.scale).chain(ranges.iter().map(|r| r.zero_point)).collect();
        Ok((index.to_string(), Tensor::from_vec(values, (2, ranges.len()), &Device::Cpu)?))
    });
    let tensors: HashMap<String, Tensor> = tensors.collect::<Result<_>>()?;
    safetensors::serialize(&tensors, None).map_err(|error| Error::Usage(format!("ranges cannot be written: {error}")))
}

/// The inverse of [`written`]; `None` for anything else.
fn read(bytes: &[u8]) -> Option<Vec<Vec<Range>>> {
    let tensors = SafeTensors::deserialize(bytes).ok()?;
    let quantizer = |index: usize| {
        let tensor = tensors.tensor(&index.to_string()).ok()?;
        let (values, rest) = tensor.data().as_chunks::<4>();
        let values: Vec<f32> = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let (scales, zero_points) = values.split_at_checked(values.len() / 2)?;
        let ranges = scales.iter().zip(zero_points).map(|(&scale, &zero_point)| Range { scale, zero_point });
        (rest.is_empty() && values.len().is_multiple_of(2)).then(|| ranges.collect())
    };
    (0..tensors.len()).map(quantizer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Hub;
    use crate::launch::Loader;
    use crate::store::record::Record;
    use ptq::graph::fold_bn::fold_bn;
    use ptq::methods::METHODS;
    use ptq::recipe::Bits;
    use ptq::recon::start::prepare;

    fn entries(folder: &Path) -> Vec<PathBuf> {
        let mut entries: Vec<PathBuf> =
            std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries
    }

    #[test]
    fn remembered_ranges_are_those_that_are_searched_and_a_damaged_file_is_searched_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = RangeCache::new(folder.path());
        let of_ranges = RangeCache::folder(folder.path());
        let mut cell = Record::sample("x", "qdrop", "W2A2", 0).cell;
        cell.calib_images = 16;
        let inputs = Loader::new(&Device::Cpu, Hub::silent()).inputs(&cell).unwrap();
        let arch = ptq::arch::find(&cell.arch).unwrap();
        for method in METHODS {
            cell.recipe = (method.recipe)(arch);
            let network = fold_bn(&inputs.network, cell.recipe.batch_norm).unwrap();
            let searched = prepare(&network, &inputs.calib.images, (cell.bits, cell.setting), &cell.recipe).unwrap();
            let all = |model: &QuantModel| (model.weight_ranges().unwrap(), model.act_ranges().unwrap());
            for _ in ["cold", "warm"] {
                assert_eq!(all(&cache.prepared(&cell, &network, &inputs).unwrap()), all(&searched), "{}", method.name);
            }
            for entry in entries(&of_ranges) {
                std::fs::write(entry, "half an ent").unwrap();
            }
            assert_eq!(all(&cache.prepared(&cell, &network, &inputs).unwrap()), all(&searched), "{}", method.name);
            assert_eq!(all(&searched).1.iter().any(|ranges| !ranges.is_empty()), searches_first(&cell.recipe));
        }
    }

    #[test]
    fn what_differs_has_ranges_of_its_own_and_what_does_not_shares_them() {
        let mut loader = Loader::new(&Device::Cpu, Hub::silent());
        let base = Cell { calib_images: 8, ..Record::sample("x", "qdrop", "W2A2", 0).cell };
        let arch = ptq::arch::find(&base.arch).unwrap();
        let base = Cell { recipe: (ptq::methods::find("qdrop").unwrap().recipe)(arch), ..base };
        let mut keys = |cell: &Cell| {
            let inputs = loader.inputs(cell).unwrap();
            let weights = weights_key(cell, &inputs);
            (weights.clone(), acts_key(cell, &inputs, &weights))
        };
        let (weights, acts) = keys(&base);
        let mut changed = |change: &dyn Fn(&mut Cell)| {
            let mut cell = base.clone();
            change(&mut cell);
            let (new_weights, new_acts) = keys(&cell);
            (new_weights != weights, new_acts != acts)
        };
        assert_eq!(changed(&|cell| cell.recipe.iterations = 7), (false, false));
        assert_eq!(changed(&|cell| cell.bits = Bits { w: 2, a: 4 }), (false, true));
        // Full-precision activations know nothing of the weights' bits.
        assert_eq!(changed(&|cell| cell.bits = Bits { w: 4, a: 2 }), (true, false));
        assert_eq!(changed(&|cell| cell.seed = 1), (false, true));
        assert_eq!(changed(&|cell| cell.calib_images = 9), (false, true));
        assert_eq!(changed(&|cell| cell.setting = ptq::recipe::Setting::Brecq), (false, true));
        assert_eq!(changed(&|cell| cell.recipe.act_search_images = 3), (false, true));
        assert_eq!(changed(&|cell| cell.recipe.act_search_prefix = SearchPrefix::Quantized), (false, true));
        let folding = |cell: &mut Cell| cell.recipe.batch_norm = ptq::recipe::BatchNormMode::Kept;
        assert_eq!(changed(&folding), (true, true));
    }
}

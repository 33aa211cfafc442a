//! What a run has trained so far, kept until it is done: a run that was interrupted, or whose process died, goes on from there.

use super::usage::Stopwatch;
use crate::disk::cache::Cache;
use crate::store::record::Cost;
use candle_core::Device;
use ptq::quantize::resume::{TrainedUnit, TrainedUnits};
use ptq::recon::event::Event;
use safetensors::SafeTensors;
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;

/// Version of an entry's content.
const FORMAT: u32 = 1;
/// Names of what entries keep beside tensors, each as JSON.
const EVENTS: &str = "events";
const SPENT: &str = "spent";

/// The entries of one run, in a folder of its own: one per phase and unit.
pub struct Partial<'a> {
    cache: Cache,
    /// All that an entry depends on beside its phase and unit.
    key: String,
    stopwatch: &'a Stopwatch,
    /// What the attempts before this one took for the entries that were found.
    spent: RefCell<Option<Cost>>,
}

impl<'a> Partial<'a> {
    /// Of the run `run_id`, in `folder`; `computed_on` says what its last bits depend on beside its id.
    pub fn new(folder: &Path, run_id: &str, computed_on: &str, stopwatch: &'a Stopwatch) -> Self {
        // Another build may compute something else, although nobody has said so by a revision.
        let build = concat!(env!("CARGO_PKG_VERSION"), " ", env!("HARNESS_GIT_REVISION"));
        let key = format!("{FORMAT}\n{run_id}\n{build}\n{computed_on}");
        Self { cache: Cache::new(folder.join(run_id)), key, stopwatch, spent: RefCell::default() }
    }

    /// What the run took so far, in all attempts.
    pub fn cost(&self) -> Cost {
        let now = self.stopwatch.cost();
        match self.spent.borrow().as_ref() {
            None => now,
            Some(before) => Cost {
                wall_s: before.wall_s + now.wall_s,
                cpu_s: before.cpu_s + now.cpu_s,
                peak_memory_bytes: before.peak_memory_bytes.max(now.peak_memory_bytes),
            },
        }
    }

    fn key(&self, phase: &str, index: usize) -> String {
        format!("{}\n{phase} {index}", self.key)
    }
}

impl TrainedUnits for Partial<'_> {
    fn find(&self, phase: &str, index: usize) -> Option<TrainedUnit> {
        let bytes = self.cache.get(&self.key(phase, index))?;
        let (unit, spent) = read(&bytes)?;
        *self.spent.borrow_mut() = Some(spent);
        Some(unit)
    }

    /// Where it cannot be written there is only less to go on from.
    fn keep(&self, phase: &str, index: usize, unit: TrainedUnit) {
        if let Some(bytes) = written(&unit, &self.cost()) {
            self.cache.put(&self.key(phase, index), &bytes);
        }
    }
}

fn written(TrainedUnit { tensors, events }: &TrainedUnit, spent: &Cost) -> Option<Vec<u8>> {
    let beside = [(EVENTS, serde_json::to_string(events).ok()?), (SPENT, serde_json::to_string(spent).ok()?)];
    let beside = beside.map(|(name, json)| (name.to_string(), json));
    safetensors::serialize(tensors, Some(HashMap::from(beside))).ok()
}

fn read(bytes: &[u8]) -> Option<(TrainedUnit, Cost)> {
    let (_, header) = SafeTensors::read_metadata(bytes).ok()?;
    let beside = header.metadata().as_ref()?;
    let events: Vec<Event> = serde_json::from_str(beside.get(EVENTS)?).ok()?;
    let spent = serde_json::from_str(beside.get(SPENT)?).ok()?;
    let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu).ok()?;
    Some((TrainedUnit { tensors, events }, spent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Tensor;

    #[test]
    fn what_is_kept_is_found_by_the_same_run_on_the_same_instructions_alone() {
        let folder = tempfile::tempdir().unwrap();
        let watch = Stopwatch::beside_others();
        let partial = |id: &str, on: &str| Partial::new(folder.path(), id, on, &watch);
        let events =
            vec![Event::Unit { index: 3, count: 9, name: "stem".into() }, Event::PhaseEnded { wall_s: f64::MAX }];
        let scale = Tensor::from_slice(&[0.1f32, f32::MIN_POSITIVE], 2, &Device::Cpu).unwrap();
        let tensors = HashMap::from([("weight.0.scale".to_string(), scale.clone())]);
        partial("a", "AVX2").keep("weights", 3, TrainedUnit { tensors, events: events.clone() });
        let again = partial("a", "AVX2");
        let found = again.find("weights", 3).unwrap();
        assert_eq!(found.events, events);
        assert_eq!(found.tensors["weight.0.scale"].to_vec1::<f32>().unwrap(), scale.to_vec1::<f32>().unwrap());
        // Time goes on from where it was.
        let before = again.spent.borrow().clone().unwrap();
        assert!(before.wall_s > 0.0 && again.cost().wall_s > before.wall_s);
        for (id, on, phase, index) in [
            ("b", "AVX2", "weights", 3),
            ("a", "NEON", "weights", 3),
            ("a", "AVX2", "acts", 3),
            ("a", "AVX2", "weights", 2),
        ] {
            assert!(partial(id, on).find(phase, index).is_none());
        }
        for entry in std::fs::read_dir(folder.path().join("a")).unwrap() {
            let path = entry.unwrap().path();
            let whole = std::fs::read(&path).unwrap();
            std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        }
        assert!(again.find("weights", 3).is_none());
    }
}

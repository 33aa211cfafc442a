//! What a run has trained so far, kept until it is done: a run that was interrupted, or whose process died, goes on from there.

use super::usage::Stopwatch;
use crate::disk::cache::Cache;
use crate::store::record::Cost;
use candle_core::Device;
use ptq::quantize::resume::{TrainedUnit, TrainedUnits};
use ptq::recon::midway::{Midway, Midways, Place, Tensors};
use safetensors::SafeTensors;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

/// Version of an entry's content.
const FORMAT: u32 = 1;
/// Names of what entries keep beside tensors, each as JSON.
const EVENTS: &str = "events";
const LOOPS: &str = "loops";
const SPENT: &str = "spent";
/// The part of a run's folder that is about the unit which is being trained.
const MIDWAY: &str = "midway";

/// Where runs that are interrupted leave what they have trained.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    pub folder: PathBuf,
    /// Between two in the middle of the same unit.
    pub every: Duration,
}

impl Checkpoints {
    pub const EVERY: Duration = Duration::from_secs(60);
}

/// The entries of one run, in a folder of its own: one per phase and unit, and in a folder in that what the present unit goes on from.
pub struct Partial<'a> {
    cache: Cache,
    midway: Cache,
    midway_folder: PathBuf,
    every: Duration,
    /// All that an entry depends on beside its phase and unit.
    key: String,
    stopwatch: &'a Stopwatch,
    /// What the attempts before this one took for the entries that were found.
    spent: RefCell<Option<Cost>>,
}

impl<'a> Partial<'a> {
    /// Of the run `run_id`; `computed_on` says what its last bits depend on beside its id.
    pub fn new(
        Checkpoints { folder, every }: &Checkpoints,
        run_id: &str,
        computed_on: &str,
        stopwatch: &'a Stopwatch,
    ) -> Self {
        // Another build may compute something else, although nobody has said so by a revision.
        let build = concat!(env!("CARGO_PKG_VERSION"), " ", env!("HARNESS_GIT_REVISION"));
        let key = format!("{FORMAT}\n{run_id}\n{build}\n{computed_on}");
        let (folder, every, spent) = (folder.join(run_id), *every, RefCell::default());
        let midway_folder = folder.join(MIDWAY);
        let midway = Cache::new(midway_folder.clone());
        Self { cache: Cache::new(folder), midway, midway_folder, every, key, stopwatch, spent }
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
        let (tensors, events, spent) = read(&self.cache.get(&self.key(phase, index))?, EVENTS)?;
        *self.spent.borrow_mut() = Some(spent);
        Some(TrainedUnit { tensors, events })
    }

    /// Where it cannot be written there is only less to go on from.
    fn keep(&self, phase: &str, index: usize, unit: TrainedUnit) {
        if let Some(bytes) = written(&unit.tensors, (EVENTS, &unit.events), &self.cost()) {
            self.cache.put(&self.key(phase, index), &bytes);
        }
        std::fs::remove_dir_all(&self.midway_folder).ok();
    }
}

impl Midways for Partial<'_> {
    fn every(&self) -> Duration {
        self.every
    }

    fn find_midway(&self, place: Place) -> Option<Midway> {
        let (tensors, loops, spent) = read(&self.midway.get(&self.midway_key(place))?, LOOPS)?;
        if place.batch.is_none() {
            *self.spent.borrow_mut() = Some(spent);
        }
        Some(Midway { tensors, loops })
    }

    fn keep_midway(&self, place: Place, midway: &Midway) {
        if let Some(bytes) = written(&midway.tensors, (LOOPS, &midway.loops), &self.cost()) {
            self.midway.put(&self.midway_key(place), &bytes);
        }
    }
}

impl Partial<'_> {
    fn midway_key(&self, Place { phase, index, batch }: Place) -> String {
        let batch = batch.map_or(String::new(), |batch| format!(", rows {batch}"));
        format!("{}, midway{batch}", self.key(phase, index))
    }
}

fn written(tensors: &Tensors, (name, beside): (&str, &impl Serialize), spent: &Cost) -> Option<Vec<u8>> {
    let beside = [(name, serde_json::to_string(beside).ok()?), (SPENT, serde_json::to_string(spent).ok()?)];
    let beside = beside.map(|(name, json)| (name.to_string(), json));
    safetensors::serialize(tensors, Some(HashMap::from(beside))).ok()
}

fn read<T: DeserializeOwned>(bytes: &[u8], name: &str) -> Option<(Tensors, T, Cost)> {
    let (_, header) = SafeTensors::read_metadata(bytes).ok()?;
    let beside = header.metadata().as_ref()?;
    let of_name = serde_json::from_str(beside.get(name)?).ok()?;
    let spent = serde_json::from_str(beside.get(SPENT)?).ok()?;
    let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu).ok()?;
    Some((tensors, of_name, spent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Tensor;
    use ptq::recon::event::{Event, Point};
    use ptq::recon::midway::SoFar;

    #[test]
    fn what_is_kept_is_found_by_the_same_run_on_the_same_instructions_alone() {
        let folder = tempfile::tempdir().unwrap();
        let watch = Stopwatch::beside_others();
        let checkpoints = Checkpoints { folder: folder.path().into(), every: Checkpoints::EVERY };
        let partial = |id: &str, on: &str| Partial::new(&checkpoints, id, on, &watch);
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

    #[test]
    fn what_the_middle_of_a_unit_leaves_goes_when_the_unit_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let watch = Stopwatch::beside_others();
        let checkpoints = Checkpoints { folder: folder.path().into(), every: Duration::ZERO };
        let partial = Partial::new(&checkpoints, "a", "AVX2", &watch);
        let value = Tensor::new(&[f64::INFINITY, 0.1 + 0.2], &Device::Cpu).unwrap();
        let points = vec![Point::of_loss(2, 0.1 + 0.2), Point::of_loss(3, f64::NAN)];
        let so_far = SoFar { unit: "stem".into(), phase: "meta".into(), steps: 3, points, wall_s: 0.1 };
        let midway = Midway { tensors: HashMap::from([("0.schedule".into(), value)]), loops: vec![so_far] };
        let place = Place { phase: "weights", index: 3, batch: None };
        let rows = Place { batch: Some(0), ..place };
        partial.keep_midway(place, &midway);
        partial.keep_midway(rows, &Midway::default());
        let again = Partial::new(&checkpoints, "a", "AVX2", &watch);
        let found = again.find_midway(place).unwrap();
        assert_eq!(found.tensors["0.schedule"].to_vec1::<f64>().unwrap(), [f64::INFINITY, 0.1 + 0.2]);
        assert_eq!((found.loops[0].steps, found.loops[0].points[0].loss), (3, 0.1 + 0.2));
        assert!(again.spent.borrow().is_some() && again.find_midway(rows).unwrap().loops.is_empty());
        assert!(again.find_midway(Place { index: 2, ..place }).is_none());
        partial.keep("weights", 3, TrainedUnit { tensors: HashMap::new(), events: Vec::new() });
        assert!(partial.find_midway(place).is_none() && partial.find_midway(rows).is_none());
        assert_eq!(std::fs::read_dir(folder.path().join("a")).unwrap().count(), 1);
    }
}

//! Interrupted in the middle of units, a reconstruction ends with the bits and losses of one that was not.

use super::added::Added;
use super::resume::{TrainedUnit, TrainedUnits};
use super::*;
use crate::arch;
use crate::arch::layout::TORCHVISION;
use crate::graph::fold_bn::fold_bn;
use crate::meta::config::Meta;
use crate::meta::nets::Transform;
use crate::meta::terms::Terms;
use crate::meta::train::Trainable;
use crate::meta::warm_up::untrained;
use crate::methods::METHODS;
use crate::ops::check::noise;
use crate::ops::tape::tests::detours;
use crate::recipe::RangeSearch;
use crate::recon::event::Event;
use crate::recon::midway::{Midway, Midways, Place};
use crate::recon::trace::{Traces, UnitTrace};
use candle_core::{DType, Device};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const IMAGES: usize = 8;
const CORRECTIONS: usize = 3;

/// Of a phase, a unit, and a batch of its rows.
type Moment = (String, usize, Option<usize>);

/// Values of quantizers, and losses of units.
type End = (Vec<u32>, Vec<UnitTrace>);

/// Keeps everything in memory; nothing new of the middle of a unit once the process is `killed`.
#[derive(Default)]
struct Kept {
    units: Mutex<HashMap<(String, usize), TrainedUnit>>,
    midway: Mutex<HashMap<Moment, Midway>>,
    killed: AtomicBool,
}

impl TrainedUnits for Kept {
    fn find(&self, phase: &str, index: usize) -> Option<TrainedUnit> {
        let units = self.units.lock().unwrap();
        let TrainedUnit { tensors, events } = units.get(&(phase.to_string(), index))?;
        Some(TrainedUnit { tensors: tensors.clone(), events: events.clone() })
    }

    fn keep(&self, phase: &str, index: usize, unit: TrainedUnit) {
        self.units.lock().unwrap().insert((phase.to_string(), index), unit);
        self.midway.lock().unwrap().clear();
    }
}

impl Midways for Kept {
    fn every(&self) -> Duration {
        Duration::ZERO
    }

    fn find_midway(&self, Place { phase, index, batch }: Place) -> Option<Midway> {
        self.midway.lock().unwrap().get(&(phase.to_string(), index, batch)).cloned()
    }

    fn keep_midway(&self, Place { phase, index, batch }: Place, midway: &Midway) {
        if !self.killed.load(Ordering::Relaxed) {
            self.midway.lock().unwrap().insert((phase.to_string(), index, batch), midway.clone());
        }
    }
}

/// Quantizes by `recipe`, with a transform network if there is `meta`; stops after so many steps.
///
/// Gives values of quantizers and losses of units, if it came to its end, and how many steps it made.
fn attempt(
    recipe: &Recipe,
    meta: Option<&Meta>,
    kept: Option<&Kept>,
    (stop_after, is_killed): (usize, bool),
) -> (Option<End>, usize) {
    let arch = arch::find("resnet20").unwrap();
    let tensors = arch::made_up::tensors(arch, &TORCHVISION).unwrap();
    let trained = arch::load(arch, tensors, "made-up", &Device::Cpu).unwrap();
    let images = noise((IMAGES, 1, 28, 28), 3, DType::F32);
    let network = fold_bn(&trained, recipe.batch_norm).unwrap();
    let config = Transform { base: 2, depth: 1, ..Transform::published() };
    let net = untrained(&config, &images, Stream::new(1)).unwrap();
    let terms = Terms::published();
    let transform = meta.map(|meta| Trainable { net: &net, meta, terms: &terms });
    let added = Added { transform, labels: &[0, 1, 2, 3, 4, 5, 6, 7], ..Added::default() };
    let memory = Memory::unlimited();
    let calib = Calibration { images: &images, memory: &memory, trained: &trained, added };
    let (traces, steps, cancelled) = (Traces::default(), AtomicUsize::new(0), AtomicBool::new(false));
    let observe = |event: Event| {
        if let Event::Step { .. } = event
            && steps.fetch_add(1, Ordering::Relaxed) + 1 == stop_after
        {
            cancelled.store(true, Ordering::Relaxed);
            if let Some(kept) = kept.filter(|_| is_killed) {
                kept.killed.store(true, Ordering::Relaxed);
            }
        }
        traces.note(&event);
    };
    let control = Control { observe: &observe, cancelled: &cancelled };
    let model = prepare(&network, &images, (Bits { w: 2, a: 2 }, Setting::Qdrop), recipe).unwrap();
    let kept = kept.map(|kept| kept as &dyn TrainedUnits);
    let ended = match reconstruct(model, &calib, recipe, 0, kept, &control) {
        Ok(model) => {
            let values = model.units.iter().flat_map(|unit| {
                let weights = unit.weights.iter().flatten();
                let vars = weights.flat_map(|weight| std::iter::once(&weight.scale).chain(&weight.learned));
                vars.chain(unit.acts.iter().map(|act| &act.scale)).cloned().collect::<Vec<_>>()
            });
            let bits = values.flat_map(|var| var.flatten_all().unwrap().to_vec1::<f32>().unwrap()).map(f32::to_bits);
            Some((
                bits.collect(),
                traces.finish().into_iter().map(|trace| UnitTrace { wall_s: 0.0, ..trace }).collect(),
            ))
        }
        Err(crate::Error::Interrupted) => None,
        Err(error) => panic!("{error}"),
    };
    (ended, steps.into_inner())
}

#[track_caller]
fn check(method: &str, recipe: &Recipe, meta: Option<&Meta>) {
    let (undisturbed, all_steps) = attempt(recipe, meta, None, (usize::MAX, false));
    let (values, losses) = undisturbed.unwrap();
    for (is_killed, stop_after) in [(false, 13), (true, 17)] {
        let (kept, mut steps, mut attempts) = (Kept::default(), 0, 0);
        let (own_values, own_losses) = loop {
            kept.killed.store(false, Ordering::Relaxed);
            let (ended, of_attempt) = attempt(recipe, meta, Some(&kept), (stop_after, is_killed));
            (steps, attempts) = (steps + of_attempt, attempts + 1);
            assert!(attempts < 500, "{method} comes to no end");
            if let Some(ended) = ended {
                break ended;
            }
        };
        assert!(own_values == values, "{method}: other values after {attempts} attempts of {stop_after} steps");
        assert_eq!(own_losses, losses, "{method}");
        assert!(attempts > all_steps / stop_after, "{method}: {attempts} attempts");
        // Who is asked to stop loses nothing, but for a batch whose correction has just ended.
        let lost = if recipe.correction_iterations > 0 { CORRECTIONS * attempts } else { 0 };
        assert!(is_killed || steps <= all_steps + lost, "{method}: {steps} steps, not {all_steps}");
    }
}

fn tiny(method: &str) -> Recipe {
    let method = METHODS.iter().find(|known| known.name == method).unwrap();
    let recipe = (method.recipe)(arch::find("resnet20").unwrap());
    Recipe {
        iterations: 5,
        batch: 4,
        act_search_images: IMAGES,
        weight_search: RangeSearch::MinMax,
        act_search: RangeSearch::MinMax,
        correction_iterations: recipe.correction_iterations.min(CORRECTIONS),
        ..recipe
    }
}

#[test]
fn units_of_every_method_go_on_where_they_were() {
    for method in METHODS {
        let recipe = tiny(method.name);
        if recipe.granularity != Granularity::None {
            check(method.name, &recipe, None);
        }
    }
}

#[test]
fn a_transform_network_goes_on_where_it_was_with_its_optimiser() {
    let published = Meta::published(arch::find("resnet20").unwrap());
    // A learning rate that falls soon.
    let meta = Meta { iterations: 4, batch: 4, outer_batch: 4, plateau_patience: 1, ..published };
    check("metaaug", &tiny("metaaug"), Some(&meta));
}

#[test]
fn every_step_of_every_method_notes_what_its_gradients_need() {
    let published = Meta::published(arch::find("resnet20").unwrap());
    let meta = Meta { iterations: 2, batch: 4, outer_batch: 4, ..published };
    for method in METHODS {
        let meta = (method.name == "metaaug").then_some(&meta);
        let whole = || drop(attempt(&tiny(method.name), meta, None, (usize::MAX, false)));
        assert_eq!(detours(whole), 0, "{}", method.name);
    }
}

//! How many cells to run at the same time: small networks do not keep many threads busy.

use super::inputs::Inputs;
use crate::error::{Error, Result};
use crate::experiment::Cell;
use candle_core::DType;
use ptq::arch;
use ptq::graph::Role;
use ptq::graph::fold_bn::fold_bn;
use ptq::graph::forward::through;
use ptq::methods;
use ptq::quant::model::{Mode, QuantModel, QuantUnit};
use ptq::recipe::{Prefix, RangeSearch, Recipe};
use ptq::recon::activations::{Activations, Memory};
use ptq::recon::event::Control;
use ptq::recon::midway::Loops;
use ptq::recon::train::{Phase, Problem, train};
use ptq::rng::Stream;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// How long one measurement may take, about.
const MEASUREMENT: Duration = Duration::from_millis(300);
/// More cells at once cost memory, and are worth it from this ratio of speeds on.
const WORTH_IT: f64 = 1.05;

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jobs {
    /// Cells at the same time.
    pub count: usize,
    /// How many times as much they get done as one at a time.
    pub speed: f64,
}

/// How many of this process's threads each of `jobs` gets: as equal as can be, one at least.
pub fn thread_counts(jobs: usize) -> Vec<usize> {
    let threads = rayon::current_num_threads();
    (0..jobs).map(|job| (threads / jobs + usize::from(job < threads % jobs)).max(1)).collect()
}

/// The threads of this process, in `jobs` pools ([`thread_counts`]).
pub fn thread_pools(jobs: usize) -> Result<Vec<ThreadPool>> {
    let pool = |threads| ThreadPoolBuilder::new().num_threads(threads).build();
    let pools = thread_counts(jobs).into_iter().map(pool).collect::<Result<_, _>>();
    pools.map_err(|error| Error::Usage(format!("cannot start threads: {error}")))
}

/// The fastest of one cell at a time, two with half of the threads each, four, and so on up to `most`; measured on training steps
/// of QDrop for the first and the last block of the network of `cell`, on its images, a second or two in all.
pub fn fastest(cell: &Cell, inputs: &Inputs, most: usize, control: &Control) -> Result<Jobs> {
    let counts = counts(rayon::current_num_threads(), most);
    if counts.len() <= 1 {
        return Ok(best_of(&[]));
    }
    let steps = Steps::new(cell, inputs)?;
    // The first step of all touches memory that is new.
    steps.time(1, 1, control)?;
    let single = steps.time(1, 1, control)?;
    let steps_in_time = (MEASUREMENT.as_secs_f64() / single.as_secs_f64()).clamp(1.0, 200.0) as usize;
    let measured = counts.into_iter().map(|count| {
        let iterations = (steps_in_time / count).max(1);
        Ok((count, (count * iterations) as f64 / steps.time(count, iterations, control)?.as_secs_f64()))
    });
    Ok(best_of(&measured.collect::<Result<Vec<_>>>()?))
}

/// The numbers of cells at the same time that are tried: one with all threads, two with half of them each, and so on.
fn counts(threads: usize, most: usize) -> Vec<usize> {
    let halves = std::iter::successors(Some(threads), |threads| Some(threads / 2)).take_while(|&threads| threads > 0);
    let mut counts: Vec<usize> = halves.map(|of_job| (threads / of_job).min(most.max(1))).collect();
    counts.dedup();
    counts
}

/// The best of `measured`, numbers of cells at the same time with what these get done per second, that of one first.
fn best_of(measured: &[(usize, f64)]) -> Jobs {
    let one_at_a_time = measured.first().map_or(1.0, |(_, per_second)| *per_second);
    measured.iter().fold(Jobs { count: 1, speed: 1.0 }, |best, (count, per_second)| {
        let speed = per_second / one_at_a_time;
        if speed > best.speed * WORTH_IT { Jobs { count: *count, speed } } else { best }
    })
}

/// Training steps as a cell makes them.
struct Steps {
    recipe: Recipe,
    units: Vec<(QuantUnit, Activations, Activations)>,
}

impl Steps {
    fn new(cell: &Cell, inputs: &Inputs) -> Result<Self> {
        let (Some(arch), Some(qdrop)) = (arch::find(&cell.arch), methods::find("qdrop")) else {
            return Err(Error::Usage(format!("there is no architecture {:?}", cell.arch)));
        };
        let search = RangeSearch::MinMax;
        let recipe = Recipe { weight_search: search, act_search: search, ..(qdrop.recipe)(arch) };
        let network = fold_bn(&inputs.network, recipe.batch_norm)?;
        let mut model = QuantModel::new(&network, cell.bits, cell.setting, &recipe)?;
        let images = inputs.calib.images.narrow(0, 0, recipe.batch.min(inputs.calib.images.dim(0)?))?;
        model.search_acts(&images, search, Mode::of_prefix(Prefix::FullPrecision))?;
        let is_block = |index: &usize| model.units[*index].fp.role == Role::Block;
        let blocks: Vec<usize> = (0..model.units.len()).filter(is_block).collect();
        let ends = blocks.first().into_iter().chain(blocks.last().filter(|_| blocks.len() > 1));
        let unlimited = Memory::unlimited();
        let units = ends.map(|&index| {
            let x = through(model.units[..index].iter().map(|unit| &unit.fp), &images)?;
            let y = through(std::iter::once(&model.units[index].fp), &x)?;
            let [x, y] = [x, y].map(|tensor| Activations::new(&tensor.detach(), &unlimited));
            Ok((model.units[index].copy(DType::F32)?, x, y))
        });
        let units = units.collect::<Result<_>>()?;
        Ok(Self { recipe, units })
    }

    /// The time of so many iterations of `jobs` jobs at the same time.
    fn time(&self, jobs: usize, iterations: usize, control: &Control) -> Result<Duration> {
        let pools = thread_pools(jobs)?;
        let ready = Barrier::new(jobs + 1);
        let silent = Control { observe: &|_| (), cancelled: control.cancelled };
        let run = |pool: &ThreadPool| -> Result<()> {
            // Jobs train units of their own.
            let units = self.units.iter().map(|(unit, x, y)| Ok((unit.copy(DType::F32)?, x, y)));
            let units = units.collect::<Result<Vec<_>>>();
            ready.wait();
            let phase = Phase { iterations, ..Phase::weights(&self.recipe) };
            units?.iter().try_for_each(|(unit, x, y_fp)| {
                let problem = Problem { unit, x_fp: x, x_q: x, y_fp, loss_weight: None, prediction: None };
                Ok(pool.install(|| train(&problem, &phase, Stream::new(0), &silent, &Loops::unkept()))?)
            })
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = pools.iter().map(|pool| scope.spawn(|| run(pool))).collect();
            ready.wait();
            let started = Instant::now();
            let panicked = |_| Err(Error::Panicked("while jobs were timed".to_string()));
            threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(panicked))?;
            Ok(started.elapsed())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Hub;
    use crate::launch::Loader;
    use crate::store::record::Record;
    use candle_core::Device;
    use std::sync::atomic::AtomicBool;

    static RUNNING: AtomicBool = AtomicBool::new(false);
    static CONTROL: Control = Control { observe: &|_| (), cancelled: &RUNNING };

    #[test]
    fn pools_share_the_threads() {
        let threads = |of_process: usize, jobs: usize| -> Vec<usize> {
            let process = ThreadPoolBuilder::new().num_threads(of_process).build().unwrap();
            let pools = process.install(|| thread_pools(jobs)).unwrap();
            pools.iter().map(ThreadPool::current_num_threads).collect()
        };
        assert_eq!(threads(7, 3), [3, 2, 2]);
        assert_eq!(threads(2, 3), [1, 1, 1]);
        assert_eq!(threads(4, 1), [4]);
    }

    #[test]
    fn a_count_is_measured_within_its_bounds() {
        let cell = Record::sample("x", "rtn", "W2A2", 0).cell;
        let inputs = Loader::new(&Device::Cpu, Hub::silent()).inputs(&cell).unwrap();
        let pool = ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        pool.install(|| {
            assert_eq!(fastest(&cell, &inputs, 1, &CONTROL).unwrap(), Jobs { count: 1, speed: 1.0 });
            // Which is faster is for the machine to say.
            let jobs = fastest(&cell, &inputs, 2, &CONTROL).unwrap();
            assert!([1, 2].contains(&jobs.count) && jobs.speed.is_finite(), "{jobs:?}");
        });
    }

    #[test]
    fn threads_are_halved_until_none_is_left_or_there_are_enough_jobs() {
        assert_eq!(counts(8, 100), [1, 2, 4, 8]);
        assert_eq!(counts(6, 100), [1, 2, 6]);
        assert_eq!(counts(8, 3), [1, 2, 3]);
        assert_eq!([counts(8, 1), counts(1, 8), counts(8, 0)], [[1], [1], [1]]);
    }

    #[test]
    fn more_cells_at_once_must_be_worth_their_memory() {
        assert_eq!(best_of(&[(1, 10.0), (2, 10.4)]), Jobs { count: 1, speed: 1.0 });
        assert_eq!(best_of(&[(1, 10.0), (2, 15.0), (4, 15.5)]), Jobs { count: 2, speed: 1.5 });
        assert_eq!(best_of(&[(1, 10.0), (2, 8.0), (4, 20.0)]), Jobs { count: 4, speed: 2.0 });
    }
}

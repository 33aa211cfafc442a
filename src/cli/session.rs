//! What several verbs share: a grid with its store and plan.

use super::cache_folder;
use super::download::hub;
use super::shard::{self, Shard};
use super::stored::warn_of_broken;
use crate::error::{Error, Result};
use crate::experiment::filter::Subject;
use crate::experiment::{Cell, Experiment, Filter, Hashes, Options, SMOKE_SUFFIX};
use crate::hub::{Hub, HubSettings};
use crate::launch::Loader;
use crate::store::{Planned, plan};
use crate::store::{Scan, Store, Stored};
use candle_core::Device;
use clap::Args;
use indicatif::HumanBytes;
use ptq::ops::precision::Precision;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A grid and what the command line changes in it.
#[derive(Args, Clone)]
pub struct GridArgs {
    /// Grid file.
    pub grid: PathBuf,
    /// Only cells that match, for example `method(qdrop | genie-*) & status(failed)` (see `harness help list`).
    #[arg(long, value_name = "FILTER")]
    pub filter: Option<String>,
    /// Only part I of N of the grid's cells: the Ith, the one N after it, and so on, as `harness plan` lists all of them. The parts have no cell in
    /// common and together are the grid, whatever is stored; a filter chooses among those of a part.
    #[arg(long, value_name = "I/N", value_parser = shard::parse)]
    pub shard: Option<Shard>,
    /// Override a field of every cell, for example `recipe.iterations=100`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// On NVIDIA GPUs, round factors of products to TensorFloat-32: faster, with other results and run ids (`--set precision=tf32`).
    #[arg(long)]
    pub tf32: bool,
    /// Apply the grid's [smoke] section: a form of the experiment that takes seconds.
    #[arg(long)]
    pub smoke: bool,
    /// Expand the grid even if it makes more than 20,000 cells.
    #[arg(long)]
    pub many_cells: bool,
    #[command(flatten)]
    pub results: ResultsArgs,
    /// Only cells of these run ids.
    #[arg(skip)]
    pub only: Option<BTreeSet<String>>,
}

impl GridArgs {
    /// All of a grid as it is written.
    pub fn of(grid: &Path, results: &ResultsArgs) -> Self {
        let (grid, results) = (grid.to_path_buf(), results.clone());
        let (filter, shard, set) = (None, None, Vec::new());
        Self { grid, filter, shard, set, tf32: false, smoke: false, many_cells: false, results, only: None }
    }

    /// The grid with what the command line changes in it; all cells of its part.
    pub fn read(&self) -> Result<Experiment> {
        let mut set = self.set.clone();
        set.extend(self.tf32.then(|| format!("precision={}", Precision::Tf32)));
        let options = Options { smoke: self.smoke, set, many_cells: self.many_cells };
        let mut experiment = Experiment::read(&self.grid, &options)?;
        if let Some(shard) = self.shard {
            experiment.cells = shard.of(experiment.cells);
        }
        Ok(experiment)
    }
}

/// Where results are.
#[derive(Args, Clone)]
pub struct ResultsArgs {
    /// Folder of results.
    #[arg(long, value_name = "DIR", default_value = "results", env = "HARNESS_RESULTS")]
    pub results: PathBuf,
}

/// A grid, read, with its stored runs.
pub struct Session {
    pub experiment: Experiment,
    pub store: Store,
    pub plan: Vec<Planned>,
    pub loader: Loader,
}

impl Session {
    /// Reads the grid and the stored runs, and compares them. Runs that cannot be read are named on stderr.
    pub fn open(args: &GridArgs, device: &Device) -> Result<Self> {
        Self::open_quietly(args, device, false)
    }

    /// The same, downloading in silence if `quiet`.
    pub fn open_quietly(args: &GridArgs, device: &Device, quiet: bool) -> Result<Self> {
        Self::with_hashes(args, loader(device, quiet), |loader, cell| loader.hashes(cell).map(Some))
    }

    /// The same, downloading no data: those that are not here count as those of the stored runs, if there are any.
    pub fn without_downloads(args: &GridArgs) -> Result<Self> {
        Self::with_hashes(args, loader(&Device::Cpu, false), |loader, cell| match lacks_data(loader, cell)? {
            true => Ok(None),
            false => loader.hashes(cell).map(Some),
        })
    }

    /// Prints what its cells need of data on the Hub that is not here.
    pub fn say_lacking(&mut self) -> Result<()> {
        let mut lines = BTreeSet::new();
        let hub = self.loader.hub();
        for planned in &self.plan {
            // What cannot be had was named when it was looked for.
            if let Ok(Some(needed)) = self.loader.on_hub(&planned.cell) {
                let (files, bytes) = needed.lacking(&hub)?;
                let (set, test, pool, of) = (&needed.set, needed.test.len(), needed.pool.len(), needed.of);
                lines.extend((files > 0).then(|| {
                    format!(
                        "{set}: {files} files to download, {} ({test} of {test} shards of the test split, {pool} of {of} of the \
                         training split)",
                        HumanBytes(bytes)
                    )
                }));
            }
        }
        lines.iter().for_each(|line| say!("{line}"));
        Ok(())
    }

    /// The same without a look at weights and data: they count as those of the stored runs.
    pub fn of_stored(args: &GridArgs) -> Result<Self> {
        Self::with_hashes(args, loader(&Device::Cpu, true), |_, _| Ok(None))
    }

    /// The same with a look at weights and data where they are on this machine; what is missing is named on stderr.
    pub fn of_what_is_here(args: &GridArgs) -> Result<Self> {
        let hub = Hub::new(HubSettings { offline: true, ..HubSettings::from_env() }, Arc::new(|_| ()));
        let mut missing = BTreeSet::new();
        Self::with_hashes(args, remembering(Loader::new(&Device::Cpu, hub)), |loader, cell| {
            let hashes = loader.hashes(cell);
            if let Err(error) = &hashes
                && missing.insert(error.to_string())
            {
                tell!("note: compared without weights and data, which are not here: {error}");
            }
            Ok(hashes.ok())
        })
    }

    fn with_hashes(
        args: &GridArgs,
        mut loader: Loader,
        mut hashes: impl FnMut(&mut Loader, &Cell) -> Result<Option<Hashes>>,
    ) -> Result<Self> {
        let mut experiment = args.read()?;
        let filter = args.filter.as_deref().map(Filter::parse).transpose()?;
        if let Some(filter) = &filter {
            // Weights and data of cells that are left out anyway are not looked for.
            experiment.cells = filter.select_possible(experiment.cells)?;
        }
        if let Some(ids) = &args.only {
            let slugs: HashSet<&str> = ids.iter().filter_map(|id| Some(id.rsplit_once('-')?.0)).collect();
            experiment.cells.retain(|cell| slugs.contains(cell.slug().as_str()));
        }
        let store = Store::new(&args.results.results, &experiment.name);
        let scan = store.scan()?;
        warn_of_broken(&scan.broken);
        let mut unready = Unready::default();
        let cells = experiment.cells.clone();
        let mut plan = plan(cells, &scan.records, |cell| unready.or(cell, |cell| hashes(&mut loader, cell)))?;
        unready.tell(plan.len())?;
        if let Some(ids) = &args.only {
            plan.retain(|planned| ids.contains(&planned.id.to_string()));
            experiment.cells = plan.iter().map(|planned| planned.cell.clone()).collect();
        }
        if let Some(filter) = &filter {
            plan = selected(filter, plan, &store, scan)?;
            experiment.cells = plan.iter().map(|planned| planned.cell.clone()).collect();
        }
        Ok(Self { experiment, store, plan, loader })
    }

    /// Refuses to mix two experiments in one folder: runs stored there by another grid file that still has this name.
    pub fn refuse_namesake(&self) -> Result<()> {
        let own = self.experiment.path.canonicalize().ok();
        let name = self.experiment.name.strip_suffix(SMOKE_SUFFIX).unwrap_or(&self.experiment.name);
        let records = self.store.scan()?.records;
        let mut others: Vec<&str> = records.iter().map(|record| record.provenance.grid.as_str()).collect();
        others.sort_unstable();
        others.dedup();
        let is_namesake = |grid: &&str| {
            let path = Path::new(grid);
            let is_other = path.canonicalize().is_ok_and(|path| Some(path) != own);
            is_other && Experiment::name_of(path).as_deref() == Some(name)
        };
        match others.into_iter().find(is_namesake) {
            None => Ok(()),
            Some(other) => Err(Error::Usage(format!(
                "two experiments are called {:?}: {} and {other}, whose runs are in {}; rename one, or give --results",
                self.experiment.name,
                self.experiment.path.display(),
                self.store.folder().display()
            ))),
        }
    }
}

/// Whether `cell` needs data on the Hub that are not here.
pub fn lacks_data(loader: &mut Loader, cell: &Cell) -> Result<bool> {
    let hub = loader.hub();
    let Some(needed) = loader.on_hub(cell)? else { return Ok(false) };
    Ok(needed.lacking(&hub)?.0 > 0)
}

/// Cells whose weights or data cannot be read: they fail when they run, and the others do not.
#[derive(Default)]
struct Unready {
    cells: usize,
    /// By what cells name of their inputs.
    problems: BTreeMap<Vec<String>, Error>,
}

impl Unready {
    /// The hashes of the inputs of `cell`. Those that were found to be unreadable are not asked for again.
    fn or(&mut self, cell: &Cell, hashes: impl FnOnce(&Cell) -> Result<Option<Hashes>>) -> Result<Option<Hashes>> {
        let data = cell.data.clone().unwrap_or_default();
        let inputs = vec![cell.arch.clone(), cell.weights.clone(), cell.dataset.clone(), data];
        if let Entry::Vacant(problem) = self.problems.entry(inputs) {
            match hashes(cell) {
                Ok(hashes) => return Ok(hashes),
                Err(error) => problem.insert(error),
            };
        }
        self.cells += 1;
        Ok(Some(Hashes::unreadable(cell)))
    }

    /// Names on standard error what `cells` cells lack. Errors: all of them lack something, so that there is nothing to do.
    fn tell(self, cells: usize) -> Result<()> {
        let lacking = self.cells;
        let mut problems = self.problems.into_values();
        if lacking == cells
            && let Some(problem) = problems.next()
        {
            return Err(problem);
        }
        problems.for_each(|problem| tell!("warning: some of the {lacking} cells that will fail: {problem}"));
        Ok(())
    }
}

/// A cell of a plan with its stored run, if there is one.
struct Candidate {
    planned: Planned,
    stored: Option<Stored>,
}

impl Subject for Candidate {
    const CALLED: &'static str = "cells";

    fn knows(_: &str) -> bool {
        true
    }

    fn values(&self, name: &str) -> Option<Vec<String>> {
        match (name, &self.stored) {
            ("status", _) => Some(vec![self.planned.state.name().to_string()]),
            ("run", _) => Some(vec![self.planned.id.to_string()]),
            (name, Some(stored)) => stored.values(name),
            (name, None) => Some(self.planned.cell.field_values(name)),
        }
    }
}

/// The cells of `plan` that match, by what is stored of them too.
fn selected(filter: &Filter, plan: Vec<Planned>, store: &Store, scan: Scan) -> Result<Vec<Planned>> {
    let experiment = store.folder().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut records: HashMap<String, _> =
        scan.records.into_iter().map(|record| (record.run_id.clone(), record)).collect();
    let candidates = plan.into_iter().map(|planned| {
        let id = planned.id.to_string();
        let stored = records.remove(&id).map(|record| Stored::read(&experiment, store.run_folder(&id), record));
        Candidate { planned, stored }
    });
    let selected = filter.select(candidates.collect())?;
    Ok(selected.into_iter().map(|candidate| candidate.planned).collect())
}

/// Loads on `device`, remembering in the cache folder, if there is one, what takes long to read; downloads in silence if
/// `quiet`.
pub fn loader(device: &Device, quiet: bool) -> Loader {
    remembering(Loader::new(device, hub(quiet)))
}

/// Another loader of what `loader` loads, on `device`.
pub fn loader_beside(loader: &Loader, device: &Device) -> Loader {
    remembering(Loader::new(device, loader.hub()))
}

/// `loader` with the cache folder, if there is one.
fn remembering(loader: Loader) -> Loader {
    match cache_folder::kept() {
        Some(folder) => loader.remembering(&folder),
        None => loader,
    }
}

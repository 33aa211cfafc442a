//! What several verbs share: a grid with its store and plan.

use super::download::hub;
use crate::error::{Error, Result};
use crate::experiment::{Experiment, Filter, Options, Planned, plan};
use crate::launch::Loader;
use crate::store::Store;
use candle_core::Device;
use clap::Args;
use std::path::PathBuf;

/// A grid and what the command line changes in it.
#[derive(Args, Clone)]
pub struct GridArgs {
    /// Grid file.
    pub grid: PathBuf,
    /// Only cells that match, for example `method=qdrop|genie-*,bits=w2a2`.
    #[arg(long, value_name = "KEY=VALUE,...")]
    pub filter: Option<String>,
    /// Override a field of every cell, for example `recipe.iterations=100`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Apply the grid's [smoke] section: a form of the experiment that takes seconds.
    #[arg(long)]
    pub smoke: bool,
    #[command(flatten)]
    pub results: ResultsArgs,
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
        Self::with_loader(args, Loader::new(device, hub(false)))
    }

    /// The same, downloading in silence if `quiet`.
    pub fn open_quietly(args: &GridArgs, device: &Device, quiet: bool) -> Result<Self> {
        Self::with_loader(args, Loader::new(device, hub(quiet)))
    }

    fn with_loader(args: &GridArgs, mut loader: Loader) -> Result<Self> {
        let mut experiment = Experiment::read(&args.grid, &Options { smoke: args.smoke, set: args.set.clone() })?;
        if let Some(filter) = &args.filter {
            experiment.cells = Filter::parse(filter)?.select(experiment.cells)?;
        }
        let store = Store::new(&args.results.results, &experiment.name);
        let scan = store.scan()?;
        for (path, why) in &scan.broken {
            eprintln!("warning: skipping {}: {why}", path.display());
        }
        let plan = plan(experiment.cells.clone(), &scan.records, |cell| loader.hashes(cell))?;
        Ok(Self { experiment, store, plan, loader })
    }
}

/// The folder for what is worth keeping between experiments: `$HARNESS_CACHE`, `$XDG_CACHE_HOME/metaaug` or
/// `~/.cache/metaaug`.
pub fn cache_folder() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("HARNESS_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("metaaug")))
        .or_else(|| variable("HOME").map(|folder| folder.join(".cache/metaaug")))
        .ok_or_else(|| Error::Usage("no cache folder: set HARNESS_CACHE".to_string()))
}

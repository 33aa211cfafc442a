//! `harness fetch`.

use super::Exit;
use super::download::hub;
use super::session::GridArgs;
use crate::assets::source::WeightsSource;
use crate::error::{Error, Result};
use crate::experiment::{Cell, Experiment, Filter, Options};
use crate::hub::{Fetched, Hub};
use std::collections::BTreeSet;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    grid: GridArgs,
}

/// Downloads what the cells need from the Hub, into the cache, and lists it.
pub fn fetch(args: &Args) -> Result<Exit> {
    let grid = &args.grid;
    let mut experiment = Experiment::read(&grid.grid, &Options { smoke: grid.smoke, set: grid.set.clone() })?;
    if let Some(filter) = &grid.filter {
        experiment.cells = Filter::parse(filter)?.select(experiment.cells)?;
    }
    let hub = hub(false);
    let files = weights(&experiment.cells, &hub)?;
    for fetched in &files {
        let (_, sha256) = fetched.read()?;
        say!("{sha256}  {}", fetched.file);
    }
    say!("{} files of the Hub in {}", files.len(), hub.settings().cache.display());
    Ok(Exit::Done)
}

/// The weights of `cells` that are on the Hub, each with the description of its preprocessing if there is one.
fn weights(cells: &[Cell], hub: &Hub) -> Result<Vec<Fetched>> {
    let specs: BTreeSet<&str> = cells.iter().map(|cell| cell.weights.as_str()).collect();
    let mut files = Vec::new();
    for spec in specs {
        if let WeightsSource::Hub { file, .. } = WeightsSource::parse(spec).map_err(Error::Usage)? {
            let weights = hub.fetch(&file)?;
            let config = hub.fetch_if_there(&weights.file.config())?;
            files.push(weights);
            files.extend(config);
        }
    }
    Ok(files)
}

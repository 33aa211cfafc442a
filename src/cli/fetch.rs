//! `harness fetch`.

use super::Exit;
use super::download::hub;
use super::session::GridArgs;
use crate::assets::source::WeightsSource;
use crate::data::hub_set::HubSet;
use crate::data::hub_shards::{HubShards, images_to_draw_from};
use crate::error::{Error, Result};
use crate::experiment::{Cell, Filter};
use crate::hub::{Fetched, HUB_PREFIX, Hub};
use std::collections::{BTreeMap, BTreeSet};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    grid: GridArgs,
}

/// Downloads what the cells need from the Hub, into the cache, and lists it.
pub fn fetch(args: &Args) -> Result<Exit> {
    let grid = &args.grid;
    let mut experiment = grid.read()?;
    if let Some(filter) = &grid.filter {
        experiment.cells = Filter::parse(filter)?.select(experiment.cells)?;
    }
    let hub = hub(false);
    let mut files = weights(&experiment.cells, &hub)?;
    let needed = data(&experiment.cells, &hub)?;
    for needed in &needed {
        files.extend(hub.fetch_listed(&needed.set.repo, &needed.entries())?);
    }
    let mut seen = BTreeSet::new();
    files.retain(|fetched| seen.insert(fetched.file.clone()));
    for fetched in &files {
        say!("{}  {}", fetched.content_sha256()?, fetched.file);
    }
    for HubShards { set, pool, of, .. } in needed.iter().filter(|needed| needed.is_part()) {
        say!("calibration images of {set} are drawn from {} of its {of} training shards", pool.len());
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

/// What `cells` need of data on the Hub.
fn data(cells: &[Cell], hub: &Hub) -> Result<Vec<HubShards>> {
    let mut sets = BTreeMap::new();
    for cell in cells {
        if let Some(data) = cell.data.as_ref().filter(|data| data.starts_with(HUB_PREFIX)) {
            let set: HubSet = data.parse().map_err(Error::Usage)?;
            sets.insert((set, images_to_draw_from(cell.calib_images)), cell.calib_images);
        }
    }
    sets.into_iter().map(|((set, _), images)| HubShards::choose(&set, images, hub)).collect()
}

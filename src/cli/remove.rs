//! `harness rm` and `harness gc`.

use super::Exit;
use super::bytes;
use super::cache_folder;
use super::session::{GridArgs, ResultsArgs, Session};
use super::stored::warn_of_broken;
use crate::error::{Error, Result};
use crate::launch::Resources;
use crate::store::removal::{Removable, over_limit};
use crate::store::{Query, Store, Stored, experiments, scan_all, select_one};
use comfy_table::{CellAlignment, Table, presets};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  harness rm 'experiment(drop) & status(failed)'            # what would go
  harness rm 'experiment(drop) & status(failed)' --yes
  harness rm resnet20-w2a2-genie-m-s0-0123456789 --yes

Nothing goes without --yes. Runs of an experiment that another harness is running are kept; the exit code is 100 then.")]
pub struct RmArgs {
    /// Run id, the beginning of one, or the folder name of a damaged run; or a filter: all that it selects.
    #[arg(value_name = "RUN|FILTER", required = true)]
    queries: Vec<String>,
    /// Remove; without it, what would go is only listed.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    results: ResultsArgs,
}

/// Removes stored runs.
pub fn rm(args: &RmArgs) -> Result<Exit> {
    let results = &args.results.results;
    carry_out(results, args.yes, |is_first| {
        let mut chosen = Chosen::default();
        for query in &args.queries {
            choose(results, query, is_first, &mut chosen)?;
        }
        Ok(chosen)
    })
}

/// What is to go: of each experiment, and of the cache. No path twice.
#[derive(Default)]
struct Chosen {
    of_experiments: BTreeMap<String, BTreeMap<PathBuf, Removable>>,
    of_cache: Vec<Removable>,
}

impl Chosen {
    fn add(&mut self, experiment: &str, path: PathBuf, why: impl Into<String>) {
        let of_experiment = self.of_experiments.entry(experiment.to_string()).or_default();
        of_experiment.entry(path.clone()).or_insert_with(|| Removable::new(path, why));
    }
}

fn choose(results: &Path, query: &str, is_first: bool, chosen: &mut Chosen) -> Result<()> {
    let runs = match Query::parse(query)? {
        Query::Prefix { .. } => match damaged(results, query)? {
            Some((experiment, folder)) => {
                chosen.add(&experiment, folder, "asked for; its record cannot be read");
                return Ok(());
            }
            None => vec![select_one(results, query)?],
        },
        query => {
            let collection = scan_all(results)?;
            if is_first {
                warn_of_broken(&collection.broken);
            }
            query.select(collection.runs)?
        }
    };
    runs.into_iter().for_each(|run| chosen.add(&run.experiment, run.folder, "asked for"));
    Ok(())
}

/// The folder without a readable record that is called `name`, or `experiment/name`.
fn damaged(results: &Path, name: &str) -> Result<Option<(String, PathBuf)>> {
    for experiment in experiments(results)? {
        for (folder, _) in Store::new(results, &experiment).scan()?.broken {
            let own = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name == own || name == format!("{experiment}/{own}") {
                return Ok(Some((experiment, folder)));
            }
        }
    }
    Ok(None)
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  harness gc                                          # what would go
  harness gc --yes
  harness gc experiments/fashion/methods.toml --yes   # also what that grid does not make any more
  harness gc --cache-limit 500MB --yes

What goes: failed runs; runs done by another revision of their method, or of a module that it uses; what interrupted runs
left half-written; what the harness keeps in the cache, the least recently used first, until the rest fits. Runs with a tag or a note stay
(`harness rm` takes them), as do folders that cannot be read and experiments that another harness is running; for the last
the exit code is 100.")]
pub struct GcArgs {
    /// Grid files: runs of their experiments that none of their cells make any more go too (those of --set are such).
    #[arg(value_name = "GRID")]
    grids: Vec<PathBuf>,
    /// How large the cache may stay, such as 500MB or 2GiB.
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = bytes::parse)]
    cache_limit: u64,
    /// Remove; without it, what would go is only listed.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    results: ResultsArgs,
}

/// Removes what nobody needs.
pub fn gc(args: &GcArgs) -> Result<Exit> {
    let results = &args.results.results;
    let made: BTreeMap<String, BTreeSet<String>> =
        args.grids.iter().map(|grid| made_by(grid, &args.results)).collect::<Result<_>>()?;
    let parts: Vec<PathBuf> = cache_folder::kept().map(|folder| Resources::parts(&folder)).unwrap_or_default();
    carry_out(results, args.yes, |is_first| {
        let mut chosen = Chosen { of_cache: over_limit(&parts, args.cache_limit), ..Chosen::default() };
        let collection = scan_all(results)?;
        for (path, problem) in collection.broken.iter().filter(|_| is_first) {
            tell!("kept: {}: {problem}; `harness rm` removes it", path.display());
        }
        for run in collection.runs.into_iter().filter(|run| run.annotations.is_empty()) {
            if let Some(why) = obsolete(&run, &made) {
                chosen.add(&run.experiment, run.folder, why);
            }
        }
        for experiment in experiments(results)? {
            for leftover in Store::new(results, &experiment).leftovers()? {
                chosen.add(&experiment, leftover, "left by an interrupted run");
            }
        }
        Ok(chosen)
    })
}

/// The experiment of `grid`, and the ids of the runs that its cells make.
fn made_by(grid: &Path, results: &ResultsArgs) -> Result<(String, BTreeSet<String>)> {
    let args = GridArgs::of(grid, results);
    let session = Session::without_downloads(&args)?;
    Ok((session.experiment.name, session.plan.iter().map(|planned| planned.id.to_string()).collect()))
}

/// Why nobody needs `run`, if so.
fn obsolete(run: &Stored, made: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    match run.status() {
        "failed" => return Some("failed".to_string()),
        "stale" => {
            let outdated = run.outdated().into_iter().map(|old| format!("revision {} of {}", old.then, old.of));
            return Some(format!("done by {}", outdated.collect::<Vec<_>>().join(", ")));
        }
        _ => (),
    }
    let is_made = made.get(&run.experiment).is_none_or(|ids| ids.contains(&run.record.run_id));
    (!is_made).then(|| "no cell of the grid makes it".to_string())
}

/// Lists what `choose` chose; with `yes`, removes it.
///
/// What is chosen is chosen again under the locks of its experiments: a failed run may have succeeded in between. `choose`
/// gets whether it is the first time, at which it names what it skips.
fn carry_out(results: &Path, yes: bool, choose: impl Fn(bool) -> Result<Chosen>) -> Result<Exit> {
    let mut chosen = choose(true)?;
    let mut kept = 0;
    let mut locks = Vec::new();
    for name in chosen.of_experiments.keys().cloned().collect::<Vec<String>>() {
        let store = Store::new(results, &name);
        let is_locked = match yes.then(|| store.lock()) {
            None => store.is_locked(),
            Some(Ok(lock)) => {
                locks.push(lock);
                false
            }
            Some(Err(Error::Usage(_))) => true,
            Some(Err(error)) => return Err(error),
        };
        if is_locked {
            let count = chosen.of_experiments.remove(&name).unwrap_or_default().len();
            tell!("kept: {count} of {name}, which another harness is running");
            kept += count;
        }
    }
    if yes {
        let again = choose(false)?;
        let still = |name: &String, path: &PathBuf| {
            again.of_experiments.get(name).is_some_and(|removables| removables.contains_key(path))
        };
        for (name, removables) in &mut chosen.of_experiments {
            removables.retain(|path, _| still(name, path));
        }
    }
    let removables: Vec<&Removable> =
        chosen.of_experiments.values().flat_map(BTreeMap::values).chain(&chosen.of_cache).collect();
    if yes {
        removables.iter().try_for_each(|removable| removable.remove())?;
    }
    print(&removables, yes);
    Ok(if kept == 0 { Exit::Done } else { Exit::SomeFailed })
}

fn print(removables: &[&Removable], yes: bool) {
    if removables.is_empty() {
        say!("nothing to remove");
        return;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["path", "size", "why"]);
    for removable in removables {
        table.add_row([removable.path.display().to_string(), bytes::shown(removable.bytes), removable.why.clone()]);
    }
    table.column_iter_mut().skip(1).take(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    say!("{table}");
    let total = removables.iter().map(|removable| removable.bytes).sum();
    let (count, size) = (removables.len(), bytes::shown(total));
    match yes {
        true => say!("{count} removed, {size}"),
        false => say!("{count} would be removed, {size}; --yes removes them"),
    }
}

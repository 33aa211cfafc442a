//! `harness export`.

use super::Exit;
use super::bytes;
use super::download::hub;
use super::evaluate::model_folder;
use super::report::scan;
use super::session::{GridArgs, ResultsArgs, Session};
use super::to_server::ToServer;
use super::track::parse;
use super::{stored, terminal};
use crate::assets::source::WeightsSource;
use crate::disk::atomic;
use crate::error::{Error, Result};
use crate::export::hub_folder::{self, Base, license_of};
use crate::export::mlflow::Written;
use crate::export::mlflow::file_store::FileStore;
use crate::export::{Exported, onnx, tensorboard, trackio};
use crate::http::Address;
use crate::hub::RepoKind;
use crate::report::frame::{frame, to_csv};
use crate::store::record::Record;
use crate::store::{Query, SavedModel, Stored};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(after_help = DETAILS)]
pub struct Args {
    /// Grid file (its stored runs), filter, run id or the beginning of one; all stored runs without it.
    #[arg(value_name = "GRID.toml|FILTER|RUN")]
    what: Option<String>,
    #[command(flatten)]
    to: Targets,
    #[command(flatten)]
    results: ResultsArgs,
}

#[derive(clap::Args)]
#[group(required = true, multiple = true)]
struct Targets {
    /// Write to MLflow's file store in this folder (made if missing), or send to the MLflow server at this address: params, metrics with
    /// steps, tags, artefacts.
    #[arg(long, value_name = "DIR|URL")]
    mlflow: Option<String>,
    /// Write TensorBoard event files below this folder: scalars, images, the configuration as text.
    #[arg(long, value_name = "DIR")]
    tensorboard: Option<PathBuf>,
    /// Write to a project of Trackio, NAME.db: configuration, numbers with steps, an alert of a failure. Other runs that are there stay.
    #[arg(long, value_name = "FILE")]
    trackio: Option<PathBuf>,
    /// Write a line per run, accuracies as fractions; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write the records as they are stored; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the quantized network of one run, which must have kept it (`harness run --save-model`), as an ONNX model of operator set 21.
    #[arg(long, value_name = "FILE")]
    onnx: Option<PathBuf>,
    /// Write the quantized network of one run as a folder for the Hugging Face Hub: model card, config.json, model.safetensors, model.onnx.
    #[arg(long, value_name = "DIR")]
    hub: Option<PathBuf>,
}

const DETAILS: &str = "\
Examples:
  harness export --mlflow mlruns
  harness export experiments/quickstart.toml --mlflow http://127.0.0.1:5000
  harness export experiments/quickstart.toml --tensorboard logs --csv quickstart.csv
  harness export --trackio ~/.cache/huggingface/trackio/quantization.db   # trackio show --project quantization
  harness export 'method(qdrop | genie-*) & bits(w2a2)' --json runs.json
  harness export --onnx model.onnx resnet20-w2a4-genie-m-s0       # or the folder of a kept network
  harness export --hub upload resnet20-w2a4-genie-m-s0            # hf upload OWNER/NAME upload

The ONNX model takes images as they are preprocessed (`metadata_props` says how) and gives logits. Weights of up to 4 bits are UINT4, \
others UINT8, activations of fewer than 8 bits are clipped to their levels before a quantizer of 8 bits: the arithmetic is the harness's.

A project of Trackio has the configurations, numbers and failures of runs, not their pictures and files; an experiment is a group of it.

Exporting again changes nothing unless a run changed. A server is sent what it lacks of each run, a kept network of up to 64 MiB too, and \
the end of runs that `harness run --track` did not live to tell it; MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or \
MLFLOW_TRACKING_TOKEN, go with it and nowhere else. MLflow 3.7 and newer read file stores with MLFLOW_ALLOW_FILE_STORE=true set, as in: \
MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri mlruns";

/// How many runs became what.
#[derive(Default)]
struct Count {
    written: usize,
    unchanged: usize,
    skipped: usize,
}

/// Writes the selected runs.
pub fn export(args: &Args) -> Result<Exit> {
    if args.to.onnx.is_some() || args.to.hub.is_some() {
        write_network(args)?;
        if !args.to.is_of_records() {
            return Ok(Exit::Done);
        }
    }
    let stored = selected(args)?;
    let records: Vec<Record> = stored.iter().map(|run| run.record.clone()).collect();
    if let Some(path) = &args.to.csv {
        write(path, &to_csv(frame(&records)?)?, records.len())?;
    }
    if let Some(path) = &args.to.json {
        let mut json = serde_json::to_vec_pretty(&records)
            .map_err(|error| Error::Report(format!("cannot write records as JSON: {error}")))?;
        json.push(b'\n');
        write(path, &json, records.len())?;
    }
    let mut skipped = 0;
    if let Some(to) = &args.to.mlflow {
        let (count, to) = match Address::is_meant(to) {
            true => send(to, &stored, &args.results.results)?,
            false => {
                let mut store = FileStore::open(Path::new(to))?;
                (each(&stored, |run| Ok(store.write(run)? != Written::Unchanged))?, to.clone())
            }
        };
        say!("MLflow: {} runs written to {to}, {} unchanged", count.written, count.unchanged);
        skipped += count.skipped;
    }
    if let Some(path) = &args.to.trackio {
        skipped += write_trackio(path, &stored)?;
    }
    if let Some(folder) = &args.to.tensorboard {
        let count = each(&stored, |run| tensorboard::write(folder, run).map(|_| true))?;
        say!("TensorBoard: {} runs written to {}", count.written, folder.display());
        skipped += count.skipped;
    }
    Ok(if skipped > 0 { Exit::SomeFailed } else { Exit::Done })
}

/// Sends the runs to the server at `address`; also how that is shown.
fn send(address: &str, stored: &[Stored], results: &Path) -> Result<(Count, String)> {
    let mut to_server = ToServer::new(parse("--mlflow", address)?, stored, results)?;
    let mut count = each(stored, |run| Ok(to_server.send(run)? != Some(Written::Unchanged)))?;
    let (refused, shown) = to_server.finish()?;
    (count.written, count.skipped) = (count.written - refused, count.skipped + refused);
    Ok((count, shown))
}

/// Writes the runs to Trackio's project in the file `path`; how many of them cannot be read.
fn write_trackio(path: &Path, stored: &[Stored]) -> Result<usize> {
    let mut project = trackio::Project::open(path)?;
    let count = each(stored, |run| project.write(run))?;
    project.finish()?;
    say!("Trackio: {} runs written to {}, {} unchanged", count.written, path.display(), count.unchanged);
    if trackio::project_name(path).is_none() {
        tell!(
            "note: Trackio finds projects as NAME.db with letters, digits, - and _ in NAME: call the file so before it looks for it"
        );
    }
    Ok(count.skipped)
}

/// Writes `runs` runs to `path`; `-` is standard output.
fn write(path: &Path, content: &[u8], runs: usize) -> Result<()> {
    if path == Path::new("-") {
        terminal::print(content);
        return Ok(());
    }
    atomic::write(path, content)?;
    say!("{runs} runs written to {}", path.display());
    Ok(())
}

impl Targets {
    /// Whether something is to be written of each run.
    fn is_of_records(&self) -> bool {
        self.mlflow.is_some()
            || self.trackio.is_some()
            || self.tensorboard.is_some()
            || self.csv.is_some()
            || self.json.is_some()
    }
}

/// Writes the network of the one run that the command line names.
fn write_network(args: &Args) -> Result<()> {
    let Some(what) = &args.what else {
        return Err(Error::Usage("--onnx and --hub write one network: name its run, or its folder".to_string()));
    };
    let run = model_folder(&args.results.results, what)?;
    let saved = SavedModel::open(&run)?;
    if let Some(path) = &args.to.onnx {
        let file = onnx::file(&saved)?;
        atomic::write(path, &file)?;
        let size = bytes::shown(file.len() as u64);
        say!("ONNX: {} written to {}, {size}", saved.config.run.run_id, path.display());
    }
    if let Some(folder) = &args.to.hub {
        hub_folder::write(folder, &saved, &base(&saved.config.run.cell.weights))?;
        say!("Hub: {} written to {}", run.display(), folder.display());
    }
    Ok(())
}

/// What is known of the network that `weights` of a cell means; a card on the Hub that cannot be had is said.
fn base(weights: &str) -> Base {
    let file = match WeightsSource::parse(weights) {
        // Trained here, and under either of two licences.
        Ok(WeightsSource::Embedded) => return Base { model: None, license: Some("apache-2.0".to_string()) },
        Ok(WeightsSource::Hub { file, .. }) if file.repo().kind() == RepoKind::Model => file,
        _ => return Base::default(),
    };
    let card = file.repo().file("README.md").map_err(Error::Usage);
    let card = card.and_then(|card| hub(false).fetch_if_there(&card));
    let text = card.and_then(|card| card.map(|card| card.read_to_string()).transpose()).unwrap_or_else(|problem| {
        tell!("warning: the card names no licence, since that of {} cannot be read: {problem}", file.repo());
        None
    });
    Base { model: Some(file.repo().name().to_string()), license: text.as_deref().and_then(license_of) }
}

/// The stored runs that the command line means.
fn selected(args: &Args) -> Result<Vec<Stored>> {
    if let Some(grid) = args.what.as_ref().filter(|what| what.ends_with(".toml")) {
        let grid = GridArgs::of(Path::new(grid), &args.results);
        let session = Session::of_stored(&grid)?;
        let runs = scan(&session)?
            .records
            .into_iter()
            .map(|record| Stored::read(&session.experiment.name, session.store.run_folder(&record.run_id), record));
        let runs: Vec<Stored> = runs.collect();
        return match runs.is_empty() {
            true => Err(Error::NothingMatched(format!(
                "no run of {} is stored; `harness run` runs it",
                session.experiment.path.display()
            ))),
            false => Ok(runs),
        };
    }
    let collection = stored::all(&args.results.results)?;
    if collection.runs.is_empty() {
        let results = args.results.results.display();
        return Err(Error::NothingMatched(format!(
            "no runs are stored under {results}; --results names another folder"
        )));
    }
    match &args.what {
        Some(query) => Query::parse(query)?.select(collection.runs),
        None => Ok(collection.runs),
    }
}

/// Calls `write` (which tells whether it wrote anything) for each run; runs that cannot be read are named and skipped.
fn each(stored: &[Stored], mut write: impl FnMut(&Exported) -> Result<bool>) -> Result<Count> {
    let mut count = Count::default();
    for stored in stored {
        match Exported::read(stored) {
            Ok(run) if write(&run)? => count.written += 1,
            Ok(_) => count.unchanged += 1,
            Err(error) => {
                tell!("warning: skipping {}: {error}", stored.record.run_id);
                count.skipped += 1;
            }
        }
    }
    Ok(count)
}

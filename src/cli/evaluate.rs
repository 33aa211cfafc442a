//! `harness evaluate`.

use super::Exit;
use super::bytes;
use super::cache_folder;
use super::device::device;
use super::download::hub;
use super::session::ResultsArgs;
use super::signals::interruptible;
use super::transformed;
use super::verify::differing;
use crate::assets::checkpoint::load_weights;
use crate::data::{self, Request, Split};
use crate::disk::cache::Cache;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::launch::{self, Loader};
use crate::store::{Predictions, SavedModel, SavedTransform, select_one};
use candle_core::{Device, Tensor};
use comfy_table::{Table, presets};
use ptq::arch;
use ptq::checkpoint::{Layer, layers};
use ptq::graph::Network;
use ptq::graph::fold_bn::fold_bn;
use ptq::ops::device::set_precision;
use ptq::quant::model::{Mode, QuantModel};
use ptq::recon::event::{Control, Event};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  harness run GRID --save-model
  harness evaluate resnet20-w2a4-genie-m-s0
  harness evaluate results/quickstart/runs/resnet20-w2a2-qdrop-s0-0123456789 --split calib
  harness evaluate resnet20-w4a4-qdrop-s0 --dataset mnist --data idx:mnist
  harness evaluate resnet20-w2a2-metaaug-s0 --transformed      # run with --save-model --save-transform

On the images of its own run, the predictions are compared with those that the run stored, which they must equal one by one. The ratio of \
signal to quantization noise compares each layer's weight with the full-precision one, BatchNorm folded as in the run: it needs the \
weights that the run was made from (`weights` of its cell).
--transformed takes the transform network T that the run kept, compares its SHA-256, and applies it to the calibration images: how far it \
moves them, and what the quantized and the full-precision network make of them before and after. T is as its training for the last unit \
left it, and takes images in batches of `meta.batch`, as it did then.
Exit codes: 0 done, and the run's predictions where these are known, 96 the network or the images cannot be read, 100 other predictions.")]
pub struct Args {
    /// Run id, or the beginning of one; or a folder with config.json and model.safetensors.
    #[arg(value_name = "RUN|PATH")]
    what: String,
    /// Other images than the run's: their data set [default: the run's].
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
    /// Where the images lie, as `data` in a grid [default: as in the run].
    #[arg(long, value_name = "LOCATION")]
    data: Option<String>,
    /// The test images, or the sample of training images that the run's seed draws [default: test].
    #[arg(long, value_enum)]
    split: Option<Which>,
    /// Also what networks make of the calibration images that the run's transform network makes.
    #[arg(long)]
    transformed: bool,
    /// Where to compute: auto, cpu or cuda:N.
    #[arg(long, default_value = "auto", env = "HARNESS_DEVICE")]
    device: String,
    #[command(flatten)]
    results: ResultsArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    Test,
    Calib,
}

impl Args {
    /// Errors: transforms are of the calibration images.
    fn which(&self) -> Result<Which> {
        match (self.split, self.transformed) {
            (Some(Which::Test), true) => {
                Err(Error::Usage("--transformed is of the calibration images: leave out --split test".to_string()))
            }
            (_, true) => Ok(Which::Calib),
            (split, false) => Ok(split.unwrap_or(Which::Test)),
        }
    }
}

impl Which {
    fn name(self) -> &'static str {
        match self {
            Which::Test => "test",
            Which::Calib => "calibration",
        }
    }
}

/// Loads a quantized network that a run kept, measures it, and says what it takes.
pub fn evaluate(args: &Args) -> Result<Exit> {
    let (device, which) = (device(&args.device)?, args.which()?);
    let saved = SavedModel::open(&model_folder(&args.results.results, &args.what)?)?;
    let model = saved.network(&device)?;
    let (run, network) = (&saved.config.run, &saved.config.network);
    say!("{}: {}, {}, by {}", run.run_id, network.architecture, network.bits, run.cell.method);
    say!("SHA-256            {}, as described", saved.config.weights.sha256);
    let transform = args.transformed.then(|| SavedTransform::open(&saved, &device)).transpose()?;
    let hub = hub(false);
    let (cancelled, observe) = (interruptible()?, |event: Event| {
        if let Event::Skipped { problem } = event {
            tell!("warning: left out: {problem}");
        }
    });
    let control = Control { observe: &observe, cancelled: &cancelled };
    let measured = measured((args, which), &saved, &model, (&device, &hub), &control)?;
    let images = measured.classes.len();
    let top1 = 100.0 * launch::top1(&measured.classes, &measured.labels);
    say!("{:19}{top1:6.2} %  ({images} images of {})", format!("{} top-1", which.name()), measured.origin);
    let is_same = compare(&saved, which, &measured);
    let full_precision = full_precision(&saved, &device, &hub);
    if let Err(problem) = &full_precision {
        say!("no ratio of signal to quantization noise, which needs the full-precision weights: {problem}");
    }
    if let (Some(transform), Some(images)) = (&transform, &measured.images) {
        let networks = (&model, full_precision.as_ref().ok());
        transformed::print(&saved.config.run.cell, transform, (images, &measured.classes), networks, &control)?;
    }
    print_sizes(&saved, &layers(&model, full_precision.ok().as_ref())?);
    Ok(if is_same { Exit::Done } else { Exit::SomeFailed })
}

/// Where the network lies that `what` names: a path, or a run under `results`.
pub(super) fn model_folder(results: &Path, what: &str) -> Result<PathBuf> {
    match Path::new(what) {
        path if path.exists() => Ok(path.to_path_buf()),
        _ => Ok(select_one(results, what)?.folder),
    }
}

/// What the network makes of some images.
struct Measured {
    classes: Vec<u32>,
    labels: Vec<u32>,
    /// Of the images, as in a record.
    sha256: String,
    /// The calibration images themselves.
    images: Option<Split>,
    /// Where they come from.
    origin: String,
}

fn measured(
    (args, which): (&Args, Which),
    saved: &SavedModel,
    model: &QuantModel,
    (device, hub): (&Device, &Hub),
    control: &Control,
) -> Result<Measured> {
    let (config, cell) = (&saved.config, &saved.config.run.cell);
    let name = args.dataset.as_deref().unwrap_or(&cell.dataset);
    let Some(dataset) = data::find(name) else {
        let known: Vec<&str> = data::DATASETS.iter().map(|dataset| dataset.name).collect();
        return Err(Error::Usage(format!("there is no data set {name:?}, but {}", known.join(", "))));
    };
    let own = config.run.data_source.as_deref().or(cell.data.as_deref()).filter(|_| args.dataset.is_none());
    let contents = cache_folder::kept().map(|folder| Cache::new(Loader::cache(&folder)));
    let request = Request {
        data: args.data.as_deref().or(own),
        preprocess: Some(&config.preprocess),
        corrupt: cell.corrupt,
        contents: contents.as_ref(),
        hub: Some(hub),
        calib_images: cell.calib_images,
        ..Request::default()
    };
    let data = dataset.load(&request, device)?;
    data.check_fit(&config.network.architecture, (config.network.input[0], config.network.classes))?;
    if !device.is_cpu() {
        set_precision(device, cell.precision)?;
    }
    let hard = |x: &Tensor| model.logits(x, Mode::HARD);
    let origin = format!("{}, {}", dataset.title, data.location);
    Ok(match which {
        Which::Test => {
            let evaluation = launch::evaluate(&data.test, launch::EVAL_BATCH, control, hard)?;
            let sha256 = data.test.sha256.clone();
            Measured { classes: evaluation.classes, labels: evaluation.labels, sha256, images: None, origin }
        }
        Which::Calib => {
            let split = data.calibration(cell.calib_images, cell.seed)?;
            let classes = launch::predict(&split, launch::EVAL_BATCH, control, hard)?;
            let (labels, sha256) = (split.labels.clone(), split.sha256.clone());
            Measured { classes, labels, sha256, images: Some(split), origin }
        }
    })
}

/// Says how the predictions differ from the run's, where these are of the same images; whether they do not.
fn compare(saved: &SavedModel, which: Which, measured: &Measured) -> bool {
    let hashes = &saved.config.run.hashes;
    let own = match which {
        Which::Test => &hashes.test,
        Which::Calib => &hashes.calib,
    };
    if *own != measured.sha256 {
        say!("                   these are other images than the run's: there is nothing to compare with");
        return true;
    }
    let Ok(stored) = Predictions::read(&saved.folder) else {
        say!("                   the run's images, but its predictions do not lie beside the network");
        return true;
    };
    let stored = match which {
        Which::Test => stored.test,
        Which::Calib => stored.calib,
    };
    let differing = differing(&stored, &measured.classes);
    match differing {
        0 => say!("the same as the run's {} predictions, bit for bit", stored.len()),
        _ => say!(
            "DIFFERENT: {differing} of the run's {} predictions; another processor or device may round otherwise",
            stored.len()
        ),
    }
    differing == 0
}

/// The network that was quantized, or why it cannot be had.
fn full_precision(saved: &SavedModel, device: &Device, hub: &Hub) -> Result<Network> {
    let (network, run) = (&saved.config.network, &saved.config.run);
    let Some(arch) = arch::find(&network.architecture) else {
        return Err(Error::Usage(format!("there is no architecture {:?}", network.architecture)));
    };
    let checkpoint = load_weights(&run.cell.weights, arch, &run.cell.dataset, device, hub)?;
    if checkpoint.sha256 != run.hashes.weights {
        let (then, now) = (&run.hashes.weights, &checkpoint.sha256);
        return Err(Error::Usage(format!("{} has SHA-256 {now:.16}, the run's had {then:.16}", checkpoint.source)));
    }
    let trained = arch::load(arch, checkpoint.tensors, &checkpoint.source, device)?;
    Ok(fold_bn(&trained, network.batch_norm)?)
}

fn print_sizes(saved: &SavedModel, layers: &[Layer]) {
    let sum = |of: &dyn Fn(&Layer) -> usize| layers.iter().map(of).sum::<usize>() as u64;
    let (weights, of_layers) = (sum(&Layer::weights), sum(&|layer| layer.bytes));
    let level_bits = sum(&|layer| layer.weights() * layer.bits.unwrap_or(32) as usize);
    let full = (saved.bytes() + 4 * weights).saturating_sub(of_layers);
    say!(
        "size               {} bytes ({}), {:.1} times less than the {full} with weights in full precision",
        saved.bytes(),
        bytes::shown(saved.bytes()),
        full as f64 / saved.bytes().max(1) as f64
    );
    say!(
        "bits per weight    {:.3}; {:.3} with scales and zero points",
        level_bits as f64 / weights.max(1) as f64,
        8.0 * of_layers as f64 / weights.max(1) as f64
    );
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["layer", "weight", "bits", "bytes", "signal to noise"]);
    for layer in layers {
        let shape: Vec<String> = layer.shape.iter().map(usize::to_string).collect();
        let bits = layer.bits.map_or("32".to_string(), |bits| bits.to_string());
        let ratio = layer.sqnr_db.map_or("unknown".to_string(), |ratio| format!("{ratio:.2} dB"));
        table.add_row([&layer.node, &shape.join(" x "), &bits, &layer.bytes.to_string(), &ratio]);
    }
    say!("{table}");
}

//! `harness show`.

use super::Exit;
use super::difference::Difference;
use super::session::ResultsArgs;
use crate::error::{Error, Result};
use crate::report::layers::Layers;
use crate::store::{Predictions, Stored, read_layers, read_traces, select_one, utc};
use comfy_table::{Table, presets};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  harness show resnet20-w2a2-genie-m-s0
  harness show fashion-table1/resnet20-w2a2-metaaug-s0      # where several experiments have a run of this name
  harness show resnet20-w2a2-genie-m-s0 --layers
  harness show resnet20-w2a2-genie-m-s0 --diff resnet20-w2a2-qdrop-s0")]
pub struct Args {
    /// Run id, or the beginning of one; or a filter that selects one run.
    run: String,
    /// Print only in which fields and measures that run differs from this one.
    #[arg(long, value_name = "RUN")]
    diff: Option<String>,
    /// Print what quantizing did to each layer: how far weights and outputs are from full precision, scales, histograms of weights
    /// before and after, and the share of activations that are clipped.
    #[arg(long, conflicts_with = "diff")]
    layers: bool,
    /// Print the stored record, the differences, or the layers, as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    results: ResultsArgs,
}

/// Prints metrics, costs, provenance, notes, losses and the resolved cell of one run; or how two runs differ.
pub fn show(args: &Args) -> Result<Exit> {
    let run = select_one(&args.results.results, &args.run)?;
    if let Some(other) = &args.diff {
        let other = select_one(&args.results.results, other)?;
        let difference = Difference::between(&run, &other);
        match args.json {
            true => say!("{}", json(&difference)?),
            false => difference.print(&run, &other),
        }
        return Ok(Exit::Done);
    }
    if args.layers {
        let Some(diagnosis) = read_layers(&run.folder)? else {
            let id = &run.record.run_id;
            let why = match run.record.error {
                Some(_) => "it failed".to_string(),
                None => "it was made before layers were looked at; --fresh runs it again".to_string(),
            };
            return Err(Error::Usage(format!("{id} has kept nothing of its layers: {why}")));
        };
        match args.json {
            true => say!("{}", json(&diagnosis)?),
            false => print_layers(&Layers::new(&diagnosis)),
        }
        return Ok(Exit::Done);
    }
    match args.json {
        true => say!("{}", json(&run.record)?),
        false => print(&run)?,
    }
    Ok(Exit::Done)
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string_pretty(value).map_err(|error| Error::Report(format!("cannot write JSON: {error}")))
}

fn print(run: &Stored) -> Result<()> {
    let Stored { folder, record, annotations, .. } = run;
    say!("{}  ({})", record.run_id, folder.display());
    match &record.error {
        Some(error) => say!("failed: {error}"),
        None => say!("status             {}", run.status()),
    }
    if let Some(metrics) = &record.metrics {
        say!("test top-1         {:6.2} %  ({} images)", 100.0 * metrics.test_top1, metrics.test_images);
        if metrics.skipped_images + metrics.skipped_calib_images > 0 {
            let (test, calib) = (metrics.skipped_images, metrics.skipped_calib_images);
            say!("unreadable images  {test} of the test split left out, {calib} replaced in the calibration sample");
        }
        say!("calibration top-1  {:6.2} %", 100.0 * metrics.calib_top1);
        say!("full precision     {:6.2} %", 100.0 * metrics.fp_test_top1);
    }
    if let Ok(Err(problem)) = Predictions::read(folder).map(|predictions| record.check_predictions(&predictions)) {
        tell!("warning: {problem}: one of them was changed");
    }
    let (cost, provenance, hashes) = (&record.cost, &record.provenance, &record.hashes);
    let memory =
        cost.peak_memory_bytes.map_or("unknown".to_string(), |bytes| format!("{:.0} MiB", bytes as f64 / 1_048_576.0));
    say!("cost               {:.1} s wall, {:.1} s processor, peak memory {memory}", cost.wall_s, cost.cpu_s);
    say!(
        "made by            harness {} ({}), {} with {} threads, evaluated {} images at once",
        provenance.crate_version,
        provenance.git_revision,
        provenance.device,
        provenance.threads,
        provenance.eval_batch
    );
    say!("processor          {}", provenance.processor.as_deref().unwrap_or("not recorded"));
    say!("started            {}, grid {}", run.started(), provenance.grid);
    let outdated = if run.outdated().is_empty() { "" } else { ", which this harness does not have" };
    say!("method revision    {}{outdated}", record.made_with());
    if let Some(preprocess) = &record.preprocess {
        say!("preprocessing      {}", preprocess.identity());
    }
    if let Some(source) = &record.weights_source {
        say!("weights            {source}");
    }
    if let Some(source) = &record.data_source {
        say!("data               {source}");
    }
    say!(
        "SHA-256            weights {}\n                   calibration {}\n                   test {}",
        hashes.weights,
        hashes.calib,
        hashes.test
    );
    if !annotations.tags.is_empty() {
        say!("tags               {}", annotations.tags.iter().cloned().collect::<Vec<_>>().join(", "));
    }
    for note in &annotations.notes {
        say!("note               {}  {}", utc(note.at_unix_s), note.text.replace('\n', "\n                   "));
    }
    if let Some(problem) = &annotations.problem {
        tell!("warning: {problem}");
    }
    print_losses(run);
    say!("\n{}", record.cell.to_toml()?);
    Ok(())
}

fn print_layers(layers: &Layers) {
    let table = |header: &[&str]| {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(header);
        table
    };
    let mut weights = table(&["unit", "output", "layer", "weight", "bits", "noise", "scales", "before", "after"]);
    for row in &layers.weights {
        let (unit, output) = row.unit.as_ref().map_or(("", ""), |unit| (&unit.name, &unit.sqnr));
        let [before, after] = &row.bars;
        weights.add_row([unit, output, &row.layer, &row.shape, &row.bits, &row.sqnr, &row.scales, before, after]);
    }
    let mut acts = table(&["unit", "activation", "bits", "scale", "range", "clipped"]);
    for row in &layers.acts {
        let unit = row.unit.as_ref().map_or("", |(name, _)| name);
        let clipped = format!("{} %", row.clipped);
        acts.add_row([unit, &row.tensor, &row.bits.to_string(), &row.scale, &row.range, &clipped]);
    }
    say!("{weights}\n");
    if !layers.acts.is_empty() {
        say!("{acts}\n");
    }
    say!(
        "noise: signal-to-quantization-noise ratio of the weight; output: that of the unit's output when all up to it are quantized,"
    );
    say!(
        "on {} calibration images. clipped: activations farther outside of the range than half a step.",
        layers.images
    );
}

fn print_losses(run: &Stored) {
    let traces = read_traces(&run.folder).unwrap_or_else(|error| {
        tell!("warning: no losses: {error}");
        Vec::new()
    });
    if !traces.is_empty() {
        say!("\nreconstruction error per unit, first and last step");
    }
    let ends = |values: &[f64]| values.first().copied().zip(values.last().copied()).unwrap_or((f64::NAN, f64::NAN));
    for trace in traces {
        let (first, last) = ends(&trace.loss);
        say!("  {:24} {:12} {first:10.5} -> {last:10.5}  {:6.1} s", trace.unit, trace.phase, trace.wall_s);
        for term in &trace.terms {
            let (loss, norm) = (ends(&term.loss), ends(&term.gradient_norm));
            say!(
                "    {:22} weight {:<8} loss {:9.2e} -> {:9.2e}, gradient norm {:9.2e} -> {:9.2e}",
                term.name,
                term.weight,
                loss.0,
                loss.1,
                norm.0,
                norm.1
            );
        }
    }
}

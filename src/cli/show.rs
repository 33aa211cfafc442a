//! `harness show`.

use super::Exit;
use super::session::ResultsArgs;
use crate::error::{Error, Result};
use crate::store::{find, read_traces};

#[derive(clap::Args)]
pub struct Args {
    /// Run id, or the beginning of one.
    run: String,
    /// Print the stored record as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    results: ResultsArgs,
}

/// Prints metrics, costs, provenance, losses and the resolved cell of one run.
pub fn show(args: &Args) -> Result<Exit> {
    let (store, record) = find(&args.results.results, &args.run)?;
    let folder = store.run_folder(&record.run_id);
    if args.json {
        let json = serde_json::to_string_pretty(&record).map_err(|error| Error::content(&folder, error.to_string()))?;
        say!("{json}");
        return Ok(Exit::Done);
    }
    say!("{}  ({})", record.run_id, folder.display());
    if let Some(error) = &record.error {
        say!("failed: {error}");
    }
    if let Some(metrics) = &record.metrics {
        say!("test top-1         {:6.2} %  ({} images)", 100.0 * metrics.test_top1, metrics.test_images);
        say!("calibration top-1  {:6.2} %", 100.0 * metrics.calib_top1);
        say!("full precision     {:6.2} %", 100.0 * metrics.fp_test_top1);
    }
    let (cost, provenance, hashes) = (&record.cost, &record.provenance, &record.hashes);
    let memory =
        cost.peak_memory_bytes.map_or("unknown".to_string(), |bytes| format!("{:.0} MiB", bytes as f64 / 1_048_576.0));
    say!("cost               {:.1} s wall, {:.1} s processor, peak memory {memory}", cost.wall_s, cost.cpu_s);
    say!(
        "made by            harness {} ({}), {} with {} threads, grid {}",
        provenance.crate_version,
        provenance.git_revision,
        provenance.device,
        provenance.threads,
        provenance.grid
    );
    say!("method revision    {}", record.method_revision);
    if let Some(source) = &record.weights_source {
        say!("weights            {source}");
    }
    say!(
        "SHA-256            weights {}\n                   calibration {}\n                   test {}",
        hashes.weights,
        hashes.calib,
        hashes.test
    );
    let traces = read_traces(&folder)?;
    if !traces.is_empty() {
        say!("\nreconstruction error per unit, first and last step");
    }
    for trace in traces {
        let (first, last) =
            (trace.loss.first().copied().unwrap_or(f64::NAN), trace.loss.last().copied().unwrap_or(f64::NAN));
        say!("  {:24} {:12} {first:10.5} -> {last:10.5}  {:6.1} s", trace.unit, trace.phase, trace.wall_s);
        for term in &trace.terms {
            let ends =
                |values: &[f64]| values.first().copied().zip(values.last().copied()).unwrap_or((f64::NAN, f64::NAN));
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
    say!("\n{}", record.cell.to_toml()?);
    Ok(Exit::Done)
}

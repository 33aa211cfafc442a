//! `harness reproduce`.

use super::Exit;
use super::session::{ResultsArgs, loader};
use crate::error::{Error, Result};
use crate::experiment::{Hashes, Revisions, RunId};
use crate::store::record::Record;
use crate::store::{Stored, select_one};
use candle_core::Device;
use ptq::methods;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  harness reproduce resnet20-w2a2-genie-m-s0 > again.toml
  harness run again.toml

`harness verify RUN` does both in a temporary folder, and compares the predictions.")]
pub struct Args {
    /// Run id, or the beginning of one; or a filter that selects one run.
    run: String,
    #[command(flatten)]
    results: ResultsArgs,
}

/// Prints a grid of one cell, the run's, and in its comments the commands that run it.
pub fn reproduce(args: &Args) -> Result<Exit> {
    let run = select_one(&args.results.results, &args.run)?;
    let hashes = loader(&Device::Cpu, false).hashes(&run.record.cell);
    if let Err(error) = &hashes {
        tell!("warning: the run's inputs are not here: {error}");
    }
    let departures = departures(&run.record, hashes.ok().as_ref());
    departures.iter().for_each(|departure| tell!("warning: this harness would make another run: {departure}"));
    say!("{}", grid(&run, &departures)?.trim_end());
    Ok(Exit::Done)
}

/// In what this harness, which sees inputs with `hashes`, would make another run than `record`.
pub(super) fn departures(record: &Record, hashes: Option<&Hashes>) -> Vec<String> {
    let mut departures = Vec::new();
    match methods::find(&record.cell.method) {
        Some(_) => {
            let differences = record.made_with().differences(&Revisions::of(&record.cell)).into_iter();
            departures.extend(
                differences
                    .map(|differs| format!("revision of {}: {} then, {} here", differs.of, differs.then, differs.now)),
            );
        }
        None => departures.push(format!("there is no method {}", record.cell.method)),
    }
    let (then, Some(here)) = (&record.hashes, hashes) else { return departures };
    for (what, then, here) in [
        ("weights", &then.weights, &here.weights),
        ("calibration images", &then.calib, &here.calib),
        ("test images", &then.test, &here.test),
    ] {
        if then != here {
            departures.push(format!("SHA-256 of {what}: {then:.16} then, {here:.16} here"));
        }
    }
    let id = RunId::new(&record.cell, then, &record.made_with()).to_string();
    if id != record.run_id {
        departures.push(format!("its record does not make its id, but {id}: it was edited, or its format is another"));
    }
    departures
}

fn grid(run: &Stored, departures: &[String]) -> Result<String> {
    let Stored { experiment, record, .. } = run;
    let provenance = &record.provenance;
    let mut lines = vec![
        format!("Reproduces {} of experiment {experiment}.", record.run_id),
        String::new(),
        format!("    harness reproduce {experiment}/{} > again.toml", record.run_id),
        format!("    RAYON_NUM_THREADS={} harness run again.toml --device {}", provenance.threads, provenance.device),
        String::new(),
        format!(
            "It was made by harness {} ({}) from {}, begun {}, on {}.",
            provenance.crate_version,
            provenance.git_revision,
            provenance.grid,
            run.started(),
            provenance.processor.as_deref().unwrap_or("a processor that is not recorded")
        ),
    ];
    match (&record.metrics, &record.error) {
        (Some(metrics), _) => lines.push(format!(
            "Top-1 was {:.2} % on {} test images, {:.2} % on the calibration images.",
            100.0 * metrics.test_top1,
            metrics.test_images,
            100.0 * metrics.calib_top1
        )),
        (None, error) => lines.push(format!("It failed: {}", error.as_deref().unwrap_or("unknown why"))),
    }
    lines.extend(departures.iter().map(|departure| format!("This harness would make another run: {departure}.")));
    // What a record says must not end a comment.
    let is_safe = |c: &char| !c.is_control();
    let comment =
        |line: &String| format!("# {}", line.chars().filter(is_safe).collect::<String>()).trim_end().to_string();
    let mut text: Vec<String> = lines.iter().map(comment).collect();

    let base = toml::Value::try_from(&record.cell);
    let base = base.map_err(|error| Error::Usage(format!("the cell cannot be written as TOML: {error}")))?;
    // A name of its own: the experiment's would find this very run stored, and end in -smoke for some.
    let hash = record.run_id.rsplit('-').next().unwrap_or_default();
    let is_hash = hash.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()) && !hash.is_empty();
    let name = format!("again-{}", if is_hash { hash } else { "run" });
    let grid = toml::Table::from_iter([("name".to_string(), name.into()), ("base".to_string(), base)]);
    text.push(String::new());
    text.push(toml::to_string(&grid).map_err(|error| Error::Usage(format!("cannot write TOML: {error}")))?);
    Ok(text.join("\n"))
}

//! `harness report`, and the end of `harness run`.

use super::Exit;
use super::session::{GridArgs, Session};
use crate::data;
use crate::error::Result;
use crate::report::html::{self, Figure, Image, Page};
use crate::report::transform::{self, TransformRun};
use crate::report::{Source, render, render_declared};
use crate::store::{Pictures, Scan, Stored, atomic, read_traces};
use candle_core::Device;
use std::collections::BTreeSet;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    grid: GridArgs,
    /// Do not print the table.
    #[arg(long, short)]
    quiet: bool,
}

/// Writes tables and plots from the stored runs of the grid's cells.
pub fn report(args: &Args) -> Result<Exit> {
    let session = Session::open(&args.grid, &Device::Cpu)?;
    session.refuse_namesake()?;
    write(&session, args.quiet)?;
    Ok(Exit::Done)
}

/// The stored runs of the grid's cells, scanned again; those of other configurations are left out.
pub(super) fn scan(session: &Session) -> Result<Scan> {
    let planned: BTreeSet<String> = session.plan.iter().map(|planned| planned.id.to_string()).collect();
    let mut scan = session.store.scan()?;
    scan.records.retain(|record| planned.contains(&record.run_id));
    Ok(scan)
}

/// Renders the runs of the grid's cells.
pub(super) fn write(session: &Session, quiet: bool) -> Result<()> {
    let Scan { records, broken } = scan(session)?;
    let grid = session.experiment.path.display().to_string();
    let source = Source { title: &session.experiment.title, grid: &grid };
    let rendered = render(&records, &source)?;
    let folder = session.store.folder();
    let always = [
        ("accuracy.md", rendered.markdown.as_bytes()),
        ("accuracy.tex", rendered.latex.as_bytes()),
        ("accuracy.csv", &rendered.accuracy_csv),
        ("runs.csv", &rendered.runs_csv),
        ("accuracy.svg", rendered.svg.as_bytes()),
        ("accuracy.png", &rendered.png),
    ];
    let published = rendered.published_csv.as_deref().map(|csv| ("published.csv", csv));
    for (name, content) in always.into_iter().chain(published) {
        atomic::write(&folder.join(name), content)?;
    }
    let stored: Vec<Stored> = records
        .into_iter()
        .map(|record| Stored::read(&session.experiment.name, session.store.run_folder(&record.run_id), record))
        .collect();
    let declared = render_declared(&session.experiment.tables, &session.plan, &stored, &source);
    for table in &declared {
        let formats = [("md", &table.markdown), ("tex", &table.latex), ("csv", &table.csv)];
        for (extension, content) in formats {
            atomic::write(&folder.join("tables").join(format!("{}.{extension}", table.name)), content.as_bytes())?;
        }
    }
    let transforms = transform::draw(&transform_runs(&stored))?;
    if let Some(png) = &transforms {
        atomic::write(&folder.join("transforms.png"), png)?;
    }
    let accuracy = Figure {
        caption: "Accuracy against bits of each method".into(),
        file: "accuracy.svg",
        image: Image::Svg(&rendered.svg),
    };
    let transforms_figure = transforms.as_deref().map(|png| Figure {
        caption: "Images, their transforms and differences; weighted gradient norms of the terms of the meta-loss"
            .into(),
        file: "transforms.png",
        image: Image::Png(png),
    });
    let figures: Vec<Figure> = [accuracy].into_iter().chain(transforms_figure).collect();
    let present: BTreeSet<&str> = stored.iter().map(|run| run.record.run_id.as_str()).collect();
    let planned = session.plan.iter().map(|planned| planned.id.to_string());
    let missing: Vec<String> = planned.filter(|id| !present.contains(id.as_str())).collect();
    let page = Page {
        source,
        about: &session.experiment.about,
        rendered: &rendered,
        declared: &declared,
        figures: &figures,
        runs: &stored,
        damaged: &broken,
        missing: &missing,
    };
    atomic::write(&folder.join("report.html"), html::page(&page)?.as_bytes())?;
    if !quiet {
        say!("{}", rendered.terminal);
        declared.iter().for_each(|table| say!("table {}\n{}", table.name, table.terminal));
        let also = if transforms.is_some() { ", transforms.png" } else { "" };
        let written = folder.join("report.html, accuracy.{md,tex,csv,svg,png}, runs.csv");
        say!("written: {}{also}", written.display());
    }
    Ok(())
}

/// The runs that trained a transform network, with their pictures. Damaged files are named on stderr and skipped.
fn transform_runs(stored: &[Stored]) -> Vec<TransformRun> {
    let runs = stored.iter().filter(|run| run.record.cell.transform.as_ref().is_some_and(|t| t.net.0.is_trainable));
    let read = |run: &Stored| -> Result<TransformRun> {
        let of_data_set = || data::find(&run.record.cell.dataset).map(|dataset| (dataset.preprocess)());
        let pictures = match (Pictures::read(&run.folder)?, run.record.preprocess.clone().or_else(of_data_set)) {
            (Some(pictures), Some(preprocess)) => Some(pictures.strip(&preprocess.mean, &preprocess.std)?),
            _ => None,
        };
        Ok(TransformRun { title: run.record.run_id.clone(), pictures, traces: read_traces(&run.folder)? })
    };
    let or_warn = |error| eprintln!("warning: left out of the pictures: {error}");
    runs.filter_map(|run| read(run).map_err(or_warn).ok()).collect()
}

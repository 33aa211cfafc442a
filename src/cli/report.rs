//! `harness report`, and the end of `harness run`.

use super::Exit;
use super::session::{GridArgs, Session};
use crate::disk::atomic;
use crate::error::Result;
use crate::report::figures::render_figures;
use crate::report::html::{self, Illustration, Image, Page};
use crate::report::{Subject, render, render_declared, transform};
use crate::store::{Scan, Stored};
use std::collections::BTreeSet;
use std::path::Path;

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
    let session = Session::of_stored(&args.grid)?;
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

/// Renders the stored runs of the grid's cells; how many there are.
pub(super) fn write(session: &Session, quiet: bool) -> Result<usize> {
    let Scan { records, mut broken } = scan(session)?;
    let grid = session.experiment.path.display().to_string();
    let subject = Subject { title: &session.experiment.title, grid: &grid };
    let rendered = render(&records, &subject)?;
    let folder = session.store.folder();
    let always = [
        ("accuracy.md", rendered.markdown.as_bytes()),
        ("accuracy.tex", rendered.latex.as_bytes()),
        ("accuracy.csv", &rendered.accuracy_csv),
        ("runs.csv", &rendered.runs_csv),
        ("runs.parquet", &rendered.runs_parquet),
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
    let declared = render_declared(&session.experiment.tables, &session.plan, &stored, &subject)?;
    for table in &declared {
        let formats: [(&str, &[u8]); 4] = [
            ("md", table.markdown.as_bytes()),
            ("tex", table.latex.as_bytes()),
            ("csv", &table.csv),
            ("parquet", &table.parquet),
        ];
        write_all(&folder.join("tables"), &table.name, &formats)?;
    }
    let (figures, mut unreadable) = render_figures(&session.experiment.figures, &session.plan, &stored)?;
    for figure in &figures {
        let formats: [(&str, &[u8]); 3] = [("svg", figure.svg.as_bytes()), ("png", &figure.png), ("csv", &figure.csv)];
        write_all(&folder.join("figures"), &figure.name, &formats)?;
    }
    let all: Vec<&Stored> = stored.iter().collect();
    let transforms = transform::draw(&transform::read_runs(&all, &mut unreadable))?;
    if let Some(png) = &transforms {
        atomic::write(&folder.join("transforms.png"), png)?;
    }
    let accuracy = Illustration {
        caption: "Accuracy against bits of each method",
        file: "accuracy.svg".into(),
        image: Image::Svg(&rendered.svg),
    };
    let declared_figures = figures.iter().map(|figure| Illustration {
        caption: if figure.caption.is_empty() { &figure.name } else { &figure.caption },
        file: format!("figures/{}.svg", figure.name),
        image: Image::Svg(&figure.svg),
    });
    let transforms_figure = transforms.as_deref().map(|png| Illustration {
        caption: "Images, their transforms and differences; weighted gradient norms of the terms of the meta-loss",
        file: "transforms.png".into(),
        image: Image::Png(png),
    });
    let illustrations: Vec<Illustration> =
        [accuracy].into_iter().chain(declared_figures).chain(transforms_figure).collect();
    for (path, problem) in &unreadable {
        tell!("warning: left out of figures: {}: {problem}", path.display());
    }
    broken.extend(unreadable);
    let present: BTreeSet<&str> = stored.iter().map(|run| run.record.run_id.as_str()).collect();
    let planned = session.plan.iter().map(|planned| planned.id.to_string());
    let missing: Vec<String> = planned.filter(|id| !present.contains(id.as_str())).collect();
    let page = Page {
        subject,
        about: &session.experiment.about,
        rendered: &rendered,
        declared: &declared,
        illustrations: &illustrations,
        runs: &stored,
        damaged: &broken,
        missing: &missing,
    };
    atomic::write(&folder.join("report.html"), html::page(&page)?.as_bytes())?;
    if !quiet {
        say!("{}", rendered.terminal);
        declared.iter().for_each(|table| say!("table {}\n{}", table.name, table.terminal));
        let also = if transforms.is_some() { ", transforms.png" } else { "" };
        figures.iter().for_each(|figure| {
            say!("figure {}: {}", figure.name, folder.join("figures").join(&figure.name).display());
        });
        let written = folder.join("report.html, accuracy.{md,tex,csv,svg,png}, runs.{csv,parquet}");
        say!("written: {}{also}", written.display());
    }
    Ok(stored.len())
}

/// Writes `folder/name.EXTENSION` for each format.
fn write_all(folder: &Path, name: &str, formats: &[(&str, &[u8])]) -> Result<()> {
    formats
        .iter()
        .try_for_each(|(extension, content)| atomic::write(&folder.join(format!("{name}.{extension}")), content))
}

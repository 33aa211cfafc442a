//! `harness report`, and the end of `harness run`.

use super::Exit;
use super::session::{GridArgs, Session};
use crate::disk::atomic;
use crate::error::Result;
use crate::report::figure::Figure;
use crate::report::figures::render_figures;
use crate::report::html::{self, Illustration, Image, Page};
use crate::report::{Declared, Rendered, Subject, render, render_declared, transform};
use crate::store::record::Record;
use crate::store::{Scan, Stored};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

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
    let folder = session.store.folder();
    let of_run =
        |record: Record| Stored::read(&session.experiment.name, session.store.run_folder(&record.run_id), record);
    let rendered = render(&records, &subject)?;
    let stored: Vec<Stored> = records.into_iter().map(of_run).collect();
    let declared = render_declared(&session.experiment.tables, &session.plan, &stored, &subject)?;
    let (drawn, unreadable) = Drawn::of(session, &stored)?;
    for (path, problem) in &unreadable {
        tell!("warning: left out of figures: {}: {problem}", path.display());
    }
    broken.extend(unreadable);
    save_tables(folder, &rendered, &declared)?;
    drawn.save(folder)?;
    let page = Page {
        subject,
        about: &session.experiment.about,
        rendered: &rendered,
        declared: &declared,
        illustrations: &drawn.illustrations(&rendered.svg),
        runs: &stored,
        damaged: &broken,
        missing: &missing(session, &stored),
    };
    atomic::write(&folder.join("report.html"), html::page(&page)?.as_bytes())?;
    if !quiet {
        say!("{}", rendered.terminal);
        declared.iter().for_each(|table| say!("table {}\n{}", table.name, table.terminal));
        drawn.say(folder);
    }
    Ok(stored.len())
}

/// The cells of the grid that have no run among `stored`.
fn missing(session: &Session, stored: &[Stored]) -> Vec<String> {
    let present: BTreeSet<&str> = stored.iter().map(|run| run.record.run_id.as_str()).collect();
    let planned = session.plan.iter().map(|planned| planned.id.to_string());
    planned.filter(|id| !present.contains(id.as_str())).collect()
}

/// The tables in all their formats, with the figure that belongs to the first.
fn save_tables(folder: &Path, rendered: &Rendered, declared: &[Declared]) -> Result<()> {
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
    for table in declared {
        let formats: [(&str, &[u8]); 4] = [
            ("md", table.markdown.as_bytes()),
            ("tex", table.latex.as_bytes()),
            ("csv", &table.csv),
            ("parquet", &table.parquet),
        ];
        save_all(&folder.join("tables"), &table.name, &formats)?;
    }
    Ok(())
}

/// Writes `folder/name.EXTENSION` for each format.
fn save_all(folder: &Path, name: &str, formats: &[(&str, &[u8])]) -> Result<()> {
    formats
        .iter()
        .try_for_each(|(extension, content)| atomic::write(&folder.join(format!("{name}.{extension}")), content))
}

/// What is drawn of the stored runs.
struct Drawn {
    figures: Vec<Figure>,
    /// PNG; `None` where no run has pictures.
    transforms: Option<Vec<u8>>,
}

impl Drawn {
    /// With the files that could not be read, and why: these are left out.
    fn of(session: &Session, stored: &[Stored]) -> Result<(Self, Vec<(PathBuf, String)>)> {
        let (figures, mut unreadable) = render_figures(&session.experiment.figures, &session.plan, stored)?;
        let all: Vec<&Stored> = stored.iter().collect();
        let transforms = transform::draw(&transform::read_runs(&all, &mut unreadable))?;
        Ok((Self { figures, transforms }, unreadable))
    }

    fn save(&self, folder: &Path) -> Result<()> {
        for figure in &self.figures {
            let formats: [(&str, &[u8]); 3] =
                [("svg", figure.svg.as_bytes()), ("png", &figure.png), ("csv", &figure.csv)];
            save_all(&folder.join("figures"), &figure.name, &formats)?;
        }
        self.transforms.iter().try_for_each(|png| atomic::write(&folder.join("transforms.png"), png))
    }

    /// As the page shows them, behind the accuracies.
    fn illustrations<'a>(&'a self, accuracy_svg: &'a str) -> Vec<Illustration<'a>> {
        let accuracy = Illustration {
            caption: "Accuracy against bits of each method",
            file: "accuracy.svg".into(),
            image: Image::Svg(accuracy_svg),
        };
        let figures = self.figures.iter().map(|figure| Illustration {
            caption: if figure.caption.is_empty() { &figure.name } else { &figure.caption },
            file: format!("figures/{}.svg", figure.name),
            image: Image::Svg(&figure.svg),
        });
        let transforms = self.transforms.as_deref().map(|png| Illustration {
            caption: "Images, their transforms and differences; weighted gradient norms of the terms of the meta-loss",
            file: "transforms.png".into(),
            image: Image::Png(png),
        });
        [accuracy].into_iter().chain(figures).chain(transforms).collect()
    }

    /// Tells where everything lies.
    fn say(&self, folder: &Path) {
        for figure in &self.figures {
            say!("figure {}: {}", figure.name, folder.join("figures").join(&figure.name).display());
        }
        let also = if self.transforms.is_some() { ", transforms.png" } else { "" };
        let written = folder.join("report.html, accuracy.{md,tex,csv,svg,png}, runs.{csv,parquet}");
        say!("written: {}{also}", written.display());
    }
}

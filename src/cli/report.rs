//! `harness report`, and the end of `harness run`.

use super::Exit;
use super::session::{GridArgs, Session};
use crate::error::Result;
use crate::report::{Source, render};
use crate::store::atomic;
use crate::store::record::Record;
use candle_core::Device;

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
    write(&Session::open(&args.grid, &Device::Cpu)?, args.quiet)?;
    Ok(Exit::Done)
}

/// Scans the store again and renders the runs of the grid's cells; runs of other configurations are left out.
pub(super) fn write(session: &Session, quiet: bool) -> Result<()> {
    let records: Vec<Record> = session
        .store
        .scan()?
        .records
        .into_iter()
        .filter(|record| session.plan.iter().any(|planned| planned.id.to_string() == record.run_id))
        .collect();
    let grid = session.experiment.path.display().to_string();
    let rendered = render(&records, &Source { title: &session.experiment.title, grid: &grid })?;
    let folder = session.store.folder();
    for (name, content) in [
        ("accuracy.md", rendered.markdown.as_bytes()),
        ("accuracy.csv", &rendered.accuracy_csv),
        ("runs.csv", &rendered.runs_csv),
        ("accuracy.svg", rendered.svg.as_bytes()),
        ("accuracy.png", &rendered.png),
    ] {
        atomic::write(&folder.join(name), content)?;
    }
    if !quiet {
        say!("{}", rendered.terminal);
        say!("written: {}", folder.join("accuracy.{md,csv,svg,png}, runs.csv").display());
    }
    Ok(())
}

//! The command line: one file per verb, each a function from its arguments to an [`Exit`].

#[macro_use]
pub mod terminal;

mod annotate;
mod bytes;
mod cache_folder;
mod cell;
mod check_gradient;
mod checkpoints;
mod columns;
mod compare;
pub mod device;
mod difference;
mod doctor;
mod download;
mod evaluate;
mod export;
mod fetch;
mod filter_help;
mod inspect;
mod isolation;
mod jobs;
mod list;
mod pixels;
mod plan;
mod progress;
mod published;
mod remove;
mod report;
mod reproduce;
mod run;
mod serve;
mod session;
mod shard;
mod show;
mod signals;
mod stored;
mod submit;
mod to_server;
mod track;
mod transformed;
mod verify;
mod watch;
mod why;

use crate::error::{Error, Result};
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

/// Runs grids of post-training quantization experiments and makes their tables and plots.
#[derive(Parser)]
#[command(name = "harness", version, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXIT_CODES: &str = "\
Examples:
  harness run experiments/quickstart.toml
  harness run experiments/fashion/methods.toml --filter 'bits(w2a2) & method(qdrop | genie-m)' --set seed=7
  harness run experiments/fashion/methods.toml --filter 'status(failed)'
  harness plan experiments/fashion/methods.toml
  harness show resnet20-w2a2-qdrop-s0

Exit codes: 0 all done, 2 bad usage or grid, 4 nothing matched, 96 set-up error, 100 some cells failed (verify, evaluate: predictions differ; rm, gc: some were kept), 106 interrupted by Ctrl-C, 143 by SIGTERM, 138 by SIGUSR1, 129 by SIGHUP";

#[derive(Subcommand)]
enum Verb {
    /// Run the cells of a grid that have no stored result, then write its tables and plots.
    Run(run::Args),
    /// List the cells of a grid with their ids, what is stored of them, and what will be downloaded of their data.
    Plan(plan::Args),
    /// Submit workers for the cells of a grid that have no result yet to a cluster: a job array of Slurm.
    Submit(submit::Args),
    /// Follow what was submitted: the grid's cells beside the cluster's tasks; cancel it, or submit again what is left.
    Watch(watch::Args),
    /// Download the weights and data that the cells of a grid need from the Hugging Face Hub, computing nothing.
    Fetch(fetch::Args),
    /// Write tables and plots again from stored runs, computing nothing.
    Report(report::Args),
    /// Say how stored runs differ on the same test images, and whether that may be chance; or from published numbers.
    Compare(compare::Args),
    /// List the stored runs of all experiments.
    List(list::Args),
    /// Print a stored run, or how two differ.
    Show(show::Args),
    /// Write a note down beside a stored run.
    Note(annotate::NoteArgs),
    /// Give tags to stored runs, and take them away.
    Tag(annotate::TagArgs),
    /// Run a stored run's cell again and compare the predictions bit for bit.
    Verify(verify::Args),
    /// Print a grid of one cell that makes a stored run again, and the commands for it.
    Reproduce(reproduce::Args),
    /// Remove stored runs: lists them first.
    Rm(remove::RmArgs),
    /// Remove failed and outdated runs, leftovers, and what is too much in the cache: lists them first.
    Gc(remove::GcArgs),
    /// Say why a cell counts as done, failed, stale or missing.
    Why(why::Args),
    /// Load the quantized network that a run kept, compare its predictions with the run's, or measure it on other images.
    Evaluate(evaluate::Args),
    /// List every quantizer of a cell: which tensor, how many bits, per channel or per tensor.
    Inspect(inspect::Args),
    /// Write stored runs for MLflow or TensorBoard, or as CSV or JSON; send them to an MLflow server.
    Export(export::Args),
    /// Serve pages of all experiments on this machine, live while grids run.
    Serve(serve::Args),
    /// Compare the gradient of a transform network's training with central differences.
    CheckGradient(check_gradient::Args),
    /// Run one job in a process of its own, as launchers do.
    #[command(hide = true)]
    Cell(cell::Args),
    /// Print a hash of the levels of each image file as they are read.
    #[command(hide = true)]
    Pixels(pixels::Args),
    /// Print what the harness finds on this machine.
    Doctor,
    /// Print a completion script for a shell.
    Completions { shell: Shell },
}

/// Exit code of a verb that could not do its work at all.
pub const SET_UP: u8 = 96;

/// How a verb ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done,
    SomeFailed,
    Interrupted,
}

impl Exit {
    /// Of the process.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::SomeFailed => 100,
            Exit::Interrupted => signals::interrupted_code(),
        }
    }
}

/// Says why a verb failed; its exit code.
pub fn failed(error: Error) -> u8 {
    let code = exit_code(&error);
    match error {
        // In colours; what it shows of files is printable already.
        Error::Grid(error) => terminal::print_coloured(format_args!("{:?}", miette::Report::new(*error))),
        error => tell!("error: {error}"),
    }
    code
}

/// Runs the verb.
pub fn dispatch(cli: Cli) -> Result<Exit> {
    signals::outlive_size_limit();
    match cli.verb {
        Verb::Run(args) => run::run(&args),
        Verb::Plan(args) => plan::plan(&args),
        Verb::Submit(args) => submit::submit(&args),
        Verb::Watch(args) => watch::watch(&args),
        Verb::Fetch(args) => fetch::fetch(&args),
        Verb::Report(args) => report::report(&args),
        Verb::Compare(args) => compare::compare(&args),
        Verb::List(args) => list::list(&args),
        Verb::Show(args) => show::show(&args),
        Verb::Note(args) => annotate::note(&args),
        Verb::Tag(args) => annotate::tag(&args),
        Verb::Verify(args) => verify::verify(&args),
        Verb::Reproduce(args) => reproduce::reproduce(&args),
        Verb::Rm(args) => remove::rm(&args),
        Verb::Gc(args) => remove::gc(&args),
        Verb::Why(args) => why::why(&args),
        Verb::Evaluate(args) => evaluate::evaluate(&args),
        Verb::Inspect(args) => inspect::inspect(&args),
        Verb::Export(args) => export::export(&args),
        Verb::Serve(args) => serve::serve(&args),
        Verb::CheckGradient(args) => check_gradient::check(&args),
        Verb::Cell(args) => cell::cell(&args),
        Verb::Pixels(args) => pixels::pixels(&args),
        Verb::Doctor => doctor::doctor(),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "harness", &mut script);
            say!("{}", String::from_utf8_lossy(&script).trim_end());
            Ok(Exit::Done)
        }
    }
}

/// The exit code of an error.
fn exit_code(error: &Error) -> u8 {
    match error {
        Error::Grid(_) | Error::Usage(_) | Error::Ptq(ptq::Error::Settings(_)) => 2,
        Error::NothingMatched(_) => 4,
        Error::Ptq(ptq::Error::Interrupted) => signals::interrupted_code(),
        _ => SET_UP,
    }
}

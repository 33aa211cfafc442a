//! `harness note` and `harness tag`.

use super::Exit;
use super::session::ResultsArgs;
use super::stored;
use crate::error::{Error, Result};
use crate::experiment::is_kebab_case;
use crate::store::{Stored, annotations, select_one};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  harness note resnet20-w2a2-genie-m-s0 'the learning rate was too high'
  harness list --filter 'note(*learning rate*)'")]
pub struct NoteArgs {
    /// Run id, or the beginning of one; or a filter that selects one run.
    run: String,
    /// What to remember of it.
    text: String,
    #[command(flatten)]
    results: ResultsArgs,
}

/// Adds a note to a run.
pub fn note(args: &NoteArgs) -> Result<Exit> {
    if args.text.trim().is_empty() {
        return Err(Error::Usage("the note is empty".to_string()));
    }
    let run = select_one(&args.results.results, &args.run)?;
    annotations::note(&run.folder, &args.text)?;
    say!("{}: {}", name(&run), args.text);
    Ok(Exit::Done)
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  harness tag resnet20-w2a2-genie-m-s0 paper
  harness tag 'experiment(fashion-table1) & status(done)' paper v2 --remove draft
  harness list --filter 'tag(paper)'")]
pub struct TagArgs {
    /// Run id, or the beginning of one; or a filter: all that it selects.
    #[arg(value_name = "RUN|FILTER")]
    query: String,
    /// Tags to give: lower-case words and digits, joined by hyphens.
    #[arg(value_name = "TAG", required_unless_present = "remove")]
    add: Vec<String>,
    /// Tags to take away.
    #[arg(long, value_name = "TAG,...", value_delimiter = ',')]
    remove: Vec<String>,
    #[command(flatten)]
    results: ResultsArgs,
}

/// Gives tags to runs and takes them away.
pub fn tag(args: &TagArgs) -> Result<Exit> {
    if let Some(wrong) = args.add.iter().chain(&args.remove).find(|tag| !is_kebab_case(tag)) {
        let form = "lower-case words and digits, joined by single hyphens";
        return Err(Error::Usage(format!("tag {wrong:?} is not {form}")));
    }
    if let Some(both) = args.add.iter().find(|tag| args.remove.contains(tag)) {
        return Err(Error::Usage(format!("tag {both:?} is to be given and taken away")));
    }
    let results = &args.results.results;
    let runs = stored::queried(results, &args.query)?;
    for run in runs {
        annotations::tag(&run.folder, &args.add, &args.remove)?;
        let tags = annotations::Annotations::read(&run.folder).tags;
        say!(
            "{}: {}",
            name(&run),
            if tags.is_empty() { "no tags".to_string() } else { Vec::from_iter(tags).join(", ") }
        );
    }
    Ok(Exit::Done)
}

fn name(run: &Stored) -> String {
    format!("{}/{}", run.experiment, run.record.run_id)
}

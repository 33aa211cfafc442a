//! `harness check-gradient`.

use super::Exit;
use super::session::{GridArgs, Session};
use crate::error::{Error, Result};
use candle_core::Device;
use comfy_table::{Table, presets};
use ptq::meta::check_gradient::{Verdict, check_gradient};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  harness check-gradient experiments/fashion/table2_losses.toml
  harness check-gradient experiments/fashion/table2_losses.toml --filter 'variant(val)' --set meta.inner=sgd

The exit code is 100 if a term is wrong.")]
pub struct Args {
    #[command(flatten)]
    grid: GridArgs,
    /// Draws another random problem.
    #[arg(long, default_value_t = 0)]
    problem: u64,
}

/// Compares the meta-gradient of the grid's first cell that has a transform network with central differences.
pub fn check(args: &Args) -> Result<Exit> {
    let session = Session::open(&args.grid, &Device::Cpu)?;
    let found = session.plan.iter().find_map(|planned| {
        let cell = &planned.cell;
        Some((planned, cell.transform.as_ref()?, cell.meta.as_ref()?, cell.terms.as_ref()?))
    });
    let Some((planned, transform, meta, terms)) = found else {
        return Err(Error::NothingMatched("no cell has a transform network (method metaaug, or transform.net)".into()));
    };
    let checked = check_gradient(transform, meta, terms, &planned.cell.recipe, args.problem)?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["term", "gradient norm", "error, f64 to differences", "error, f32 to f64", "verdict"]);
    for term in &checked {
        let verdict = match term.verdict {
            Verdict::Right => "right",
            Verdict::Wrong => "WRONG",
            Verdict::NotSmooth => "kinks everywhere: try another --problem",
            Verdict::TooSmall => "too small to compare: it does not reach T",
        };
        let number = |value: f64| format!("{value:.1e}");
        table.add_row([term.term, &number(term.norm), &number(term.error), &number(term.error_f32), verdict]);
    }
    say!(
        "{}: {} (base {}, depth {}), inner step {:?}, {} unrolled",
        planned.id,
        transform.net.0.name,
        transform.base.min(2),
        transform.depth.min(2),
        meta.inner,
        meta.unroll
    );
    say!("{table}");
    Ok(if checked.iter().any(|term| term.verdict == Verdict::Wrong) { Exit::SomeFailed } else { Exit::Done })
}

//! `harness compare`.

use super::Exit;
use super::session::ResultsArgs;
use super::stored;
use crate::error::{Error, Result};
use crate::report::paired::{Comparison, SeedComparison, compare as compare_sides};
use crate::report::side::Side;
use crate::report::statistics::RESAMPLES;
use comfy_table::{CellAlignment, Table, presets};
use std::path::Path;

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Run id, the beginning of one, or a filter such as `method(qdrop) & bits(w2a2)`: what to compare with the others. Or,
    /// alone, a grid file: its stored runs are compared with published numbers.
    #[arg(value_name = "A|GRID.toml")]
    first: String,
    /// What to compare it with: run id, beginning of one, or filter.
    #[arg(value_name = "B")]
    others: Vec<String>,
    /// Print the comparison as JSON, accuracies as fractions.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    results: ResultsArgs,
}

const EXAMPLES: &str = "\
Examples:
  harness compare resnet20-w2a2-genie-m-s0 resnet20-w2a2-qdrop-s0
  harness compare 'experiment(drop) & method(genie-m)' 'experiment(drop) & method(qdrop)'
  harness compare 'tag(paper) & method(genie-m)' 'tag(paper) & method(qdrop)' 'tag(paper) & method(brecq)' --json
  harness compare experiments/imagenet.toml

`harness help list` describes filters. Each side must be one configuration; runs are paired by seed, or one by one where each side is one run. \
With several B, p-values are corrected for their number (Holm).";

/// Prints how two or more configurations differ on the same test images, and whether that may be chance; for a grid, ours
/// beside the published numbers.
pub fn compare(args: &Args) -> Result<Exit> {
    if args.others.is_empty() {
        return match args.first.ends_with(".toml") {
            true => super::published::compare(Path::new(&args.first), args.json, &args.results),
            false => Err(Error::Usage(format!(
                "nothing to compare {:?} with: give a second run id or filter, or a grid file (.toml) alone",
                args.first
            ))),
        };
    }
    let collection = stored::all(&args.results.results)?;
    let queries = [&args.first].into_iter().chain(&args.others);
    let sides = queries.map(|query| Side::select(query, &collection.runs)).collect::<Result<Vec<_>>>()?;
    let comparisons = compare_sides(&sides)?;
    if args.json {
        let json = serde_json::to_string_pretty(&comparisons)
            .map_err(|error| Error::Report(format!("cannot write the comparison as JSON: {error}")))?;
        say!("{json}");
        return Ok(Exit::Done);
    }
    for (index, comparison) in comparisons.iter().enumerate() {
        if index > 0 {
            say!("");
        }
        print(comparison, comparisons.len());
    }
    Ok(Exit::Done)
}

fn print(comparison: &Comparison, count: usize) {
    let Comparison { a, b, images, seeds, interval: (low, high), .. } = comparison;
    let plural = if seeds.len() == 1 { "" } else { "s" };
    say!("A  {}  ({})", a.title, a.query);
    say!("B  {}  ({})", b.title, b.query);
    // Two methods differ in much of their recipes: that is what makes them two.
    let is_other_method = comparison.differs.iter().any(|differing| differing.field == "method");
    let is_said = |field: &str| matches!(field, "arch" | "bits" | "method") || (is_other_method && field.contains('.'));
    for differing in comparison.differs.iter().filter(|differing| !is_said(&differing.field)) {
        say!("   {}: {} and {}", differing.field, differing.a, differing.b);
    }
    say!("{images} test images, {} pair{plural} of runs", seeds.len());
    let mut table = Table::new();
    let header = ["seed", "A %", "B %", "A - B", "only A right", "only B right", "McNemar p"];
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(header);
    for seed in seeds {
        let name = match seed.seed_a == seed.seed_b {
            true => seed.seed_a.to_string(),
            false => format!("{} and {}", seed.seed_a, seed.seed_b),
        };
        let SeedComparison { top1_a, top1_b, only_a, only_b, p, .. } = seed;
        table.add_row(line(&name, (*top1_a, *top1_b, top1_a - top1_b), (*only_a, *only_b), *p));
    }
    if seeds.len() > 1 {
        table.add_row(line(
            "all",
            (a.top1, b.top1, comparison.difference),
            (comparison.only_a, comparison.only_b),
            comparison.p,
        ));
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    say!("{table}");
    say!(
        "difference {:+.2} points, 95 % interval {:+.2} to {:+.2} (paired bootstrap over images, {RESAMPLES} resamples)",
        100.0 * comparison.difference,
        100.0 * low,
        100.0 * high
    );
    if seeds.len() > 1 {
        say!("p over all seeds: McNemar's exact test with an image's seeds changing sides together");
    }
    let corrected = match count {
        1 => String::new(),
        _ => format!(", corrected for {count} comparisons (Holm) {}", p_value(comparison.p_corrected)),
    };
    let verdict = if comparison.significant { "significant" } else { "NOT significant" };
    say!("the difference is {verdict} at 5 % (p {}{corrected})", p_value(comparison.p));
    for left_out in &comparison.left_out {
        say!("left out: {left_out}");
    }
}

fn line(name: &str, (a, b, difference): (f64, f64, f64), (only_a, only_b): (usize, usize), p: f64) -> [String; 7] {
    [
        name.to_string(),
        format!("{:.2}", 100.0 * a),
        format!("{:.2}", 100.0 * b),
        format!("{:+.2}", 100.0 * difference),
        only_a.to_string(),
        only_b.to_string(),
        p_value(p),
    ]
}

fn p_value(p: f64) -> String {
    if p < 1e-4 { "< 0.0001".to_string() } else { format!("{p:.4}") }
}

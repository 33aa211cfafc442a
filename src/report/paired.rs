//! Two configurations on the same test images: what they got right together and alone, and whether that is a difference.

use super::side::{Side, differences};
use super::statistics::{RESAMPLES, SIGNIFICANCE, bootstrap_interval, holm, mcnemar, sign_flip};
use crate::error::{Error, Result};
use crate::store::record::Record;
use crate::store::{Predictions, Stored};
use ptq::rng::Stream;
use serde::Serialize;

/// Two sides, compared; accuracies are fractions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    pub a: Compared,
    pub b: Compared,
    pub images: usize,
    /// By seed.
    pub seeds: Vec<SeedComparison>,
    /// `a` minus `b`, over all seeds.
    pub difference: f64,
    /// Lower and upper end of the 95 % interval of `difference` ([`bootstrap_interval`]).
    pub interval: (f64, f64),
    /// How often, over all seeds, an image was right with `a` alone, and with `b` alone.
    pub only_a: usize,
    pub only_b: usize,
    /// [`sign_flip`] over all seeds; for one seed McNemar's exact test.
    pub p: f64,
    /// `p`, corrected for the number of comparisons made at once ([`holm`]); the same for one.
    pub p_corrected: f64,
    pub significant: bool,
    /// Fields of the cells, hashes and revisions in which the sides differ.
    pub differs: Vec<Differing>,
    /// Runs that were selected and not compared, and why.
    pub left_out: Vec<String>,
}

/// One side of a [`Comparison`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    pub query: String,
    pub title: String,
    /// Mean over the compared seeds.
    pub top1: f64,
    /// By seed, as compared.
    pub runs: Vec<String>,
}

/// A field that is not the same on both sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Differing {
    pub field: String,
    pub a: String,
    pub b: String,
}

/// One run against one run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SeedComparison {
    pub seed_a: u64,
    pub seed_b: u64,
    pub top1_a: f64,
    pub top1_b: f64,
    /// Images that are right with one of them alone.
    pub only_a: usize,
    pub only_b: usize,
    /// McNemar's exact test.
    pub p: f64,
}

/// Compares `sides[0]` with each of the others.
///
/// Errors: different architectures or test images, by their hash or by their labels; no common seed; predictions that cannot
/// be read or are not those of the record.
pub fn compare(sides: &[Side]) -> Result<Vec<Comparison>> {
    let [first, others @ ..] = sides else { return Ok(Vec::new()) };
    let mut comparisons = others.iter().map(|other| compare_two(first, other)).collect::<Result<Vec<_>>>()?;
    let corrected = holm(&comparisons.iter().map(|comparison| comparison.p).collect::<Vec<_>>());
    for (comparison, p) in comparisons.iter_mut().zip(corrected) {
        (comparison.p_corrected, comparison.significant) = (p, p < SIGNIFICANCE);
    }
    Ok(comparisons)
}

/// What two sides got right, image by image and seed by seed.
///
/// Every run must have seen the images of the first: labels in another order are those of other images, or of the same
/// ones in another order, and what is said of them in pairs would be meaningless.
struct Tally<'a> {
    pairs: Vec<Pair<'a>>,
    left_out: Vec<String>,
    seeds: Vec<SeedComparison>,
    /// Per image, how often the first was right minus how often the second was.
    differences: Vec<i32>,
}

fn tally<'a>(a: &'a Side, b: &'a Side) -> Result<Tally<'a>> {
    let (pairs, left_out) = pair(a, b)?;
    let mut seeds = Vec::new();
    let mut differences: Vec<i32> = Vec::new();
    let mut of_first: Option<(&Stored, Vec<u32>)> = None;
    for &(run_a, run_b) in &pairs {
        let mut of_run = |run: &'a Stored| -> Result<Vec<bool>> {
            let (right, labels) = right(run)?;
            let (first, expected) = of_first.get_or_insert_with(|| (run, labels.clone()));
            if *expected == labels {
                return Ok(right);
            }
            let problem = match (labels.len(), expected.len()) {
                (own, others) if own == others => {
                    "the labels of its test images, or their order, are not those".to_string()
                }
                (own, others) => format!("it has {own} test images, not the {others}"),
            };
            let problem = format!("{problem} of {}: they cannot be compared image by image", first.record.run_id);
            Err(Error::content(&run.folder, problem))
        };
        let (right_a, right_b) = (of_run(run_a)?, of_run(run_b)?);
        differences.resize(right_a.len(), 0);
        let (mut only_a, mut only_b) = (0, 0);
        for ((a, b), difference) in right_a.iter().zip(&right_b).zip(&mut differences) {
            *difference += i32::from(*a) - i32::from(*b);
            only_a += usize::from(*a && !*b);
            only_b += usize::from(*b && !*a);
        }
        seeds.push(SeedComparison {
            seed_a: run_a.record.cell.seed,
            seed_b: run_b.record.cell.seed,
            top1_a: fraction(&right_a),
            top1_b: fraction(&right_b),
            only_a,
            only_b,
            p: mcnemar(only_a, only_b),
        });
    }
    Ok(Tally { pairs, left_out, seeds, differences })
}

/// The p-value of [`Comparison`] alone, with the same errors.
pub fn p_value(a: &Side, b: &Side) -> Result<f64> {
    check_comparable(a, b)?;
    Ok(sign_flip(&tally(a, b)?.differences))
}

fn compare_two(a: &Side, b: &Side) -> Result<Comparison> {
    let differs = check_comparable(a, b)?;
    let Tally { pairs, left_out, seeds, differences } = tally(a, b)?;
    let mean = |of: fn(&SeedComparison) -> f64| seeds.iter().map(of).sum::<f64>() / seeds.len() as f64;
    let compared = |side: &Side, top1: f64, runs: Vec<String>| Compared {
        query: side.query.clone(),
        title: side.title(),
        top1,
        runs,
    };
    let (only_a, only_b) = (seeds.iter().map(|s| s.only_a).sum(), seeds.iter().map(|s| s.only_b).sum());
    let total: i64 = differences.iter().map(|difference| i64::from(*difference)).sum();
    let p = sign_flip(&differences);
    // One stream for all comparisons: the same images are drawn for each.
    let stream = Stream::new(0).named("bootstrap");
    Ok(Comparison {
        a: compared(a, mean(|s| s.top1_a), pairs.iter().map(|(a, _)| a.record.run_id.clone()).collect()),
        b: compared(b, mean(|s| s.top1_b), pairs.iter().map(|(_, b)| b.record.run_id.clone()).collect()),
        images: differences.len(),
        difference: total as f64 / (differences.len() * seeds.len()).max(1) as f64,
        interval: bootstrap_interval(&differences, seeds.len(), RESAMPLES, 0.95, stream),
        seeds,
        only_a,
        only_b,
        p,
        p_corrected: p,
        significant: p < SIGNIFICANCE,
        differs,
        left_out,
    })
}

/// Refuses what would not be a comparison, and lists in what the sides differ.
fn check_comparable(a: &Side, b: &Side) -> Result<Vec<Differing>> {
    let (Some(first), Some(second)) = (a.record(), b.record()) else { return Ok(Vec::new()) };
    let refuse = |what: &str, of_a: &str, of_b: &str| {
        Err(Error::Usage(format!(
            "{:?} and {:?} cannot be compared: {what} differ ({of_a} and {of_b}); select runs of the same",
            a.query, b.query
        )))
    };
    let data = |record: &Record| format!("{}, SHA-256 {:.10}", record.cell.dataset, record.hashes.test);
    if first.cell.dataset != second.cell.dataset || first.hashes.test != second.hashes.test {
        return refuse("test images", &data(first), &data(second));
    }
    if first.cell.arch != second.cell.arch {
        return refuse("architectures", &first.cell.arch, &second.cell.arch);
    }
    let differs = differences([first, second].into_iter()).into_iter();
    let differing = |(field, values): (String, Vec<String>)| match <[String; 2]>::try_from(values) {
        Ok([a, b]) => Some(Differing { field, a, b }),
        Err(_) => None,
    };
    Ok(differs.filter_map(differing).collect())
}

/// Two runs, side by side.
type Pair<'a> = (&'a Stored, &'a Stored);

/// Runs of the same seed, or the single runs of both sides; and what is left out.
fn pair<'a>(a: &'a Side, b: &'a Side) -> Result<(Vec<Pair<'a>>, Vec<String>)> {
    let failed = a.failed.iter().chain(&b.failed).map(|id| format!("{id} failed"));
    let pairs: Vec<_> = match (&a.runs.values().collect::<Vec<_>>()[..], &b.runs.values().collect::<Vec<_>>()[..]) {
        ([run_a], [run_b]) => vec![(*run_a, *run_b)],
        _ => a.runs.iter().filter_map(|(seed, run)| Some((run, b.runs.get(seed)?))).collect(),
    };
    if let Some((run, _)) = pairs.iter().find(|(a, b)| a.record.run_id == b.record.run_id) {
        let (a, b, id) = (&a.query, &b.query, &run.record.run_id);
        return Err(Error::Usage(format!("{a:?} and {b:?} both select run {id}: there is nothing to compare")));
    }
    if pairs.is_empty() {
        let seeds = |side: &Side| side.runs.keys().map(u64::to_string).collect::<Vec<_>>().join(", ");
        return Err(Error::Usage(format!(
            "{:?} and {:?} have no seed in common ({} and {}): run the missing seeds, or name one run each",
            a.query,
            b.query,
            seeds(a),
            seeds(b)
        )));
    }
    let is_paired = |run: &Stored| pairs.iter().any(|(a, b)| [a, b].iter().any(|paired| paired.folder == run.folder));
    let alone = a.runs.values().chain(b.runs.values()).filter(|run| !is_paired(run));
    let alone = alone.map(|run| format!("{} has no partner of seed {}", run.record.run_id, run.record.cell.seed));
    let left_out = failed.chain(alone).collect();
    Ok((pairs, left_out))
}

/// Whether each test image was classified rightly, and its label.
fn right(run: &Stored) -> Result<(Vec<bool>, Vec<u32>)> {
    let again = "store the run anew with `harness run GRID --fresh`";
    let predictions = Predictions::read(&run.folder)
        .map_err(|error| Error::content(&run.folder, format!("its predictions cannot be read ({error}); {again}")))?;
    run.record
        .check_predictions(&predictions)
        .map_err(|problem| Error::content(&run.folder, format!("{problem}; {again}")))?;
    let (predicted, labels) = (&predictions.test, predictions.test_labels);
    Ok((predicted.iter().zip(&labels).map(|(class, label)| class == label).collect(), labels))
}

fn fraction(right: &[bool]) -> f64 {
    right.iter().filter(|right| **right).count() as f64 / right.len().max(1) as f64
}

//! Whether two methods that predicted the same test images differ.
//!
//! An image is the unit that is sampled: over several seeds it is one image still, so that its seeds are resampled, or
//! change sides, together. Nothing here is about seeds that were not run; their spread stands beside the result.

use ptq::rng::Stream;
use rayon::prelude::*;

/// Resamples of [`bootstrap_interval`] that reports use.
pub const RESAMPLES: usize = 10_000;
/// Below it a p-value counts as significant.
pub const SIGNIFICANCE: f64 = 0.05;

/// McNemar's exact test, two-sided: `min(1, 2 P(X <= min(b, c)))` with `X ~ Binomial(b + c, 1/2)`, where `b` images are
/// right with the first method alone and `c` with the second alone; images on which both agree carry no information.
///
/// Source: McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
/// Psychometrika 12 (1947), in the exact form of `statsmodels.stats.contingency_tables.mcnemar(exact=True)`.
pub fn mcnemar(b: usize, c: usize) -> f64 {
    tail(&binomial_half(b + c), b, b + c)
}

/// McNemar's exact test for images that were predicted several times (once per seed): an exact sign-flip test.
///
/// `differences[i]` is how often the first method was right on image `i` minus how often the second was. If the methods
/// do not differ, each is as likely with the opposite sign, whatever the dependence between the seeds of an image:
/// with `m_j` images of absolute difference `j`, and `U = sum_j j X_j`, `X_j ~ Binomial(m_j, 1/2)`, the p-value is
/// `P(|2 U - sum_j j m_j| >= |sum_i differences[i]|)`. For one seed that is [`mcnemar`].
///
/// Adding up the seeds' discordant pairs and testing those instead would count an image once per seed, and call
/// differences significant that are not (Durkalski et al., "The analysis of clustered matched-pair data", Statistics in
/// Medicine 22 (2003), on the asymptotic form). Source of the test: Good, "Permutation, Parametric and Bootstrap Tests
/// of Hypotheses" (2005), section 3.2; checked against `scipy.stats.permutation_test`.
pub fn sign_flip(differences: &[i32]) -> f64 {
    let mut counts: Vec<usize> = Vec::new();
    let (mut first, mut total) = (0, 0);
    for difference in differences {
        let size = difference.unsigned_abs() as usize;
        if counts.len() <= size {
            counts.resize(size + 1, 0);
        }
        counts[size] += 1;
        total += size;
        if *difference > 0 {
            first += size;
        }
    }
    // The distribution of U, one size after the other.
    let mut distribution = vec![1.0];
    for (size, count) in counts.iter().enumerate().skip(1).filter(|(_, count)| **count > 0) {
        let step = binomial_half(*count);
        let mut sum = vec![0.0; distribution.len() + size * count];
        for (k, weight) in step.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            for (to, from) in sum[size * k..].iter_mut().zip(&distribution) {
                *to += weight * from;
            }
        }
        distribution = sum;
    }
    tail(&distribution, first, total)
}

/// `2 P(U <= min(u, total - u))`, at most 1, for a `U` that is symmetric on `0..=total`.
fn tail(distribution: &[f64], u: usize, total: usize) -> f64 {
    let end = u.min(total - u);
    // From the smallest probability up, which loses least.
    let below: f64 = distribution[..=end].iter().sum();
    (2.0 * below).min(1.0)
}

/// Probabilities of `Binomial(n, 1/2)`; those below about `1e-300` are 0.
fn binomial_half(n: usize) -> Vec<f64> {
    let mode = n / 2;
    let mut weights = vec![1.0; n + 1];
    for k in mode + 1..=n {
        weights[k] = weights[k - 1] * (n - k + 1) as f64 / k as f64;
    }
    for k in 0..mode {
        weights[k] = weights[n - k];
    }
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
    weights
}

/// Percentile bootstrap interval at `level` (0.95) of the difference of two accuracies, as fractions.
///
/// `differences` is as for [`sign_flip`], over `seeds` seeds. Each of `resamples` draws as many images as there are, with
/// replacement, the same for both methods and for every seed, and takes `sum(differences) / (images * seeds)`; the
/// interval lies between the `(1 - level) / 2` and `(1 + level) / 2` quantiles. Without images it is empty at 0.
///
/// Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13; checked against
/// `scipy.stats.bootstrap(method="percentile")`.
pub fn bootstrap_interval(
    differences: &[i32],
    seeds: usize,
    resamples: usize,
    level: f64,
    stream: Stream,
) -> (f64, f64) {
    let n = differences.len();
    if n == 0 || seeds == 0 || resamples == 0 {
        return (0.0, 0.0);
    }
    let mut totals: Vec<i64> = (0..resamples as u64)
        .into_par_iter()
        .map(|resample| {
            let stream = stream.at(resample);
            (0..n as u64).map(|draw| i64::from(differences[stream.below(draw, n)])).sum()
        })
        .collect();
    totals.sort_unstable();
    let scale = (n * seeds) as f64;
    let sorted: Vec<f64> = totals.into_iter().map(|total| total as f64 / scale).collect();
    (quantile(&sorted, (1.0 - level) / 2.0), quantile(&sorted, (1.0 + level) / 2.0))
}

/// The `q` quantile of ascending values, interpolated between order statistics at `q (n - 1)` (definition 7 of Hyndman
/// and Fan, "Sample quantiles in statistical packages", The American Statistician 50 (1996); numpy's default). NaN for
/// no values.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = q.clamp(0.0, 1.0) * last as f64;
    let low = (at.floor() as usize).min(last);
    let high = (low + 1).min(last);
    sorted[low] + (at - low as f64) * (sorted[high] - sorted[low])
}

/// Holm's step-down correction of the p-values of one family of tests: in ascending order
/// `adjusted_i = max_{j <= i} min(1, (m - j) p_j)`, `j` from 0; returned in the order given.
///
/// Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6
/// (1979); checked against `statsmodels.stats.multitest.multipletests(method="holm")`.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut largest: f64 = 0.0;
    for (rank, index) in order.into_iter().enumerate() {
        largest = largest.max(((p_values.len() - rank) as f64 * p_values[index]).min(1.0));
        adjusted[index] = largest;
    }
    adjusted
}

/// What two accuracies around `top1` (fractions), each measured on its own `images`, may differ by without meaning
/// anything: half the width of the 95 % interval, `1.96 sqrt(2 top1 (1 - top1) / images)` (normal approximation).
pub fn unpaired_noise(top1: f64, images: usize) -> f64 {
    1.96 * (2.0 * top1 * (1.0 - top1) / images as f64).sqrt()
}

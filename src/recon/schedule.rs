//! Schedules over the iterations of a unit; iterations count from 1 to `total`.

/// A learning rate over time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LearningRate {
    Constant(f64),
    /// From the given rate at the first step towards 0 after the last: `lr / 2 * (1 + cos(pi (t - 1) / total))`.
    Cosine(f64),
}

impl LearningRate {
    pub fn at(self, t: usize, total: usize) -> f64 {
        match self {
            LearningRate::Constant(lr) => lr,
            LearningRate::Cosine(lr) => {
                let progress = (t - 1) as f64 / total as f64;
                lr / 2.0 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
        }
    }
}

/// Exponent of the rounding regulariser: absent during the first `warmup` of the iterations, then linear from `start`
/// to `end` (AdaRound, arXiv 2004.10568, section 3.2; the schedule is that of the published codes).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BetaSchedule {
    /// Fraction of the iterations.
    pub warmup: f64,
    pub start: f64,
    pub end: f64,
}

impl BetaSchedule {
    pub fn at(&self, t: usize, total: usize) -> Option<f64> {
        let (t, total) = (t as f64, total as f64);
        let warmup = self.warmup * total;
        if t < warmup {
            return None;
        }
        let progress = if total > warmup { (t - warmup) / (total - warmup) } else { 1.0 };
        Some(self.end + (self.start - self.end) * (1.0 - progress).max(0.0))
    }
}

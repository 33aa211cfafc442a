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
    /// `beta` at step `t` (from 1) of `total`; `None` during the warm-up, when the rounding is not regularised.
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

/// A loss must fall by this fraction to count as lower.
const PLATEAU_THRESHOLD: f64 = 1e-4;

/// A learning rate that falls when the loss does not (PyTorch's `ReduceLROnPlateau`).
pub struct Plateau {
    pub lr: f64,
    factor: f64,
    /// Steps without a lower loss that are let pass.
    patience: usize,
    lowest_lr: f64,
    best: f64,
    bad: usize,
}

impl Plateau {
    pub fn new(lr: f64, factor: f64, patience: usize, lowest_lr: f64) -> Self {
        Self { lr, factor, patience, lowest_lr, best: f64::INFINITY, bad: 0 }
    }

    /// What it has come to.
    pub fn state(&self) -> [f64; 3] {
        [self.lr, self.best, self.bad as f64]
    }

    /// Goes on from there.
    pub fn set_state(&mut self, [lr, best, bad]: [f64; 3]) {
        (self.lr, self.best, self.bad) = (lr, best, bad as usize);
    }

    /// Takes notice of the loss of a step.
    pub fn observe(&mut self, loss: f64) {
        if loss < self.best * (1.0 - PLATEAU_THRESHOLD) {
            (self.best, self.bad) = (loss, 0);
            return;
        }
        self.bad += 1;
        if self.bad > self.patience {
            self.lr = (self.lr * self.factor).max(self.lowest_lr);
            self.bad = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_falls_when_the_loss_stalls_longer_than_the_patience_but_not_below_the_lowest() {
        let mut plateau = Plateau::new(1.0, 0.5, 2, 0.3);
        let losses = [1.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.8, 0.8, 0.8, 0.8];
        let rates: Vec<f64> = losses
            .into_iter()
            .map(|loss| {
                plateau.observe(loss);
                plateau.lr
            })
            .collect();
        assert_eq!(rates, [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.3]);
    }
}

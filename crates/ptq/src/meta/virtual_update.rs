//! The virtual update of a unit's parameters and its adjoint, in `f64`: the derivative of an Adam step is a difference of
//! nearly equal numbers.

use super::config::Inner;

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;

/// The rule of one virtual update.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub inner: Inner,
    pub eps: f64,
}

/// Adam's moments, one value per parameter; unused by gradient descent.
#[derive(Clone, Debug)]
pub struct Moments {
    m: Vec<f64>,
    v: Vec<f64>,
}

impl Moments {
    /// Before the first step, and the adjoints after the last.
    pub fn zeros(n: usize) -> Self {
        Self { m: vec![0.0; n], v: vec![0.0; n] }
    }
}

impl Rule {
    /// Step `t` (from 1) from `theta` with gradient `g`, each parameter with its own learning rate.
    ///
    /// `sgd`: `theta - lr g`. `adam`, `none`: `theta - lr sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)`; epsilon joins before the
    /// bias correction, as in the differentiable Adam (`higher` 0.2.1) that the published code uses.
    pub fn step(&self, theta: &mut [f64], g: &[f64], lr: &[f64], moments: &mut Moments, t: usize) {
        for (i, (theta, (&g, &lr))) in theta.iter_mut().zip(g.iter().zip(lr)).enumerate() {
            if self.inner == Inner::Sgd {
                *theta -= lr * g;
                continue;
            }
            let (m, v) = (&mut moments.m[i], &mut moments.v[i]);
            *m = BETA_1 * *m + (1.0 - BETA_1) * g;
            *v = BETA_2 * *v + (1.0 - BETA_2) * g * g;
            *theta -= lr * correction(t) * *m / (v.sqrt() + self.eps);
        }
    }

    /// The adjoint of step `t`: from `adjoint`, the derivative of the meta-loss with respect to the step's result, and
    /// `of_moments`, that with respect to the moments after it, to the derivative with respect to `g`, which is returned,
    /// and to the moments before the step. The derivative with respect to `theta` beside `g` is `adjoint` itself.
    ///
    /// `moments` are those after the step. The derivative of `sqrt` at 0 counts as 0, as in `higher`.
    pub fn adjoint(
        &self,
        adjoint: &[f64],
        g: &[f64],
        lr: &[f64],
        moments: &Moments,
        of_moments: &mut Moments,
        t: usize,
    ) -> Vec<f64> {
        let elements = adjoint.iter().zip(g.iter().zip(lr)).enumerate();
        elements
            .map(|(i, (&adjoint, (&g, &lr)))| match self.inner {
                Inner::None => 0.0,
                Inner::Sgd => -lr * adjoint,
                Inner::Adam => {
                    let (m, root) = (moments.m[i], moments.v[i].sqrt());
                    let factor = -lr * correction(t) * adjoint;
                    let shifted = root + self.eps;
                    let of_m = of_moments.m[i] + factor / shifted;
                    let through_root = if root > 0.0 { -factor * m / (shifted * shifted * 2.0 * root) } else { 0.0 };
                    let of_v = of_moments.v[i] + through_root;
                    of_moments.m[i] = BETA_1 * of_m;
                    of_moments.v[i] = BETA_2 * of_v;
                    (1.0 - BETA_1) * of_m + (1.0 - BETA_2) * 2.0 * g * of_v
                }
            })
            .collect()
    }
}

/// Adam's bias correction at step `t`.
fn correction(t: usize) -> f64 {
    let t = t as i32;
    (1.0 - BETA_2.powi(t)).sqrt() / (1.0 - BETA_1.powi(t))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last parameters after three steps whose gradients are `g + slope * theta`.
    fn unrolled(rule: Rule, g: [f64; 3], theta: f64) -> f64 {
        let (mut theta, mut moments) = ([theta], Moments::zeros(1));
        for (step, g) in g.iter().enumerate() {
            let g = [g + 0.3 * theta[0]];
            rule.step(&mut theta, &g, &[0.1], &mut moments, step + 1);
        }
        theta[0]
    }

    #[test]
    fn adjoints_of_unrolled_steps_are_central_differences() {
        for inner in [Inner::Sgd, Inner::Adam] {
            let rule = Rule { inner, eps: 1e-2 };
            let (g, start) = ([0.7, -0.2, 0.4], 0.5);
            let (mut theta, mut moments) = ([start], Moments::zeros(1));
            let mut tape = Vec::new();
            for (step, g) in g.iter().enumerate() {
                let g = [g + 0.3 * theta[0]];
                rule.step(&mut theta, &g, &[0.1], &mut moments, step + 1);
                tape.push((g, moments.clone()));
            }
            let (mut adjoint, mut of_moments) = ([1.0], Moments::zeros(1));
            let mut of_g = [0.0; 3];
            for step in (0..3).rev() {
                let (g, moments) = &tape[step];
                let u = rule.adjoint(&adjoint, g, &[0.1], moments, &mut of_moments, step + 1);
                of_g[step] = u[0];
                adjoint[0] += 0.3 * u[0];
            }
            for step in 0..3 {
                let at = |change: f64| {
                    let mut moved = g;
                    moved[step] += change;
                    unrolled(rule, moved, start)
                };
                let numeric = (at(1e-6) - at(-1e-6)) / 2e-6;
                assert!((of_g[step] - numeric).abs() < 1e-8, "{inner:?} {step}: {} {numeric}", of_g[step]);
            }
        }
    }
}

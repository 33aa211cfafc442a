//! The virtual update of a unit's parameters and its adjoint, on all of them one after the other, in `f64`.

use super::config::Inner;
use crate::error::Result;
use crate::ops::virtual_step::{Moments, adam_adjoint, adam_step};
use candle_core::Tensor;

/// The rule of one virtual update.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub inner: Inner,
    pub eps: f64,
}

impl Rule {
    /// Step `t` (from 1) from `theta` with gradient `g`, each parameter with its own learning rate; with the moments after it.
    ///
    /// `sgd`: `theta - lr g`; `adam`, `none`: [`adam_step`]. Shapes: all `(n)`, `f64`. No gradient.
    pub fn step(
        &self,
        theta: &Tensor,
        g: &Tensor,
        lr: &Tensor,
        moments: &Moments,
        t: usize,
    ) -> Result<(Tensor, Moments)> {
        match self.inner {
            Inner::Sgd => Ok(((theta - (lr * g)?)?, moments.clone())),
            Inner::Adam | Inner::None => Ok(adam_step(theta, g, lr, moments, (t, self.eps))?),
        }
    }

    /// The adjoint of step `t`, as of [`adam_adjoint`]: the derivative with respect to `g`, and those with respect to the moments before
    /// the step; `moments` are those after it.
    pub fn adjoint(
        &self,
        adjoint: &Tensor,
        g: &Tensor,
        lr: &Tensor,
        (moments, of_moments): (&Moments, &Moments),
        t: usize,
    ) -> Result<(Tensor, Moments)> {
        match self.inner {
            Inner::None => Ok((adjoint.zeros_like()?, of_moments.clone())),
            Inner::Sgd => Ok(((lr * adjoint)?.neg()?, of_moments.clone())),
            Inner::Adam => Ok(adam_adjoint(adjoint, g, lr, (moments, of_moments), (t, self.eps))?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn one(value: f64) -> Tensor {
        Tensor::new(&[value], &Device::Cpu).unwrap()
    }

    fn value(tensor: &Tensor) -> f64 {
        tensor.to_vec1().unwrap()[0]
    }

    /// The parameter after three steps whose gradients are `g + slope * theta`, and of each step `g` and the moments after it.
    fn unrolled(rule: Rule, g: [f64; 3], theta: f64) -> (f64, Vec<(Tensor, Moments)>) {
        let mut theta = one(theta);
        let mut moments = Moments::zeros(&theta).unwrap();
        let mut tape = Vec::new();
        for (step, g) in g.iter().enumerate() {
            let g = one(g + 0.3 * value(&theta));
            (theta, moments) = rule.step(&theta, &g, &one(0.1), &moments, step + 1).unwrap();
            tape.push((g, moments.clone()));
        }
        (value(&theta), tape)
    }

    #[test]
    fn adjoints_of_unrolled_steps_are_central_differences() {
        for inner in [Inner::Sgd, Inner::Adam] {
            let rule = Rule { inner, eps: 1e-2 };
            let (g, start) = ([0.7, -0.2, 0.4], 0.5);
            let (_, tape) = unrolled(rule, g, start);
            let mut adjoint = one(1.0);
            let mut of_moments = Moments::zeros(&adjoint).unwrap();
            let mut of_g = [0.0; 3];
            for step in (0..3).rev() {
                let (g, moments) = &tape[step];
                let (u, before) = rule.adjoint(&adjoint, g, &one(0.1), (moments, &of_moments), step + 1).unwrap();
                (of_g[step], of_moments) = (value(&u), before);
                adjoint = one(value(&adjoint) + 0.3 * of_g[step]);
            }
            for step in 0..3 {
                let at = |change: f64| {
                    let mut moved = g;
                    moved[step] += change;
                    unrolled(rule, moved, start).0
                };
                let numeric = (at(1e-6) - at(-1e-6)) / 2e-6;
                assert!((of_g[step] - numeric).abs() < 1e-8, "{inner:?} {step}: {} {numeric}", of_g[step]);
            }
        }
    }
}

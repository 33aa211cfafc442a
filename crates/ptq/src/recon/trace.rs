//! What is kept of the training of a unit: its losses every few iterations.

use serde::{Deserialize, Serialize};

/// The losses of one unit while it was reconstructed, sampled every few iterations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitTrace {
    pub unit: String,
    /// `weights`, `activations` for a second phase, `correction` for that of a unit's inputs, `meta` for the training of a
    /// transform network.
    pub phase: String,
    pub iterations: Vec<usize>,
    /// Reconstruction error alone; what a correction minimises, mean over its batches; the meta-loss.
    #[serde(with = "finite_or_null")]
    pub loss: Vec<f64>,
    /// Weighted rounding regulariser; empty where only `loss` is minimised.
    #[serde(with = "finite_or_null")]
    pub regulariser: Vec<f64>,
    /// Weighted prediction difference (PD-Quant); empty without one.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "finite_or_null")]
    pub prediction: Vec<f64>,
    /// The terms of a meta-loss.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<TermTrace>,
    pub wall_s: f64,
}

/// One term of a meta-loss at the iterations of its [`UnitTrace`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TermTrace {
    /// As in `[terms]`.
    pub name: String,
    pub weight: f64,
    /// Unweighted.
    #[serde(with = "finite_or_null")]
    pub loss: Vec<f64>,
    /// Norm of the gradient of the unweighted term with respect to the parameters of the transform network.
    #[serde(with = "finite_or_null")]
    pub gradient_norm: Vec<f64>,
}

/// JSON has no NaN and no infinity: they become null, and null becomes NaN.
mod finite_or_null {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        values.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        let values = Vec::<Option<f64>>::deserialize(deserializer)?;
        Ok(values.into_iter().map(|value| value.unwrap_or(f64::NAN)).collect())
    }
}

/// Points per trace.
const TRACE_POINTS: usize = 100;

impl UnitTrace {
    pub fn new(unit: &str, phase: &str) -> Self {
        Self {
            unit: unit.to_string(),
            phase: phase.to_string(),
            iterations: Vec::new(),
            loss: Vec::new(),
            regulariser: Vec::new(),
            prediction: Vec::new(),
            terms: Vec::new(),
            wall_s: 0.0,
        }
    }

    /// Whether step `t` (from 1) of `iterations` leaves a point.
    pub fn is_due(t: usize, iterations: usize) -> bool {
        t == 1 || t.is_multiple_of(iterations.div_ceil(TRACE_POINTS)) || t == iterations
    }
}

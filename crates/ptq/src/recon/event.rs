//! What a computation tells the outside while it runs, and how the outside stops it.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Something happened in the current computation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A unit comes next.
    Unit { index: usize, count: usize, name: String },
    /// A phase in which something of `unit` is trained begins; its points and [`Event::PhaseEnded`] follow.
    PhaseBegun {
        unit: String,
        phase: String,
        /// Of the meta-loss that it minimises, if it does.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        terms: Vec<Term>,
    },
    /// One step was made.
    Step {
        phase: String,
        iteration: usize,
        iterations: usize,
        #[serde(with = "number")]
        loss: f64,
    },
    /// The losses of a step as they are kept ([`UnitTrace::is_due`](super::trace::UnitTrace::is_due)).
    Point(Point),
    /// The phase is over, finished or not.
    PhaseEnded { wall_s: f64 },
    /// Evaluation has come this far.
    Evaluated { images: usize, of: usize },
    /// The device has no memory for more than so many images at a time.
    Halved { images: usize },
    /// An image cannot be decoded and is left out.
    Skipped { problem: String },
}

/// A term of a meta-loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Term {
    /// As in `[terms]`.
    pub name: String,
    pub weight: f64,
}

/// The parts of a step's loss; see [`UnitTrace`](super::trace::UnitTrace) for what they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    pub iteration: usize,
    #[serde(with = "number")]
    pub loss: f64,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "number::option")]
    pub regulariser: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "number::option")]
    pub prediction: Option<f64>,
    /// In the order of the phase's terms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<TermPoint>,
}

/// A term of a meta-loss at one step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TermPoint {
    /// Unweighted.
    #[serde(with = "number")]
    pub loss: f64,
    /// Of the unweighted term's gradient.
    #[serde(with = "number")]
    pub gradient_norm: f64,
}

impl Point {
    /// A loss without parts.
    pub fn of_loss(iteration: usize, loss: f64) -> Self {
        Self { iteration, loss, regulariser: None, prediction: None, terms: Vec::new() }
    }
}

/// Ties a computation to whoever watches it.
#[derive(Clone, Copy)]
pub struct Control<'a> {
    pub observe: &'a (dyn Fn(Event) + Sync),
    /// Set to stop at the next opportunity.
    pub cancelled: &'a AtomicBool,
}

impl Control<'_> {
    pub fn unit(&self, index: usize, count: usize, name: &str) {
        (self.observe)(Event::Unit { index, count, name: name.to_string() });
    }

    /// Does `training`, which is `phase` of `unit`, between the events of a phase's beginning and end; the end is told also where
    /// it fails. `before_s`: what earlier attempts took for it.
    pub fn phase<T>(
        &self,
        (unit, phase): (&str, &str),
        terms: Vec<Term>,
        before_s: f64,
        training: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let started = Instant::now();
        (self.observe)(Event::PhaseBegun { unit: unit.to_string(), phase: phase.to_string(), terms });
        let outcome = training();
        (self.observe)(Event::PhaseEnded { wall_s: before_s + started.elapsed().as_secs_f64() });
        outcome
    }

    /// [`Error::Interrupted`] once cancelled.
    pub fn check(&self) -> Result<()> {
        match self.cancelled.load(Ordering::Relaxed) {
            true => Err(Error::Interrupted),
            false => Ok(()),
        }
    }
}

/// JSON has no NaN and no infinity: they become text.
mod number {
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};
    use std::fmt;

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        match value.is_finite() {
            true => serializer.serialize_f64(*value),
            false => serializer.serialize_str(&value.to_string()),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        deserializer.deserialize_any(Number)
    }

    struct Number;

    impl Visitor<'_> for Number {
        type Value = f64;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("a number, or one of the texts NaN, inf and -inf")
        }

        fn visit_f64<E: Error>(self, value: f64) -> Result<f64, E> {
            Ok(value)
        }

        fn visit_u64<E: Error>(self, value: u64) -> Result<f64, E> {
            Ok(value as f64)
        }

        fn visit_i64<E: Error>(self, value: i64) -> Result<f64, E> {
            Ok(value as f64)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
            text.parse().map_err(E::custom)
        }
    }

    /// The same for a number that may be missing.
    pub mod option {
        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        #[derive(Serialize, Deserialize)]
        struct Present(#[serde(with = "super")] f64);

        pub fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
            value.map(Present).serialize(serializer)
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
            Ok(Option::<Present>::deserialize(deserializer)?.map(|Present(value)| value))
        }
    }
}

//! Values that carry a directional derivative along, and the roundings that they go straight through.

use super::fake_quant::Linearised;
use super::tape::plain;
use crate::error::{Error, Result};
use candle_core::Tensor;
use std::cell::{Cell, RefCell};

/// A value with its derivative in the direction of the pass; no tangent is zero.
#[derive(Clone)]
pub struct Dual {
    pub value: Tensor,
    pub tangent: Option<Tensor>,
}

impl Dual {
    /// `value` with no tangent, which stands for zero.
    pub fn constant(value: Tensor) -> Self {
        Self { value, tangent: None }
    }

    /// Applies a linear map.
    pub fn map(&self, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self { value: f(&self.value)?, tangent: self.tangent.as_ref().map(f).transpose()? })
    }
}

/// The sum of two tangents.
pub fn sum(a: Option<Tensor>, b: Option<Tensor>) -> Result<Option<Tensor>> {
    match (a, b) {
        (Some(a), Some(b)) => Ok(Some(plain::add(&a, &b)?)),
        (a, b) => Ok(a.or(b)),
    }
}

/// Where activations, and weights whose rounding passes gradients straight through, are rounded.
pub enum Roundings {
    /// Wherever they are.
    Fresh,
    /// Wherever they are, and remembered.
    Record(RefCell<Vec<Linearised>>),
    /// As recorded, in the same order of passes; the counter is the next one.
    Replay(Vec<Linearised>, Cell<usize>),
}

impl Roundings {
    /// The next rounding: `fresh()`, or the one that was recorded in its place.
    ///
    /// Errors: more are asked for than were recorded.
    pub fn next(&self, fresh: impl FnOnce() -> Result<Linearised>) -> Result<Linearised> {
        if let Roundings::Replay(recorded, next) = self {
            let index = next.replace(next.get() + 1);
            return recorded.get(index).cloned().ok_or_else(|| Error::Shape {
                op: "replayed roundings",
                problem: format!("only {} were recorded", recorded.len()),
            });
        }
        let fresh = fresh()?;
        if let Roundings::Record(recorded) = self {
            recorded.borrow_mut().push(fresh.clone());
        }
        Ok(fresh)
    }
}

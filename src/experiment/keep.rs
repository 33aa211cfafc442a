//! What a run leaves beside its record when it is asked for: no part of its identity.

use serde::{Deserialize, Serialize};

/// What of a cell's networks is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Keep {
    /// The quantized network.
    pub model: bool,
    /// The transform network, as its training for the last unit left it.
    pub transform: bool,
}

impl Keep {
    /// Whether a run leaves neither of them.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// What either of them keeps.
    pub fn or(self, other: Self) -> Self {
        Self { model: self.model || other.model, transform: self.transform || other.transform }
    }
}

//! How factors of products are rounded on GPUs; [`super::device`] sets it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How factors of convolutions and matrix products are rounded before they are multiplied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Not at all: `f32`.
    #[default]
    F32,
    /// TensorFloat-32: to 10 bits of mantissa, on NVIDIA GPUs of compute capability 8.0 and later.
    Tf32,
}

impl Precision {
    /// Whether it is the default.
    pub fn is_f32(&self) -> bool {
        *self == Precision::F32
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
        })
    }
}

//! Bit widths, and which layers are spared from the low ones.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Bit widths of weights and activations; prints as `W2A4`. 32 means "not quantized".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bits {
    pub w: u32,
    pub a: u32,
}

impl Bits {
    /// The width that stands for full precision.
    pub const FULL: u32 = 32;
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "W{}A{}", self.w, self.a)
    }
}

impl From<Bits> for String {
    fn from(bits: Bits) -> String {
        bits.to_string()
    }
}

impl FromStr for Bits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let upper = text.to_ascii_uppercase();
        let parsed = upper.strip_prefix('W').and_then(|rest| rest.split_once('A'));
        let (Some(w), Some(a)) = (parsed.and_then(|(w, _)| w.parse().ok()), parsed.and_then(|(_, a)| a.parse().ok()))
        else {
            return Err(format!("bits {text:?} are not of the form \"W4A8\""));
        };
        for (what, bits) in [("weight", w), ("activation", a)] {
            if !(2..=8).contains(&bits) && bits != Bits::FULL {
                return Err(format!("{what} bits must be 2 to 8, or 32 for not quantized; got {bits}"));
            }
        }
        Ok(Bits { w, a })
    }
}

impl TryFrom<String> for Bits {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Which layers stay at 8 bits beside the first and last layers' weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Setting {
    /// Also the input of the second layer, that is, the output of the first.
    Brecq,
    /// Nothing else.
    Qdrop,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Setting::Brecq => "brecq",
            Setting::Qdrop => "qdrop",
        })
    }
}

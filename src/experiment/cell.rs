//! A cell: one configuration of a grid, with nothing left to default.

use crate::data::augment::Augmentation;
use crate::data::{CardSize, Corrupt};
use crate::error::{Error, Result as LibraryResult};
use crate::meta::config::{Meta, Terms, Transform};
use crate::recon::recipe::Recipe;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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

/// One configuration, resolved: everything that determines its result except the content of weights and data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Cell {
    /// Name in [`crate::arch::ARCHS`].
    pub arch: String,
    /// Where the weights come from, see [`crate::assets::source::WeightsSource`].
    pub weights: String,
    /// Name in [`crate::data::DATASETS`].
    pub dataset: String,
    /// Where the images lie ([`crate::data::location::Location`]); not part of the run's identity, their hashes are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// What becomes of images that cannot be decoded.
    #[serde(default, skip_serializing_if = "Corrupt::is_error")]
    pub corrupt: Corrupt,
    /// At which of the sizes of its checkpoint's `config.json` it is tested.
    #[serde(default, skip_serializing_if = "CardSize::is_test")]
    pub preprocess: CardSize,
    pub bits: Bits,
    /// Name in [`crate::methods::METHODS`].
    pub method: String,
    /// Name of the grid's variant, if it has variants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    pub setting: Setting,
    /// Number of calibration images.
    pub calib_images: usize,
    pub seed: u64,
    /// Applied in this order to a copy of the calibration images, or to the transformed ones, that joins the originals.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub augment: Vec<Augmentation>,
    pub recipe: Recipe,
    /// The transform network, if the training images are transformed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<Transform>,
    /// How it is trained; there is one of these where there is a transform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<Meta>,
    /// Likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<Terms>,
}

impl Cell {
    /// Readable part of a run id: `resnet20-w2a4-qdrop-s0`, with the variant's name if there is one.
    pub fn slug(&self) -> String {
        let bits = self.bits.to_string().to_lowercase();
        let variant = self.variant.as_ref().map_or(String::new(), |variant| format!("-{variant}"));
        format!("{}-{bits}-{}{variant}-s{}", self.arch, self.method, self.seed)
    }

    /// The cell as complete TOML, which parses back to it.
    pub fn to_toml(&self) -> LibraryResult<String> {
        toml::to_string(self)
            .map_err(|error| Error::Usage(format!("cell {} cannot be written as TOML: {error}", self.slug())))
    }

    /// Every field by its dotted key, as text.
    pub fn fields(&self) -> BTreeMap<String, String> {
        fn flatten(prefix: &str, value: &toml::Value, fields: &mut BTreeMap<String, String>) {
            match value {
                toml::Value::Table(table) => {
                    for (key, value) in table {
                        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                        flatten(&key, value, fields);
                    }
                }
                toml::Value::String(text) => {
                    fields.insert(prefix.to_string(), text.clone());
                }
                other => {
                    fields.insert(prefix.to_string(), other.to_string());
                }
            }
        }
        let mut fields = BTreeMap::new();
        if let Ok(value) = toml::Value::try_from(self) {
            flatten("", &value, &mut fields);
        }
        fields
    }
}

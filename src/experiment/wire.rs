//! A grid file as written.
//!
//! ```toml
//! name = "drop"                     # results go to results/drop/
//! title = "Dropping at 2 bits"      # optional: heading of tables
//! about = "What this shows."        # optional
//! save-model = true                 # optional: keep the quantized network beside each record; no part of a run's identity
//! save-transform = true             # optional: keep the transform network, where a cell has one
//!
//! [track]                           # optional: tell an MLflow server of runs as they are made; no part of a run's identity
//! mlflow = "http://127.0.0.1:5000"  # optional: where it is; MLFLOW_TRACKING_URI and --track=URL say otherwise
//!
//! [base]                            # what all cells share: any field of a cell
//! arch = "resnet20"
//! dataset = "cifar-10"              # optional: fashion-mnist (the default), mnist, cifar-10, cifar-100, imagenet, image-folder
//! data = "binary:cifar-10"          # optional: where it lies, by default under $HARNESS_DATA; folder:, parquet:, binary:, idx:
//! corrupt = "skip"                  # optional: leave out images that cannot be decoded; by default they are errors
//! preprocess = "train"              # optional: the size of training that a timm checkpoint names; by default that of testing
//! precision = "tf32"                # optional, on NVIDIA GPUs: products of factors rounded to TensorFloat-32; by default f32
//! calib-images = 1024
//! augment = ["mixup"]               # optional: images added to the calibration images (see [`ptq::augment`])
//! [base.recipe]                     # any field of a recipe
//! iterations = 1000
//! [base.transform]                  # any field of a [`ptq::meta::nets::Transform`]; `net` gives one to any method
//! base = 16
//! [base.meta]                       # any field of a [`ptq::meta::config::Meta`]
//! inner = "sgd"
//! [base.terms]                      # weights of the meta-loss, see [`ptq::meta::terms`]
//! margin = 0.0
//!
//! [axes]                            # one cell per combination, in the order written
//! bits = ["W4A4", "W2A2"]
//! method = ["qdrop", "genie-m"]
//! seed = [0, 1, 2]
//! "recipe.drop-input" = [0.0, 0.5]
//!
//! [variants.published]              # optional, one more axis: named overrides
//! [variants.constant]
//! recipe = { act-scale-lr = 0.0 }
//!
//! [[include]]                       # one more cell
//! method = "rtn"
//! variant = "control"               # optional: its name in tables
//! bits = "W8A8"
//!
//! [[exclude]]                       # drops the cells that match all keys; lists are alternatives
//! method = "genie-m"
//! "recipe.drop-input" = 0.0
//!
//! [smoke.set]                       # with --smoke: overrides on top of everything ...
//! calib-images = 64
//! [smoke.axes]                      # ... and replaced axes
//! seed = [0]
//! ```
//!
//! `[slurm]` says what `harness submit` asks of a cluster ([`slurm`](super::slurm)).
//!
//! Tables beside the standard one are declared with `[[table]]` ([`table`](super::table)), figures with `[[figure]]`
//! ([`figure`](super::figure)).
//!
//! Later wins: the method's published recipe, `base`, `axes`, `variants`; for an included cell the published recipe,
//! `base`, its own table; then `smoke.set`, then `--set`. An axis whose field one of these last two decides has one value
//! left. `recipe.act-search-images` is cut to `calib-images`. `transform` (but its `net`), `meta` and `terms` concern only cells that
//! have a transform network: those of a method that brings one, and those with a `transform.net`.

use super::figure::WireFigure;
use super::names::is_kebab_case;
use super::slurm::SlurmOptions;
use super::table::WireTable;
use crate::assets::source::WeightsSource;
use crate::data;
use crate::data::location::Location;
use crate::data::{CardSize, Corrupt};
use crate::http::Address;
use ptq::augment::Augmentation;
use ptq::meta::config::MetaOverride;
use ptq::meta::nets::TransformOverride;
use ptq::meta::terms::TermsOverride;
use ptq::ops::precision::Precision;
use ptq::recipe::RecipeOverride;
use ptq::recipe::{Bits, Setting};
use ptq::{arch, methods};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use toml::Spanned;

/// The file.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Grid {
    pub name: Spanned<String>,
    pub title: Option<String>,
    pub about: Option<String>,
    #[serde(default)]
    pub save_model: bool,
    #[serde(default)]
    pub save_transform: bool,
    pub track: Option<Track>,
    pub base: Option<Spanned<CellOverride>>,
    #[serde(default)]
    pub axes: Axes,
    #[serde(default)]
    pub variants: BTreeMap<Spanned<String>, Spanned<CellOverride>>,
    #[serde(default)]
    pub include: Vec<Spanned<CellOverride>>,
    #[serde(default)]
    pub exclude: Vec<Spanned<BTreeMap<String, toml::Value>>>,
    pub smoke: Option<Smoke>,
    pub slurm: Option<Spanned<SlurmOptions>>,
    #[serde(default)]
    pub table: Vec<WireTable>,
    #[serde(default)]
    pub figure: Vec<WireFigure>,
}

/// That runs are told to a tracker as they are made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Track {
    /// Where the MLflow server is; `None`: as the environment says.
    #[serde(default, deserialize_with = "http_address")]
    pub mlflow: Option<Address>,
}

/// Axis values by key; their spans give the order in which they were written.
pub type Axes = BTreeMap<Spanned<String>, Spanned<Vec<Spanned<toml::Value>>>>;

/// What `--smoke` changes.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Smoke {
    pub set: Option<Spanned<CellOverride>>,
    #[serde(default)]
    pub axes: Axes,
}

/// Fields of a cell that some table sets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct CellOverride {
    #[serde(deserialize_with = "known_arch")]
    pub arch: Option<String>,
    #[serde(deserialize_with = "known_weights")]
    pub weights: Option<String>,
    #[serde(deserialize_with = "known_dataset")]
    pub dataset: Option<String>,
    #[serde(deserialize_with = "known_location")]
    pub data: Option<String>,
    pub corrupt: Option<Corrupt>,
    pub preprocess: Option<CardSize>,
    pub precision: Option<Precision>,
    pub bits: Option<Bits>,
    #[serde(deserialize_with = "known_method")]
    pub method: Option<String>,
    #[serde(deserialize_with = "kebab_case")]
    pub variant: Option<String>,
    pub setting: Option<Setting>,
    pub calib_images: Option<usize>,
    pub seed: Option<u64>,
    pub augment: Option<Vec<Augmentation>>,
    pub recipe: RecipeOverride,
    pub transform: TransformOverride,
    pub meta: MetaOverride,
    pub terms: TermsOverride,
}

impl CellOverride {
    /// Takes over the fields that `over` sets.
    pub fn merge(&mut self, over: &CellOverride) {
        fn take<T: Clone>(own: &mut Option<T>, over: &Option<T>) {
            if over.is_some() {
                own.clone_from(over);
            }
        }
        take(&mut self.arch, &over.arch);
        take(&mut self.weights, &over.weights);
        take(&mut self.dataset, &over.dataset);
        take(&mut self.data, &over.data);
        take(&mut self.corrupt, &over.corrupt);
        take(&mut self.preprocess, &over.preprocess);
        take(&mut self.precision, &over.precision);
        take(&mut self.bits, &over.bits);
        take(&mut self.method, &over.method);
        take(&mut self.variant, &over.variant);
        take(&mut self.setting, &over.setting);
        take(&mut self.calib_images, &over.calib_images);
        take(&mut self.seed, &over.seed);
        take(&mut self.augment, &over.augment);
        self.recipe.merge(&over.recipe);
        self.transform.merge(&over.transform);
        self.meta.merge(&over.meta);
        self.terms.merge(&over.terms);
    }

    /// `value` at a dotted `key` such as `recipe.iterations`.
    pub fn single(key: &str, value: toml::Value) -> Result<Self, toml::de::Error> {
        let nested =
            key.rsplit('.').fold(value, |value, part| toml::Table::from_iter([(part.to_string(), value)]).into());
        Self::deserialize(nested)
    }
}

fn kebab_case<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = String::deserialize(deserializer)?;
    match is_kebab_case(&name) {
        true => Ok(Some(name)),
        false => Err(serde::de::Error::custom(format!("variant `{name}` is not kebab-case"))),
    }
}

/// Accepts one of `known`; the error lists them in the form in which serde lists field names.
fn one_of<'de, D: Deserializer<'de>>(
    deserializer: D,
    what: &str,
    known: impl Iterator<Item = &'static str>,
) -> Result<Option<String>, D::Error> {
    let name = String::deserialize(deserializer)?;
    let known: Vec<&str> = known.collect();
    if known.contains(&name.as_str()) {
        return Ok(Some(name));
    }
    let listed: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    Err(serde::de::Error::custom(format!("unknown {what} `{name}`, expected one of {}", listed.join(", "))))
}

fn known_arch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    one_of(deserializer, "architecture", arch::ARCHS.iter().map(|arch| arch.name))
}

fn known_dataset<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    one_of(deserializer, "data set", data::DATASETS.iter().map(|dataset| dataset.name))
}

fn known_location<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let location: Location = text.parse().map_err(serde::de::Error::custom)?;
    Ok(Some(location.to_string()))
}

fn known_method<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    one_of(deserializer, "method", methods::METHODS.iter().map(|method| method.name))
}

fn http_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Address>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(serde::de::Error::custom)
}

fn known_weights<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let spec = String::deserialize(deserializer)?;
    WeightsSource::parse(&spec).map_err(serde::de::Error::custom)?;
    Ok(Some(spec))
}

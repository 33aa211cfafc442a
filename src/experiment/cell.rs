//! A cell: one configuration of a grid, with nothing left to default.

use crate::data::{CardSize, Corrupt};
use crate::error::{Error, Result as LibraryResult};
use ptq::augment::Augmentation;
use ptq::meta::config::Meta;
use ptq::meta::nets::Transform;
use ptq::meta::terms::Terms;
use ptq::ops::precision::Precision;
use ptq::recipe::{Bits, Granularity, Recipe, Setting};
use ptq::{arch, methods};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One configuration, resolved: everything that determines its result except the content of weights and data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Cell {
    /// Name in [`ptq::arch::ARCHS`].
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
    /// How factors of products are rounded; anything but `f32` needs a GPU.
    #[serde(default, skip_serializing_if = "Precision::is_f32")]
    pub precision: Precision,
    pub bits: Bits,
    /// Name in [`ptq::methods::METHODS`].
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

    /// Errors: the first field of one of its tables that is out of its bounds, by its dotted key, and what is wrong with it.
    pub fn check_bounds(&self) -> Result<(), (String, String)> {
        let in_table = |table: &str, checked: Result<(), (String, String)>| {
            checked.map_err(|(key, problem)| (format!("{table}.{key}"), problem))
        };
        in_table("recipe", self.recipe.check_bounds())?;
        in_table("transform", self.transform.as_ref().map_or(Ok(()), Transform::check_bounds))?;
        in_table("meta", self.meta.as_ref().map_or(Ok(()), Meta::check_bounds))?;
        in_table("terms", self.terms.as_ref().map_or(Ok(()), Terms::check_bounds))
    }

    /// Names of the fields in which it departs from what was published of its method, as written in a grid.
    pub fn departures(&self) -> Vec<String> {
        let (Some(arch), Some(method)) = (arch::find(&self.arch), methods::find(&self.method)) else {
            return Vec::new();
        };
        // A method that optimises nothing has no recipe to depart from.
        if self.recipe.granularity == Granularity::None {
            return Vec::new();
        }
        let mut published = (method.recipe)(arch);
        published.act_search_images = published.act_search_images.min(self.calib_images);
        let mut departures = self.recipe.departures(&published);
        if !method.settings.contains(&self.setting) {
            departures.insert(0, "setting".to_string());
        }
        if let (Some(transform), Some(meta), Some(terms)) = (&self.transform, &self.meta, &self.terms) {
            let mut named = |table: &str, names: Vec<String>| {
                departures.extend(names.into_iter().map(|name| format!("{table}.{name}")));
            };
            named("transform", transform.departures(&Transform::published()));
            named("meta", meta.departures(&Meta::published(arch)));
            named("terms", terms.departures(&Terms::published()));
        }
        departures
    }
}

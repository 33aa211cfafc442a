//! The weights of the terms: the table `[terms]` of a cell, keyed by the rows of [`TERMS`].

use super::{TERMS, Term};
use crate::recipe::Bounds;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::collections::BTreeMap;
use std::fmt;

/// Weights of the terms of the meta-loss; 0 leaves a term out.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms(BTreeMap<&'static str, f64>);

/// Weights that a grid sets; the others keep the published values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TermsOverride(BTreeMap<&'static str, f64>);

impl Terms {
    /// The weights of MetaAug's paper (section 4.1).
    pub fn published() -> Self {
        Self(TERMS.iter().map(|term| (term.name, term.published)).collect())
    }

    /// All terms with the same weight.
    pub fn all(weight: f64) -> Self {
        Self(TERMS.iter().map(|term| (term.name, weight)).collect())
    }

    /// That of the term called `name`; 0 for an unknown one.
    pub fn weight(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }

    /// Gives `term` this weight; 0 takes it out of the meta-loss.
    pub fn set(&mut self, term: &'static Term, weight: f64) {
        self.0.insert(term.name, weight);
    }

    /// Every term with its weight, in the order of [`TERMS`].
    pub fn iter(&self) -> impl Iterator<Item = (&'static Term, f64)> + '_ {
        TERMS.iter().map(|term| (term, self.weight(term.name)))
    }

    /// The names of all terms.
    pub fn keys() -> Vec<String> {
        TERMS.iter().map(|term| term.name.to_string()).collect()
    }

    /// Errors: the first term with a weight that is no finite number from 0 on, and what is wrong with it.
    pub fn check_bounds(&self) -> Result<(), (String, String)> {
        let mut terms = self.iter();
        terms.try_for_each(|(term, weight)| {
            Bounds::From(0.0).check(weight).map_err(|problem| (term.name.to_string(), problem))
        })
    }

    /// The names of the terms whose weights differ.
    pub fn departures(&self, published: &Self) -> Vec<String> {
        let differing = self.iter().filter(|(term, weight)| *weight != published.weight(term.name));
        differing.map(|(term, _)| term.name.to_string()).collect()
    }
}

impl TermsOverride {
    /// Writes the weights that are set into `resolved`.
    pub fn apply(&self, resolved: &mut Terms) {
        resolved.0.extend(&self.0);
    }

    /// `over`'s weights where it has them, else `self`'s.
    pub fn merge(&mut self, over: &Self) {
        self.0.extend(&over.0);
    }
}

/// In the order of [`TERMS`]; a term that came later is left out where it is off, so that the ids of runs without it stay.
impl Serialize for Terms {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = self.iter().filter(|(term, weight)| term.is_always_written || *weight != 0.0);
        map(written.map(|(term, weight)| (term.name, weight)), serializer)
    }
}

impl Serialize for TermsOverride {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        map(TERMS.iter().filter_map(|term| Some((term.name, *self.0.get(term.name)?))), serializer)
    }
}

fn map<S: Serializer>(weights: impl Iterator<Item = (&'static str, f64)>, serializer: S) -> Result<S::Ok, S::Error> {
    let weights: Vec<_> = weights.collect();
    let mut map = serializer.serialize_map(Some(weights.len()))?;
    weights.into_iter().try_for_each(|(name, weight)| map.serialize_entry(name, &weight))?;
    map.end()
}

/// Errors: a name that is not in [`TERMS`], or none for a term that is always written.
impl<'de> Deserialize<'de> for Terms {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let weights = deserializer.deserialize_map(Weights)?;
        match TERMS.iter().find(|term| term.is_always_written && !weights.contains_key(term.name)) {
            Some(term) => Err(D::Error::missing_field(term.name)),
            None => Ok(Self(TERMS.iter().map(|t| (t.name, weights.get(t.name).copied().unwrap_or(0.0))).collect())),
        }
    }
}

impl<'de> Deserialize<'de> for TermsOverride {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Weights).map(Self)
    }
}

struct Weights;

impl<'de> Visitor<'de> for Weights {
    type Value = BTreeMap<&'static str, f64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("weights of terms of the meta-loss")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut weights = BTreeMap::new();
        while let Some(Name(name)) = access.next_key()? {
            if weights.insert(name, access.next_value()?).is_some() {
                return Err(A::Error::duplicate_field(name));
            }
        }
        Ok(weights)
    }
}

/// A row of [`TERMS`], by name: what is wrong with it stands where the name does.
struct Name(&'static str);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let term = TERMS.iter().find(|term| term.name == name).map(|term| Name(term.name));
        term.ok_or_else(|| {
            let known: Vec<String> = TERMS.iter().map(|term| format!("`{}`", term.name)).collect();
            D::Error::custom(format!("unknown field `{name}`, expected one of {}", known.join(", ")))
        })
    }
}

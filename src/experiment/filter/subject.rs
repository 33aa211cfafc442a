//! What a filter selects: anything whose fields have names.

use super::vocabulary::is_run_predicate;
use crate::experiment::Cell;

/// Something with named values.
pub trait Subject {
    /// What several are called in errors.
    const CALLED: &'static str;

    /// Whether predicate `name` means something for them.
    fn knows(name: &str) -> bool;

    /// The values called `name`, as text: none where it has none, several for a list; `None` if it is not known whether
    /// there are any, as of a cell how its run ended.
    fn values(&self, name: &str) -> Option<Vec<String>>;
}

impl Subject for Cell {
    const CALLED: &'static str = "cells";

    fn knows(name: &str) -> bool {
        !is_run_predicate(name)
    }

    fn values(&self, name: &str) -> Option<Vec<String>> {
        if is_run_predicate(name) {
            return None;
        }
        Some(self.field_values(name))
    }
}

impl Cell {
    /// The text of the field at dotted key `name`, or the texts of a list; empty where the cell has no such field.
    pub fn field_values(&self, name: &str) -> Vec<String> {
        fn text(value: toml::Value) -> Vec<String> {
            match value {
                toml::Value::String(text) => vec![text],
                toml::Value::Array(values) => values.into_iter().flat_map(text).collect(),
                other => vec![other.to_string()],
            }
        }
        // What most filters ask for, of ten thousand runs, without writing the whole cell as TOML.
        match name {
            "arch" => return vec![self.arch.clone()],
            "bits" => return vec![self.bits.to_string()],
            "method" => return vec![self.method.clone()],
            "variant" => return self.variant.iter().cloned().collect(),
            "seed" => return vec![self.seed.to_string()],
            _ => (),
        }
        let within = |table: Result<toml::Value, toml::ser::Error>, key: &str| match table {
            Ok(toml::Value::Table(mut table)) => table.remove(key).map_or(Vec::new(), text),
            _ => Vec::new(),
        };
        match name.split_once('.') {
            Some(("recipe", key)) => within(toml::Value::try_from(&self.recipe), key),
            Some(("transform", key)) => {
                self.transform.as_ref().map_or(Vec::new(), |t| within(toml::Value::try_from(t), key))
            }
            Some(("meta", key)) => {
                self.meta.as_ref().map_or(Vec::new(), |meta| within(toml::Value::try_from(meta), key))
            }
            Some(("terms", key)) => {
                self.terms.as_ref().map_or(Vec::new(), |terms| within(toml::Value::try_from(terms), key))
            }
            _ => within(toml::Value::try_from(self), name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::vocabulary;
    use super::*;
    use crate::store::record::Record;

    #[test]
    fn every_field_is_found_by_its_key_as_fields_has_it() {
        let mut cell = Record::sample("x", "qdrop", "W2A2", 3).cell;
        cell.variant = Some("v".into());
        for (key, text) in cell.fields() {
            assert_eq!(cell.field_values(&key), [text], "{key}");
        }
        assert!(
            vocabulary().keys().filter(|key| key.starts_with("meta.")).all(|key| cell.field_values(key).is_empty())
        );
        assert!(cell.field_values("recipe.nothing").is_empty() && cell.values("status").is_none());
    }
}

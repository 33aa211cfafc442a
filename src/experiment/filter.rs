//! Selecting cells: `method=qdrop|genie-*,bits=w2a2`.

use super::cell::Cell;
use super::diagnostic::suggest;
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// Conditions that must all hold; each compares a field with alternatives, case-insensitively, `*` matching anything.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    conditions: Vec<(String, Vec<String>)>,
}

impl Filter {
    /// Parses `key=pattern|pattern,key=pattern`; the keys are those of a cell, recipe fields as `recipe.KEY`.
    pub fn parse(text: &str) -> Result<Self> {
        let mut conditions = Vec::new();
        let mut column = 1;
        for part in text.split(',') {
            match part.split_once('=') {
                Some((key, patterns)) if !key.trim().is_empty() && !patterns.trim().is_empty() => {
                    let patterns = patterns.split('|').map(|pattern| pattern.trim().to_lowercase()).collect();
                    conditions.push((key.trim().to_string(), patterns));
                }
                _ => {
                    return Err(Error::Usage(format!(
                        "filter {text:?}, column {column}: {part:?} is not of the form key=value (for example method=qdrop,bits=w2a2)"
                    )));
                }
            }
            column += part.chars().count() + 1;
        }
        Ok(Self { conditions })
    }

    /// A filter from a table whose values are single values or lists of alternatives.
    pub(super) fn from_table(table: &BTreeMap<String, toml::Value>) -> Self {
        let conditions = table.iter().map(|(key, value)| {
            let alternatives = match value {
                toml::Value::Array(values) => values.iter().map(plain).collect(),
                single => vec![plain(single)],
            };
            (key.clone(), alternatives)
        });
        Self { conditions: conditions.collect() }
    }

    /// The first key that no cell has, with the known ones.
    pub fn unknown_key(&self, cells: &[Cell]) -> Option<(String, String)> {
        let fields = cells.first()?.fields();
        let (key, _) = self.conditions.iter().find(|(key, _)| key != "variant" && !fields.contains_key(key))?;
        let known: Vec<&str> = fields.keys().map(String::as_str).chain(["variant"]).collect();
        Some((key.clone(), suggest(key, &known)))
    }

    /// The cells that match. Errors: a key that no cell has; nothing matched.
    pub fn select(&self, cells: Vec<Cell>) -> Result<Vec<Cell>> {
        if let Some((key, help)) = self.unknown_key(&cells) {
            return Err(Error::Usage(format!("filter: there is no key {key:?}; {help}")));
        }
        let total = cells.len();
        let selected: Vec<Cell> = cells.into_iter().filter(|cell| self.matches(cell)).collect();
        match selected.is_empty() {
            true => Err(Error::NothingMatched(format!(
                "the filter matches none of {total} cells; `harness plan GRID` lists them"
            ))),
            false => Ok(selected),
        }
    }

    pub fn matches(&self, cell: &Cell) -> bool {
        let fields = cell.fields();
        self.conditions.iter().all(|(key, patterns)| {
            let value = fields.get(key).map(|value| value.to_lowercase()).unwrap_or_default();
            patterns.iter().any(|pattern| glob(pattern, &value))
        })
    }
}

/// The text of a value as [`Cell::fields`] has it, in lower case.
fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.to_lowercase(),
        other => other.to_string(),
    }
}

/// Whether `text` matches `pattern`, in which `*` stands for any characters.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|tail| {
            tail.char_indices().map(|(at, _)| at).chain([tail.len()]).any(|at| glob(rest, &tail[at..]))
        }),
    }
}

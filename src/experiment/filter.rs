//! Selecting cells: `method=qdrop|genie-*,bits=w2a2`.

use super::cell::Cell;
use super::diagnostic::suggest;
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// What is selected by: values by dotted keys, as text.
type Fields = BTreeMap<String, String>;

/// Conditions that must all hold; each compares a field with alternatives, case-insensitively, `*` matching anything.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// As given on the command line.
    text: String,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug)]
struct Condition {
    key: String,
    /// In lower case.
    patterns: Vec<String>,
    /// Where it begins in the text, from 1.
    column: usize,
}

impl Filter {
    /// Parses `key=pattern|pattern,key=pattern`; the keys are those of a cell, recipe fields as `recipe.KEY`.
    pub fn parse(text: &str) -> Result<Self> {
        let mut conditions = Vec::new();
        let mut column = 1;
        for part in text.split(',') {
            let (key, patterns) = part.split_once('=').unwrap_or((part, ""));
            let patterns: Vec<String> = patterns.split('|').map(|pattern| pattern.trim().to_lowercase()).collect();
            if key.trim().is_empty() || patterns.iter().any(String::is_empty) {
                return Err(Error::Usage(format!(
                    "filter {text:?}, column {column}: {part:?} is not of the form key=value (for example method=qdrop,bits=w2a2)"
                )));
            }
            conditions.push(Condition { key: key.trim().to_string(), patterns, column });
            column += part.chars().count() + 1;
        }
        Ok(Self { text: text.to_string(), conditions })
    }

    /// A filter from a table whose values are single values or lists of alternatives.
    pub(super) fn from_table(table: &BTreeMap<String, toml::Value>) -> Self {
        fn flatten(key: String, value: &toml::Value, conditions: &mut Vec<Condition>) {
            let patterns = match value {
                toml::Value::Table(table) => {
                    return table
                        .iter()
                        .for_each(|(inner, value)| flatten(format!("{key}.{inner}"), value, conditions));
                }
                toml::Value::Array(values) => values.iter().map(plain).collect(),
                single => vec![plain(single)],
            };
            conditions.push(Condition { key, patterns, column: 1 });
        }
        let mut conditions = Vec::new();
        table.iter().for_each(|(key, value)| flatten(key.clone(), value, &mut conditions));
        Self { text: String::new(), conditions }
    }

    /// The first key that no cell has, with the known ones.
    pub fn unknown_key(&self, cells: &[Cell]) -> Option<(String, String)> {
        let fields: Vec<Fields> = cells.iter().map(Cell::fields).collect();
        let (condition, help) = self.unknown(&fields)?;
        Some((condition.key.clone(), help))
    }

    fn unknown(&self, items: &[Fields]) -> Option<(&Condition, String)> {
        let mut known: BTreeSet<&str> = items.iter().flat_map(|fields| fields.keys().map(String::as_str)).collect();
        if known.is_empty() {
            return None;
        }
        known.insert("variant");
        let condition = self.conditions.iter().find(|condition| !known.contains(condition.key.as_str()))?;
        Some((condition, suggest(&condition.key, &known.into_iter().collect::<Vec<_>>())))
    }

    /// The cells that match. Errors: a key that no cell has; nothing matched.
    pub fn select(&self, cells: Vec<Cell>) -> Result<Vec<Cell>> {
        self.select_by(cells, "cells", Cell::fields)
    }

    /// The `items` (called so in errors) that match by their `fields`. Errors: a key that none has; nothing matched.
    pub fn select_by<T>(&self, items: Vec<T>, called: &str, fields: impl Fn(&T) -> Fields) -> Result<Vec<T>> {
        let fields: Vec<Fields> = items.iter().map(fields).collect();
        if let Some((Condition { key, column, .. }, help)) = self.unknown(&fields) {
            let text = &self.text;
            return Err(Error::Usage(format!("filter {text:?}, column {column}: there is no key {key:?}; {help}")));
        }
        let total = items.len();
        let matching = items.into_iter().zip(&fields).filter(|(_, fields)| self.holds(fields));
        let selected: Vec<T> = matching.map(|(item, _)| item).collect();
        if selected.is_empty() {
            let (text, why) = (&self.text, self.why_none(&fields));
            return Err(Error::NothingMatched(format!("filter {text:?} matches none of {total} {called}: {why}")));
        }
        Ok(selected)
    }

    /// Which condition no cell meets, and what it could have been.
    pub(super) fn why_nothing(&self, cells: &[Cell]) -> String {
        self.why_none(&cells.iter().map(Cell::fields).collect::<Vec<_>>())
    }

    fn why_none(&self, fields: &[Fields]) -> String {
        let unmet = self.conditions.iter().find(|condition| !fields.iter().any(|fields| condition.holds(fields)));
        let Some(Condition { key, patterns, .. }) = unmet else {
            return "each condition matches some, but none meets all of them".to_string();
        };
        let present: BTreeSet<&str> = fields.iter().filter_map(|fields| fields.get(key)).map(String::as_str).collect();
        let wanted = patterns.join("|");
        // Ids of runs, say: nobody reads ten thousand of them.
        const LISTED: usize = 30;
        match (present.first(), present.last()) {
            (Some(first), Some(last)) if present.len() > LISTED => {
                format!("none has {key} = {wanted}; there are {} values from {first} to {last}", present.len())
            }
            (Some(_), Some(_)) => {
                let help = suggest(&wanted, &present.into_iter().collect::<Vec<_>>());
                format!("none has {key} = {wanted}; {help}")
            }
            _ => format!("none has a {key}"),
        }
    }

    pub fn matches(&self, cell: &Cell) -> bool {
        self.holds(&cell.fields())
    }

    fn holds(&self, fields: &Fields) -> bool {
        self.conditions.iter().all(|condition| condition.holds(fields))
    }
}

impl Condition {
    fn holds(&self, fields: &Fields) -> bool {
        let value = fields.get(&self.key).map(|value| value.to_lowercase()).unwrap_or_default();
        self.patterns.iter().any(|pattern| glob(pattern, &value) || is_same_number(pattern, &value))
    }
}

/// The text of a value as [`Cell::fields`] has it, in lower case.
fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.to_lowercase(),
        other => other.to_string(),
    }
}

/// Whether both are numbers and equal: `1e-3` selects what is printed as `0.001`.
fn is_same_number(a: &str, b: &str) -> bool {
    matches!((a.parse::<f64>(), b.parse::<f64>()), (Ok(a), Ok(b)) if a == b)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_characters_and_nothing_else_does() {
        let matching = [("*", ""), ("genie-*", "genie-m"), ("*a2", "w4a2"), ("w*a*", "w2a4"), ("é*", "éa")];
        assert!(matching.iter().all(|(pattern, text)| glob(pattern, text)));
        let other = [("genie", "genie-m"), ("*a2", "w2a4"), ("w*a*b", "w2a4"), ("", "a")];
        assert!(!other.iter().any(|(pattern, text)| glob(pattern, text)));
    }

    #[test]
    fn numbers_match_however_they_are_written() {
        assert!(is_same_number("1e-3", "0.001") && is_same_number("0", "0.0"));
        assert!(!is_same_number("nan", "nan") && !is_same_number("w2a2", "w2a2"));
    }

    #[test]
    fn malformed_conditions_are_refused_with_their_column() {
        for (text, column) in [("", 1), ("method", 1), ("seed=1,=2", 8), ("seed=1,method=rtn|", 8), ("seed=1,", 8)] {
            let error = Filter::parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("column {column}:")), "{text:?}: {error}");
        }
    }

    #[test]
    fn what_there_is_instead_is_listed_unless_it_is_too_much() {
        let select = |count: u32| {
            let ids: Vec<String> = (0..count).map(|id| format!("run-{id:03}")).collect();
            let fields = |id: &String| Fields::from([("run".to_string(), id.clone())]);
            Filter::parse("run=x").unwrap().select_by(ids, "runs", fields).unwrap_err().to_string()
        };
        assert!(select(3).ends_with("none has run = x; known: run-000, run-001, run-002"), "{}", select(3));
        assert!(select(400).ends_with("there are 400 values from run-000 to run-399"), "{}", select(400));
    }
}

//! What declared tables and figures have in common: names of files, keys of cells, filters, and entries that are means over
//! seeds and nothing else.

use super::cell::Cell;
use super::filter::Filter;
use super::names::is_kebab_case;
use crate::diagnostic::{GridError, SourceText, suggest};
use crate::error::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use toml::Spanned;

/// The grid that tables and figures are checked against.
pub(super) struct Declarations<'a> {
    pub source: SourceText<'a>,
    cells: &'a [Cell],
    /// Of each cell, every field by its dotted key.
    fields: Vec<BTreeMap<String, String>>,
    known: BTreeSet<String>,
    /// The command line changes what there is to select.
    is_changed: bool,
}

impl<'a> Declarations<'a> {
    /// `needed`: whether anything is declared; cells are looked into only then.
    pub fn new(source: SourceText<'a>, cells: &'a [Cell], is_changed: bool, needed: bool) -> Self {
        let fields: Vec<_> = if needed { cells.iter().map(Cell::fields).collect() } else { Vec::new() };
        let mut known: BTreeSet<String> = fields.iter().flat_map(|fields| fields.keys().cloned()).collect();
        known.insert("variant".to_string());
        Self { source, cells, fields, known, is_changed }
    }

    /// A name that can be a file's, and is not among those `seen` of the same `what` (`table`).
    pub fn name(&self, what: &str, name: &Spanned<String>, seen: &mut BTreeSet<String>) -> Result<(), Box<GridError>> {
        let text = name.get_ref();
        if !is_kebab_case(text) {
            let message = format!("name of a {what} {text:?} is not kebab-case");
            let error = self.source.error(message, Some(name.span()), "here");
            return Err(error.help("it names a file: lower-case words and digits, joined by single hyphens"));
        }
        match seen.insert(text.clone()) {
            true => Ok(()),
            false => {
                let message = format!("two {what}s are called {text:?}");
                Err(self.source.error(message, Some(name.span()), "again").help("rename one of them"))
            }
        }
    }

    /// Keys that cells have, none of them twice.
    pub fn keys<'k>(&self, keys: impl Iterator<Item = (&'k str, Range<usize>)>) -> Result<(), Box<GridError>> {
        let mut seen = BTreeSet::new();
        for (key, span) in keys {
            if !self.known.contains(key) {
                let known: Vec<&str> = self.known.iter().map(String::as_str).collect();
                let error = self.source.error(format!("there is no key {key:?}"), Some(span), "here");
                return Err(error.help(suggest(key, &known)));
            }
            if !seen.insert(key) {
                return Err(self.source.error(format!("key {key:?} is there twice"), Some(span), "again"));
            }
        }
        Ok(())
    }

    /// A filter that selects something.
    pub fn filter(&self, text: Option<&Spanned<String>>) -> Result<Option<Filter>> {
        let Some(text) = text else { return Ok(None) };
        let wrong = |error: crate::Error| match error {
            crate::Error::Grid(error) => error.within(self.source, text.get_ref(), text.span()),
            error => self.source.error(error.to_string(), Some(text.span()), "here"),
        };
        let filter = Filter::parse(text.get_ref()).map_err(wrong)?;
        match filter.select(self.cells.to_vec()) {
            Err(crate::Error::NothingMatched(_)) if self.is_changed => Ok(Some(filter)),
            Err(error) => Err(wrong(error).into()),
            Ok(_) => Ok(Some(filter)),
        }
    }

    /// An entry is a mean over seeds, never over something that the reader does not see.
    ///
    /// Errors: cells that `filter` selects, are alike in all `keys` of the entry, and differ in more than the seed.
    /// `place`: what tells entries apart, and what the remedy calls it.
    pub fn refuse_mixtures(
        &self,
        what: &str,
        keys: &[&str],
        filter: Option<&Filter>,
        (place, span): (&str, Range<usize>),
    ) -> Result<()> {
        let mut entries: BTreeMap<Vec<&str>, &BTreeMap<String, String>> = BTreeMap::new();
        let selected = self.cells.iter().zip(&self.fields);
        let selected = selected.filter(|(cell, _)| filter.is_none_or(|filter| filter.matches(*cell)));
        for (_, fields) in selected {
            let entry: Vec<&str> = keys.iter().map(|key| fields.get(*key).map_or("", String::as_str)).collect();
            let Some(first) = entries.get(&entry) else {
                entries.insert(entry, fields);
                continue;
            };
            let all = fields.keys().chain(first.keys()).filter(|key| *key != "seed");
            if let Some(key) = all.into_iter().find(|key| first.get(*key) != fields.get(*key)) {
                let message = format!("entry {} of {what} mixes cells that differ in {key}", entry.join(", "));
                let help =
                    format!("add {key:?} to {place}, or leave all but one value out with filter = \"{key}(...)\"");
                let error = self.source.error(message, Some(span), "these do not tell them apart");
                return Err(error.help(help).into());
            }
        }
        Ok(())
    }
}

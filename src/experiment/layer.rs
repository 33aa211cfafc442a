//! Overrides that remember which text set each of their fields.
//!
//! A cell is several layers on top of each other, so what is wrong with it may stand anywhere in the grid file or on
//! the command line; an error must show that place and no other.

use super::wire::CellOverride;
use crate::diagnostic::{GridError, SourceText};
use std::collections::BTreeMap;
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// A value as written.
#[derive(Clone)]
pub struct Place<'a> {
    pub source: SourceText<'a>,
    pub span: Range<usize>,
}

impl Place<'_> {
    /// An error about this text.
    pub fn error(&self, message: impl Into<String>, label: &str) -> Box<GridError> {
        self.source.error(message, Some(self.span.clone()), label)
    }
}

/// Fields of a cell that one table, axis value or `--set` sets.
#[derive(Clone, Default)]
pub struct Layer<'a> {
    pub over: CellOverride,
    /// By dotted key.
    places: BTreeMap<String, Place<'a>>,
}

impl<'a> Layer<'a> {
    /// The layer of a table at `path` in `document`, read as `over`.
    pub fn of_table(source: SourceText<'a>, document: &DeTable, path: &[&str], over: &CellOverride) -> Self {
        let table = path.iter().try_fold(document, |table, key| table.get(*key)?.get_ref().as_table());
        Self::of(source, table, over)
    }

    /// The layer of the `index`th table of the array `name` in `document`, read as `over`.
    pub fn of_array_table(
        source: SourceText<'a>,
        document: &DeTable,
        (name, index): (&str, usize),
        over: &CellOverride,
    ) -> Self {
        let array = document.get(name).and_then(|value| value.get_ref().as_array());
        let table = array.and_then(|tables| tables.get(index)).and_then(|value| value.get_ref().as_table());
        Self::of(source, table, over)
    }

    /// The layer of `value` for one dotted `key`, written at `place`.
    pub fn of_value(key: &str, value: toml::Value, place: Place<'a>) -> Result<Self, toml::de::Error> {
        let over = CellOverride::single(key, value)?;
        Ok(Self { over, places: BTreeMap::from([(key.to_string(), place)]) })
    }

    fn of(source: SourceText<'a>, table: Option<&DeTable>, over: &CellOverride) -> Self {
        let mut places = BTreeMap::new();
        if let Some(table) = table {
            collect_places(source, "", table, &mut places);
        }
        Self { over: over.clone(), places }
    }

    /// Puts `above` on top.
    pub fn merge(&mut self, above: &Layer<'a>) {
        self.over.merge(&above.over);
        self.places.extend(above.places.iter().map(|(key, place)| (key.clone(), place.clone())));
    }

    /// The text that set the field at dotted `key`, or the table that it is in.
    pub fn place(&self, key: &str) -> Option<&Place<'a>> {
        let table = || key.rsplit_once('.').and_then(|(table, _)| self.places.get(table));
        self.places.get(key).or_else(table)
    }
}

fn collect_places<'a>(source: SourceText<'a>, prefix: &str, table: &DeTable, places: &mut BTreeMap<String, Place<'a>>) {
    for (key, value) in table {
        let key = if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        match value.get_ref() {
            DeValue::Table(inner) => collect_places(source, &key, inner, places),
            _ => {
                places.insert(key, Place { source, span: value.span() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[base]\nseed = 1\n[base.recipe]\nact-phase-iterations = 7\niterations = 8\n[[include]]\n\
                        recipe.batch = 4\n[[include]]\nrecipe = { batch = 5 }\n";

    fn text_at(layer: &Layer, key: &str) -> Option<&'static str> {
        layer.place(key).map(|place| &TEXT[place.span.clone()])
    }

    #[test]
    fn each_key_is_found_in_its_own_table_however_it_is_written() {
        let source = SourceText { name: "x.toml", text: TEXT };
        let document = DeTable::parse(TEXT).unwrap();
        let over = CellOverride::default();
        let mut layer = Layer::of_table(source, document.get_ref(), &["base"], &over);
        assert_eq!(text_at(&layer, "seed"), Some("1"));
        assert_eq!(text_at(&layer, "recipe.iterations"), Some("8"));
        assert_eq!(text_at(&layer, "recipe.batch"), None);
        let [first, second] =
            [0, 1].map(|index| Layer::of_array_table(source, document.get_ref(), ("include", index), &over));
        layer.merge(&first);
        assert_eq!(text_at(&layer, "recipe.batch"), Some("4"));
        layer.merge(&second);
        assert_eq!(text_at(&layer, "recipe.batch"), Some("5"));
        assert_eq!(text_at(&layer, "recipe.iterations"), Some("8"));
    }
}

//! Tables that a grid declares.
//!
//! ```toml
//! [[table]]
//! name = "main"                     # goes to results/<grid>/tables/main.{md,tex,csv}
//! caption = "All methods."          # optional
//! rows = ["arch", "method"]         # keys of cells: one row per combination met
//! columns = "bits"                  # a key of cells: one column per value
//! metric = "test"                   # optional: test, calib, gap, full-precision or wall
//! filter = "setting(qdrop)"         # optional: as on the command line, by fields of cells
//! significance = true               # optional: mark what does not differ from the best of its column
//! ```

use super::cell::Cell;
use super::diagnostic::{GridError, SourceText, suggest};
use super::filter::Filter;
use super::wire::is_kebab_case;
use crate::error::Result;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use toml::Spanned;

/// What a table shows of each entry: mean and standard deviation over its seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Top-1 on the test set.
    #[default]
    Test,
    /// Top-1 on the calibration images.
    Calib,
    /// Calibration minus test.
    Gap,
    /// Full-precision top-1 on the test set.
    FullPrecision,
    /// Seconds.
    Wall,
}

/// A declared table, checked.
#[derive(Clone, Debug)]
pub struct TableSpec {
    pub name: String,
    pub caption: String,
    pub rows: Vec<String>,
    pub columns: String,
    pub metric: Metric,
    pub filter: Option<Filter>,
    pub significance: bool,
}

/// A declared table, as written.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WireTable {
    name: Spanned<String>,
    #[serde(default)]
    caption: String,
    rows: Spanned<Vec<Spanned<String>>>,
    columns: Spanned<String>,
    #[serde(default)]
    metric: Metric,
    filter: Option<Spanned<String>>,
    significance: Option<Spanned<bool>>,
}

/// The value of `key` in a cell; empty for a cell without variant.
pub fn value(cell: &Cell, key: &str) -> String {
    cell.fields().remove(key).unwrap_or_default()
}

/// Checks the tables against the cells of their grid. `is_changed`: the command line changes what there is to select.
///
/// Errors: names that are no file names or not unique; keys that no cell has; filters that cannot be parsed or match
/// nothing; entries that would be a mean over different configurations.
pub fn check_tables(
    source: SourceText,
    tables: &[WireTable],
    cells: &[Cell],
    is_changed: bool,
) -> Result<Vec<TableSpec>> {
    let mut names = BTreeSet::new();
    let mut checked = Vec::new();
    for table in tables {
        let name = table.name.get_ref();
        if !is_kebab_case(name) {
            let error =
                source.error(format!("name of a table {name:?} is not kebab-case"), Some(table.name.span()), "here");
            return Err(error.help("it names a file: lower-case words and digits, joined by single hyphens").into());
        }
        if !names.insert(name) {
            let message = format!("two tables are called {name:?}");
            return Err(source.error(message, Some(table.name.span()), "again").help("rename one of them").into());
        }
        check_keys(source, table, cells)?;
        let filter = checked_filter(source, table, cells, is_changed)?;
        let significance = table.significance.as_ref().filter(|significance| *significance.get_ref());
        if let (Some(significance), true) = (significance, table.metric != Metric::Test) {
            let error = source.error("significance is of test predictions alone", Some(significance.span()), "here");
            return Err(error.help("drop it, or set metric = \"test\"").into());
        }
        let spec = TableSpec {
            name: name.clone(),
            caption: table.caption.clone(),
            rows: table.rows.get_ref().iter().map(|key| key.get_ref().clone()).collect(),
            columns: table.columns.get_ref().clone(),
            metric: table.metric,
            filter,
            significance: significance.is_some(),
        };
        refuse_mixtures(source, &spec, cells, table.rows.span())?;
        checked.push(spec);
    }
    Ok(checked)
}

fn check_keys(source: SourceText, table: &WireTable, cells: &[Cell]) -> Result<(), Box<GridError>> {
    let mut known: BTreeSet<String> = cells.iter().flat_map(|cell| cell.fields().into_keys()).collect();
    known.insert("variant".to_string());
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    if table.rows.get_ref().is_empty() {
        let error = source.error("a table has no rows", Some(table.rows.span()), "at least one key of a cell");
        return Err(error.help("for example rows = [\"method\"]"));
    }
    let mut seen = BTreeSet::new();
    for key in table.rows.get_ref().iter().chain([&table.columns]) {
        let name = key.get_ref().as_str();
        if !known.contains(&name) {
            let error = source.error(format!("there is no key {name:?}"), Some(key.span()), "here");
            return Err(error.help(suggest(name, &known)));
        }
        if !seen.insert(name) {
            return Err(source.error(format!("key {name:?} is there twice"), Some(key.span()), "again"));
        }
    }
    Ok(())
}

fn checked_filter(source: SourceText, table: &WireTable, cells: &[Cell], is_changed: bool) -> Result<Option<Filter>> {
    let Some(text) = &table.filter else { return Ok(None) };
    let shown = |error: crate::Error| match error {
        crate::Error::Grid(error) => error.within(source, text.get_ref(), text.span()),
        error => source.error(error.to_string(), Some(text.span()), "here"),
    };
    let filter = Filter::parse(text.get_ref()).map_err(shown)?;
    match filter.select(cells.to_vec()) {
        Err(crate::Error::NothingMatched(_)) if is_changed => Ok(Some(filter)),
        Err(error) => Err(shown(error).into()),
        Ok(_) => Ok(Some(filter)),
    }
}

/// An entry is a mean over seeds, never over something that the reader does not see.
fn refuse_mixtures(source: SourceText, spec: &TableSpec, cells: &[Cell], span: Range<usize>) -> Result<()> {
    let mut entries: BTreeMap<Vec<String>, BTreeMap<String, String>> = BTreeMap::new();
    for cell in cells.iter().filter(|cell| spec.selects(cell)) {
        let mut fields = cell.fields();
        let of = |key: &String| fields.get(key).cloned().unwrap_or_default();
        let entry: Vec<String> = spec.rows.iter().chain([&spec.columns]).map(of).collect();
        fields.remove("seed");
        let Some(first) = entries.get(&entry) else {
            entries.insert(entry, fields);
            continue;
        };
        let differs = fields.iter().find(|(key, value)| first.get(*key) != Some(*value)).map(|(key, _)| key);
        let differs = differs.or_else(|| first.keys().find(|key| !fields.contains_key(*key)));
        if let Some(key) = differs {
            let message = format!("entry {} of table {} mixes cells that differ in {key}", entry.join(", "), spec.name);
            let help = format!("add {key:?} to rows, or leave all but one value out with filter = \"{key}(...)\"");
            return Err(source.error(message, Some(span), "these do not tell them apart").help(help).into());
        }
    }
    Ok(())
}

impl TableSpec {
    /// Whether the table is of `cell`, among others.
    pub fn selects(&self, cell: &Cell) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.matches(cell))
    }
}

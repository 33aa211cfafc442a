//! Tables that a grid declares.
//!
//! ```toml
//! [[table]]
//! name = "main"                     # goes to results/<grid>/tables/main.{md,tex,csv,parquet}
//! caption = "All methods."          # optional
//! rows = ["arch", "method"]         # keys of cells: one row per combination met
//! columns = "bits"                  # a key of cells: one column per value
//! metric = "test"                   # optional: a name in [`FACTS`](super::facts::FACTS): test, calib, gap, wall, ...
//! filter = "setting(qdrop)"         # optional: as on the command line, by fields of cells
//! significance = true               # optional: mark what does not differ from the best of its column
//! published = ["official"]          # optional: published numbers of the same networks and bits; also rerun, secondary
//! published-table = "losses"        # optional: a published table for orientation: losses, augmentations or overfit
//! ```

use super::declaration::Declarations;
use super::facts::{self, FACTS, Fact};
use super::filter::Filter;
use crate::diagnostic::{SourceText, suggest};
use crate::error::Result;
use crate::published::{Kind, Published};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeSet;
use toml::Spanned;

/// What a table shows of each entry: mean and standard deviation over its seeds.
#[derive(Clone, Copy, Debug)]
pub struct Metric(&'static Fact);

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
    /// Which published numbers stand below ours.
    pub published: Vec<Kind>,
    /// A published table that stands beside it for orientation ([`Published::table_names`]).
    pub published_table: Option<String>,
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
    published: Option<Spanned<Vec<Kind>>>,
    published_table: Option<Spanned<String>>,
}

/// Checks the tables against the cells of their grid.
///
/// Errors: names that are no file names or not unique; keys that no cell has; filters that cannot be parsed or match
/// nothing; entries that would be a mean over different configurations; published numbers where they have no place.
pub(super) fn check_tables(grid: &Declarations, tables: &[WireTable]) -> Result<Vec<TableSpec>> {
    let source = grid.source;
    let mut names = BTreeSet::new();
    let mut checked = Vec::new();
    for table in tables {
        grid.name("table", &table.name, &mut names)?;
        if table.rows.get_ref().is_empty() {
            let error = source.error("a table has no rows", Some(table.rows.span()), "at least one key of a cell");
            return Err(error.help("for example rows = [\"method\"]").into());
        }
        let keys = table.rows.get_ref().iter().chain([&table.columns]);
        grid.keys(keys.map(|key| (key.get_ref().as_str(), key.span())))?;
        let filter = grid.filter(table.filter.as_ref())?;
        let significance = table.significance.as_ref().filter(|significance| *significance.get_ref());
        if let (Some(significance), true) = (significance, table.metric != Metric::TEST) {
            let error = source.error("significance is of test predictions alone", Some(significance.span()), "here");
            return Err(error.help("drop it, or set metric = \"test\"").into());
        }
        let spec = TableSpec {
            name: table.name.get_ref().clone(),
            caption: table.caption.clone(),
            rows: table.rows.get_ref().iter().map(|key| key.get_ref().clone()).collect(),
            columns: table.columns.get_ref().clone(),
            metric: table.metric,
            filter,
            significance: significance.is_some(),
            published: table.published.as_ref().map(|kinds| kinds.get_ref().clone()).unwrap_or_default(),
            published_table: table.published_table.as_ref().map(|name| name.get_ref().clone()),
        };
        check_published(source, table)?;
        let keys: Vec<&str> = spec.rows.iter().chain([&spec.columns]).map(String::as_str).collect();
        let what = format!("table {}", spec.name);
        grid.refuse_mixtures(&what, &keys, spec.filter.as_ref(), ("rows", table.rows.span()))?;
        checked.push(spec);
    }
    Ok(checked)
}

/// Published numbers are of test accuracies and over-fitting gaps, by network and bits.
fn check_published(source: SourceText, table: &WireTable) -> Result<()> {
    if let Some(kinds) = &table.published {
        if ![Metric::TEST, Metric::GAP].contains(&table.metric) {
            let error = source.error("nothing of this metric is published", Some(kinds.span()), "here");
            return Err(error.help("drop it, or set metric = \"test\" or \"gap\"").into());
        }
        if !matches!(table.columns.get_ref().as_str(), "bits" | "arch") {
            let message = format!("published numbers have no place in columns of {:?}", table.columns.get_ref());
            let error = source.error(message, Some(table.columns.span()), "these columns");
            return Err(error.help("they are by network and bits: columns = \"bits\" or \"arch\"").into());
        }
    }
    if let Some(name) = &table.published_table {
        let published = Published::embedded()?;
        let known = published.table_names();
        if !known.contains(&name.get_ref().as_str()) {
            let message = format!("no table {:?} is published", name.get_ref());
            return Err(source.error(message, Some(name.span()), "here").help(suggest(name.get_ref(), &known)).into());
        }
    }
    Ok(())
}

impl Metric {
    pub const TEST: Metric = Metric(&facts::TEST);
    pub const CALIB: Metric = Metric(&facts::CALIB);
    pub const GAP: Metric = Metric(&facts::GAP);
    pub const WALL: Metric = Metric(&facts::WALL);

    /// What is measured.
    pub fn fact(self) -> &'static Fact {
        self.0
    }

    /// As written in a grid.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// With its unit, as an axis is labelled.
    pub fn title(self) -> &'static str {
        self.0.title
    }

    /// From the stored unit (fractions, seconds) to that of [`Metric::title`].
    pub fn scale(self) -> f64 {
        self.0.unit.scale()
    }
}

impl Default for Metric {
    fn default() -> Self {
        Self::TEST
    }
}

impl PartialEq for Metric {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl<'de> Deserialize<'de> for Metric {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        facts::find(&name).map(Metric).ok_or_else(|| {
            let known: Vec<String> = FACTS.iter().map(|fact| format!("`{}`", fact.name)).collect();
            serde::de::Error::custom(format!("unknown metric `{name}`, expected one of {}", known.join(", ")))
        })
    }
}

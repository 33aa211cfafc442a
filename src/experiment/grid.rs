//! Expands a grid file to cells.

use super::cell::{Cell, Setting};
use super::check::check;
use super::diagnostic::{GridError, SourceText};
use super::filter::Filter;
use super::wire::{Axes, CellOverride, Grid};
use crate::assets::checkpoint::EMBEDDED;
use crate::error::{Error, Result};
use crate::{arch, methods};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// A grid file, read, checked and expanded.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// Folder under `results/`.
    pub name: String,
    /// Heading of tables.
    pub title: String,
    pub about: String,
    pub path: PathBuf,
    /// In the order of the axes as written, the last varying fastest; then included cells.
    pub cells: Vec<Cell>,
}

/// What the command line changes.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Apply the grid's `[smoke]` section.
    pub smoke: bool,
    /// `key=value` overrides on top of everything.
    pub set: Vec<String>,
}

impl Experiment {
    /// Reads the grid file at `path`. Errors: unreadable, or wrong in any way ([`Error::Grid`]).
    pub fn read(path: &Path, options: &Options) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("cannot read grid", path))?;
        let source = SourceText { name: &path.display().to_string(), text: &text };
        let mut experiment = Self::parse(source, options)?;
        experiment.path = path.to_path_buf();
        Ok(experiment)
    }

    fn parse(source: SourceText, options: &Options) -> Result<Self> {
        let grid: Grid = toml::from_str(source.text).map_err(|error| source.syntax(&error))?;
        let name = grid.name.get_ref().clone();
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
            let error = source.error(format!("name {name:?} is not kebab-case"), Some(grid.name.span()), "here");
            return Err(error.help("it names a folder: use lower-case letters, digits and hyphens").into());
        }
        let on_top = on_top(&grid, options)?;
        let (smoke_suffix, axes) = match (&grid.smoke, options.smoke) {
            (_, false) => ("", replaced(&grid.axes, None)),
            (Some(smoke), true) => ("-smoke", replaced(&grid.axes, Some(&smoke.axes))),
            (None, true) => return Err(source.error("--smoke, but the grid has no [smoke] section", None, "").into()),
        };
        let expansion = Expansion { source, grid: &grid, on_top };
        let cells = expansion.excluded(expansion.combinations(&axes)?)?;
        let cells: Vec<Origin> = cells.into_iter().chain(expansion.included()?).collect();
        expansion.refuse_duplicates(&cells)?;
        if cells.is_empty() {
            return Err(source.error("the grid has no cells", None, "").into());
        }
        let title = grid.title.clone().unwrap_or_else(|| name.clone());
        Ok(Self {
            name: format!("{name}{smoke_suffix}"),
            title,
            about: grid.about.clone().unwrap_or_default(),
            path: PathBuf::from(source.name),
            cells: cells.into_iter().map(|origin| origin.cell).collect(),
        })
    }
}

/// A cell and the text that made it.
struct Origin {
    cell: Cell,
    span: Option<Range<usize>>,
}

/// Axes in the order written, those of `smoke` in place of the grid's of the same key.
fn replaced<'a>(axes: &'a Axes, smoke: Option<&'a Axes>) -> Vec<Axis<'a>> {
    let mut ordered: Vec<Axis> = axes.iter().map(|(key, values)| Axis { key, values }).collect();
    ordered.sort_by_key(|axis| axis.key.span().start);
    for (key, values) in smoke.into_iter().flatten() {
        match ordered.iter_mut().find(|axis| axis.key == key) {
            Some(axis) => axis.values = values,
            None => ordered.push(Axis { key, values }),
        }
    }
    ordered
}

struct Axis<'a> {
    key: &'a Spanned<String>,
    values: &'a Spanned<Vec<Spanned<toml::Value>>>,
}

/// `smoke.set`, then `--set`.
fn on_top(grid: &Grid, options: &Options) -> Result<CellOverride> {
    let mut over = CellOverride::default();
    if let (Some(smoke), true) = (&grid.smoke, options.smoke)
        && let Some(set) = &smoke.set
    {
        over.merge(set.get_ref());
    }
    for assignment in &options.set {
        let Some((key, value)) = assignment.split_once('=') else {
            return Err(Error::Usage(format!("--set {assignment:?} is not of the form key=value")));
        };
        let source = SourceText { name: "--set", text: assignment };
        // A bare word is a string, so that nobody has to quote quotes.
        let parsed = toml::from_str::<toml::Table>(&format!("value = {value}"));
        let parsed = parsed.ok().and_then(|mut table| table.remove("value"));
        let parsed = parsed.unwrap_or_else(|| toml::Value::String(value.trim().to_string()));
        over.merge(
            &CellOverride::single(key.trim(), parsed).map_err(|error| source.syntax(&error).at(0..assignment.len()))?,
        );
    }
    Ok(over)
}

struct Expansion<'a> {
    source: SourceText<'a>,
    grid: &'a Grid,
    on_top: CellOverride,
}

impl Expansion<'_> {
    fn base(&self) -> CellOverride {
        self.grid.base.as_ref().map_or_else(CellOverride::default, |base| base.get_ref().clone())
    }

    /// One cell per combination of axis values and variants.
    fn combinations(&self, axes: &[Axis]) -> Result<Vec<Origin>> {
        let mut variants: Vec<_> = self.grid.variants.iter().collect();
        variants.sort_by_key(|(name, _)| name.span().start);
        if axes.is_empty() && variants.is_empty() {
            return match self.grid.include.is_empty() {
                true => Ok(vec![self.resolve(&self.base(), None, None)?]),
                false => Ok(Vec::new()),
            };
        }
        let mut partial = vec![(self.base(), None)];
        for axis in axes {
            let choices = self.choices(axis)?;
            let extend = |(base, _): (CellOverride, _)| {
                choices.iter().map(move |(over, span)| {
                    let mut merged = base.clone();
                    merged.merge(over);
                    (merged, Some(span.clone()))
                })
            };
            partial = partial.into_iter().flat_map(extend).collect();
        }
        let mut cells = Vec::new();
        for (over, span) in partial {
            if variants.is_empty() {
                cells.push(self.resolve(&over, None, span)?);
                continue;
            }
            for (name, variant) in &variants {
                let mut merged = over.clone();
                merged.merge(variant.get_ref());
                cells.push(self.resolve(&merged, Some(name.get_ref()), Some(variant.span()))?);
            }
        }
        Ok(cells)
    }

    /// The overrides of an axis, each with its span. Errors: empty, a repeated value, a value its key cannot have.
    fn choices(&self, axis: &Axis) -> Result<Vec<(CellOverride, Range<usize>)>> {
        let values = axis.values.get_ref();
        if values.is_empty() {
            let message = format!("axis {} is empty", axis.key.get_ref());
            return Err(self.source.error(message, Some(axis.values.span()), "at least one value").into());
        }
        let mut choices: Vec<(CellOverride, Range<usize>)> = Vec::new();
        for value in values {
            let over = CellOverride::single(axis.key.get_ref(), value.get_ref().clone()).map_err(|error| {
                // Of a value the parser knows no place: ours. A key it does not know is the axis's.
                let span = if error.message().starts_with("unknown field") { axis.key.span() } else { value.span() };
                self.source.syntax(&error).at(span)
            })?;
            if choices.iter().any(|(earlier, _)| *earlier == over) {
                let message = format!("axis {} has a value twice", axis.key.get_ref());
                return Err(self.source.error(message, Some(value.span()), "again").into());
            }
            choices.push((over, value.span()));
        }
        Ok(choices)
    }

    fn included(&self) -> Result<Vec<Origin>> {
        let include = self.grid.include.iter().map(|over| {
            let mut merged = self.base();
            merged.merge(over.get_ref());
            self.resolve(&merged, None, Some(over.span()))
        });
        include.collect()
    }

    /// Without the cells that an `exclude` matches; one that matches nothing is a mistake, unless `--smoke` replaced axes.
    fn excluded(&self, cells: Vec<Origin>) -> Result<Vec<Origin>> {
        let mut kept = cells;
        for exclude in &self.grid.exclude {
            let filter = Filter::from_table(exclude.get_ref());
            let plain: Vec<Cell> = kept.iter().map(|origin| origin.cell.clone()).collect();
            if let Some((key, help)) = filter.unknown_key(&plain) {
                let span = self.source.find_key(exclude.span(), &key);
                return Err(self
                    .source
                    .error(format!("exclude has an unknown key `{key}`"), Some(span), "here")
                    .help(help)
                    .into());
            }
            let before = kept.len();
            kept.retain(|origin| !filter.matches(&origin.cell));
            if kept.len() == before && self.on_top == CellOverride::default() {
                return Err(self.source.error("exclude matches no cell", Some(exclude.span()), "this one").into());
            }
        }
        Ok(kept)
    }

    /// The cell that `over` describes, with the overrides of the command line, defaults filled in.
    fn resolve(&self, over: &CellOverride, variant: Option<&String>, span: Option<Range<usize>>) -> Result<Origin> {
        let mut over = over.clone();
        over.merge(&self.on_top);
        let missing = |key: &str| {
            let error = self.source.error(format!("a cell has no {key}"), span.clone(), "this one");
            error.help(format!("set {key} under [base] or as an axis under [axes]"))
        };
        let arch_name = over.arch.ok_or_else(|| missing("arch"))?;
        let method_name = over.method.ok_or_else(|| missing("method"))?;
        let bits = over.bits.ok_or_else(|| missing("bits"))?;
        let (Some(arch), Some(method)) = (arch::find(&arch_name), methods::find(&method_name)) else {
            return Err(missing("arch or method").into());
        };
        let mut recipe = (method.recipe)(arch);
        over.recipe.apply(&mut recipe);
        let calib_images = over.calib_images.unwrap_or(1024);
        // A search cannot see more images than there are: what it sees is what the cell says.
        recipe.act_search_images = recipe.act_search_images.min(calib_images);
        let cell = Cell {
            arch: arch_name,
            weights: over.weights.unwrap_or_else(|| EMBEDDED.to_string()),
            dataset: over.dataset.unwrap_or_else(|| "fashion-mnist".to_string()),
            bits,
            method: method_name,
            variant: variant.cloned(),
            setting: over.setting.unwrap_or(Setting::Qdrop),
            calib_images,
            seed: over.seed.unwrap_or(0),
            recipe,
        };
        check(&cell).map_err(|(key, problem)| self.out_of_range(&cell, key, &problem, span.clone()))?;
        Ok(Origin { cell, span })
    }

    /// Points at the value of `key`: within the text that made the cell, else in the base.
    fn out_of_range(&self, cell: &Cell, key: &str, problem: &str, span: Option<Range<usize>>) -> Box<GridError> {
        let name = key.rsplit('.').next().unwrap_or(key);
        let sections = span
            .into_iter()
            .chain(self.grid.base.iter().map(Spanned::span))
            .chain(std::iter::once(0..self.source.text.len()));
        let span = sections
            .map(|section| self.source.find_key(section, key))
            .find(|found| self.source.text.get(found.clone()) == Some(name));
        self.source.error(format!("{key}: {problem}"), span, "here").help(format!("in cell {}", cell.slug()))
    }

    /// Two names for one configuration would be run twice and averaged as if they were two results.
    fn refuse_duplicates(&self, cells: &[Origin]) -> Result<()> {
        let mut seen: BTreeMap<String, &Origin> = BTreeMap::new();
        for origin in cells {
            let key: String = origin
                .cell
                .fields()
                .into_iter()
                .filter(|(key, _)| key != "variant")
                .map(|(key, value)| format!("{key}={value}\n"))
                .collect();
            if let Some(first) = seen.insert(key, origin) {
                let message =
                    format!("two cells are the same configuration: {} and {}", first.cell.slug(), origin.cell.slug());
                let error = self.source.error(message, origin.span.clone(), "made by this");
                return Err(error.help("drop one, or make them differ in a field").into());
            }
        }
        Ok(())
    }
}

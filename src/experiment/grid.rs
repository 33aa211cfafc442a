//! Expands a grid file to cells.

use super::cell::Cell;
use super::check::{causes, check};
use super::declaration::Declarations;
use super::figure::{FigureSpec, check_figures};
use super::filter::Filter;
use super::keep::Keep;
use super::layer::{Layer, Place};
use super::names::is_kebab_case;
use super::slurm::SlurmOptions;
use super::table::{TableSpec, check_tables};
use super::wire::{Axes, CellOverride, Grid, Track};
use crate::assets::source::default_weights;
use crate::diagnostic::{GridError, SourceText};
use crate::disk::foreign::{guarded, read_piped, read_text};
use crate::error::{Error, Result};
use ptq::meta::config::Meta;
use ptq::meta::nets::Transform;
use ptq::meta::terms::Terms;
use ptq::recipe::Setting;
use ptq::{arch, methods};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::DeTable;

/// A grid file, read, checked and expanded.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// Folder under `results/`.
    pub name: String,
    /// Heading of tables.
    pub title: String,
    pub about: String,
    /// What its runs leave beside their records.
    pub keep: Keep,
    /// Whether trackers are told of them.
    pub track: Option<Track>,
    pub path: PathBuf,
    /// In the order of the axes as written, the last varying fastest; then included cells.
    pub cells: Vec<Cell>,
    pub tables: Vec<TableSpec>,
    pub figures: Vec<FigureSpec>,
    /// What its tasks ask of a cluster.
    pub slurm: SlurmOptions,
}

/// What the command line changes.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Apply the grid's `[smoke]` section.
    pub smoke: bool,
    /// `key=value` overrides on top of everything.
    pub set: Vec<String>,
    /// Expand a grid however many cells it has.
    pub many_cells: bool,
}

/// How many cells a grid may have unless somebody says that they are meant: each takes seconds to days, and an axis too many is soon
/// written.
const MANY_CELLS: usize = 20_000;

/// Ends the name of an experiment that is run with `--smoke`, so that its runs have a folder of their own.
pub const SMOKE_SUFFIX: &str = "-smoke";

impl Experiment {
    /// Reads the grid file at `path`. Errors: unreadable, or wrong in any way ([`Error::Grid`]).
    pub fn read(path: &Path, options: &Options) -> Result<Self> {
        let text = read_piped("cannot read grid", path)?;
        let source = SourceText { name: &path.display().to_string(), text: &text };
        let mut experiment = guarded(path.display(), || Self::parse(source, options))?;
        experiment.path = path.to_path_buf();
        Ok(experiment)
    }

    /// The name that the grid file at `path` gives its experiment, if it is one.
    pub fn name_of(path: &Path) -> Option<String> {
        let table: toml::Table = toml::from_str(&read_text("cannot read", path).ok()?).ok()?;
        table.get("name")?.as_str().map(str::to_string)
    }

    pub(super) fn parse(source: SourceText, options: &Options) -> Result<Self> {
        let document = DeTable::parse(source.text).map_err(|error| source.syntax(&error))?;
        let grid: Grid = toml::from_str(source.text).map_err(|error| source.syntax(&error))?;
        check_names(source, &grid)?;
        let (suffix, axes) = match (&grid.smoke, options.smoke) {
            (_, false) => ("", replaced(&grid.axes, None)),
            (Some(smoke), true) => (SMOKE_SUFFIX, replaced(&grid.axes, Some(&smoke.axes))),
            (None, true) => return Err(source.error("--smoke, but the grid has no [smoke] section", None, "").into()),
        };
        let expansion = Expansion::new(source, document.get_ref(), &grid, options)?;
        let cells = expansion.excluded(expansion.combinations(&axes)?)?;
        let cells: Vec<Origin> = cells.into_iter().chain(expansion.included()?).collect();
        expansion.refuse_duplicates(&cells)?;
        if cells.is_empty() {
            return Err(source.error("the grid has no cells", None, "").into());
        }
        let name = grid.name.get_ref();
        let cells: Vec<Cell> = cells.into_iter().map(|origin| origin.cell).collect();
        let needed = !grid.table.is_empty() || !grid.figure.is_empty();
        let declarations = Declarations::new(source, &cells, expansion.is_changed, needed);
        Ok(Self {
            name: format!("{name}{suffix}"),
            title: grid.title.clone().unwrap_or_else(|| name.clone()),
            about: grid.about.clone().unwrap_or_default(),
            track: grid.track.clone(),
            keep: Keep { model: grid.save_model, transform: grid.save_transform },
            path: PathBuf::from(source.name),
            tables: check_tables(&declarations, &grid.table)?,
            figures: check_figures(&declarations, &grid.figure)?,
            slurm: SlurmOptions::checked(source, grid.slurm.as_ref())?,
            cells: cells.clone(),
        })
    }
}

/// Refuses names that could not be part of a path or of a run id.
fn check_names(source: SourceText, grid: &Grid) -> Result<()> {
    let named = [("name", &grid.name)].into_iter().chain(grid.variants.keys().map(|name| ("name of a variant", name)));
    for (what, name) in named {
        if !is_kebab_case(name.get_ref()) {
            let error =
                source.error(format!("{what} {:?} is not kebab-case", name.get_ref()), Some(name.span()), "here");
            return Err(error.help("it names a folder: lower-case words and digits, joined by single hyphens").into());
        }
    }
    if grid.name.get_ref().ends_with(SMOKE_SUFFIX) {
        let message = format!("name {:?} ends in {SMOKE_SUFFIX}", grid.name.get_ref());
        let error = source.error(message, Some(grid.name.span()), "here");
        return Err(error.help("that is where runs with --smoke go: choose another ending").into());
    }
    Ok(())
}

/// A cell and the text that made it.
struct Origin {
    cell: Cell,
    span: Option<Range<usize>>,
}

struct Axis<'a> {
    key: &'a Spanned<String>,
    values: &'a Spanned<Vec<Spanned<toml::Value>>>,
}

/// Axes in the order written, those of `smoke` in place of the grid's of the same key.
fn replaced<'a>(axes: &'a Axes, smoke: Option<&'a Axes>) -> Vec<Axis<'a>> {
    let in_order = |axes: &'a Axes| {
        let mut ordered: Vec<Axis> = axes.iter().map(|(key, values)| Axis { key, values }).collect();
        ordered.sort_by_key(|axis| axis.key.span().start);
        ordered
    };
    let mut ordered = in_order(axes);
    for replacement in smoke.into_iter().flat_map(in_order) {
        match ordered.iter_mut().find(|axis| axis.key == replacement.key) {
            Some(axis) => *axis = replacement,
            None => ordered.push(replacement),
        }
    }
    ordered
}

/// The layer of one `--set key=value`.
fn assigned(assignment: &str) -> Result<Layer<'_>> {
    let Some((key, value)) = assignment.split_once('=') else {
        return Err(Error::Usage(format!("--set {assignment:?} is not of the form key=value")));
    };
    let source = SourceText { name: "--set", text: assignment };
    // A bare word is a string, so that nobody has to quote quotes.
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}"));
    let parsed = parsed.ok().and_then(|mut table| table.remove("value"));
    let parsed = parsed.unwrap_or_else(|| toml::Value::String(value.trim().to_string()));
    let place = Place { source, span: key.len() + 1..assignment.len() };
    Ok(Layer::of_value(key.trim(), parsed, place).map_err(|error| source.syntax_at(&error, 0..assignment.len()))?)
}

/// A grid's layers, and what makes cells of them.
struct Expansion<'a> {
    source: SourceText<'a>,
    document: &'a DeTable<'a>,
    grid: &'a Grid,
    base: Layer<'a>,
    /// `smoke.set`, then `--set`.
    on_top: Layer<'a>,
    /// Whether the command line changes the grid.
    is_changed: bool,
    many_cells: bool,
}

impl<'a> Expansion<'a> {
    fn new(
        source: SourceText<'a>,
        document: &'a DeTable<'a>,
        grid: &'a Grid,
        options: &'a Options,
    ) -> Result<Expansion<'a>> {
        let layer = |path: &[&str], over: &Option<Spanned<CellOverride>>| {
            over.as_ref().map(|over| Layer::of_table(source, document, path, over.get_ref())).unwrap_or_default()
        };
        let base = layer(&["base"], &grid.base);
        let smoke = grid.smoke.as_ref().filter(|_| options.smoke);
        let mut on_top = smoke.map(|smoke| layer(&["smoke", "set"], &smoke.set)).unwrap_or_default();
        for assignment in &options.set {
            on_top.merge(&assigned(assignment)?);
        }
        let is_changed = options.smoke || !options.set.is_empty();
        Ok(Self { source, document, grid, base, on_top, is_changed, many_cells: options.many_cells })
    }

    /// One cell per combination of axis values and variants.
    fn combinations(&self, axes: &[Axis]) -> Result<Vec<Origin>> {
        let mut variants: Vec<_> = self.grid.variants.iter().collect();
        variants.sort_by_key(|(name, _)| name.span().start);
        if axes.is_empty() && variants.is_empty() {
            return match self.grid.include.is_empty() {
                true => Ok(vec![self.resolve(&Layer::default(), None, None)?]),
                false => Ok(Vec::new()),
            };
        }
        let choices = axes.iter().map(|axis| self.choices(axis)).collect::<Result<Vec<_>>>()?;
        let lengths = choices.iter().map(Vec::len).chain([variants.len().max(1)]);
        let longest = axes.iter().zip(choices.iter().map(Vec::len)).max_by_key(|(_, count)| *count);
        self.refuse_too_many(lengths.fold(1usize, usize::saturating_mul), longest)?;
        let mut partial = vec![(Layer::default(), None)];
        for choices in choices {
            let extend = |(layer, _): (Layer<'a>, _)| {
                choices.iter().map(move |(value, span)| {
                    let mut merged = layer.clone();
                    merged.merge(value);
                    (merged, Some(span.clone()))
                })
            };
            partial = partial.into_iter().flat_map(extend).collect();
        }
        let mut cells = Vec::new();
        for (layer, span) in partial {
            if variants.is_empty() {
                cells.push(self.resolve(&layer, None, span)?);
                continue;
            }
            for (name, variant) in &variants {
                let path = ["variants", name.get_ref()];
                let mut merged = layer.clone();
                merged.merge(&Layer::of_table(self.source, self.document, &path, variant.get_ref()));
                cells.push(self.resolve(&merged, Some(name.get_ref()), Some(name.span()))?);
            }
        }
        Ok(cells)
    }

    /// Refuses `cells` cells if they are too many, before any of them takes memory; `longest`: an axis and how many values it has.
    fn refuse_too_many(&self, cells: usize, longest: Option<(&Axis, usize)>) -> Result<()> {
        if cells <= MANY_CELLS || self.many_cells {
            return Ok(());
        }
        let (span, label) = longest.map_or((None, String::new()), |(axis, count)| {
            (Some(axis.key.span()), format!("{count} values, the most of an axis"))
        });
        let error = self.source.error(format!("the grid makes {cells} cells"), span, &label);
        Err(error.help(format!("more than {MANY_CELLS} need --many-cells; --set KEY=VALUE fixes an axis")).into())
    }

    /// The values of an axis, each with its span; one where `smoke.set` or `--set` decides the field.
    ///
    /// Errors: no value, a repeated one, one that its key cannot have.
    fn choices(&self, axis: &Axis) -> Result<Vec<(Layer<'a>, Range<usize>)>> {
        let (key, values) = (axis.key.get_ref(), axis.values.get_ref());
        if values.is_empty() {
            let message = format!("axis {key} is empty");
            return Err(self.source.error(message, Some(axis.values.span()), "at least one value").into());
        }
        // Before any two of them are compared.
        self.refuse_too_many(values.len(), Some((axis, values.len())))?;
        let mut choices: Vec<(Layer, Range<usize>)> = Vec::new();
        for value in values {
            let place = Place { source: self.source, span: value.span() };
            let layer = Layer::of_value(key, value.get_ref().clone(), place).map_err(|error| {
                let is_key = error.message().starts_with("unknown field");
                self.source.syntax_at(&error, if is_key { axis.key.span() } else { value.span() })
            })?;
            if let Some((_, first)) = choices.iter().find(|(earlier, _)| earlier.over == layer.over) {
                let error = self.source.error(format!("axis {key} has a value twice"), Some(value.span()), "again");
                return Err(error.label(first.clone(), "first here").into());
            }
            choices.push((layer, value.span()));
        }
        let decided = |layer: &Layer<'a>| {
            let mut layer = layer.clone();
            layer.merge(&self.on_top);
            layer.over
        };
        let first = choices.first().map(|(layer, _)| decided(layer));
        if choices.iter().all(|(layer, _)| Some(decided(layer)) == first) {
            choices.truncate(1);
        }
        Ok(choices)
    }

    fn included(&self) -> Result<Vec<Origin>> {
        let include = self.grid.include.iter().enumerate().map(|(index, over)| {
            let layer = Layer::of_array_table(self.source, self.document, ("include", index), over.get_ref());
            self.resolve(&layer, None, Some(over.span()))
        });
        include.collect()
    }

    /// Without the cells that an `exclude` matches. One that matches nothing is a mistake, unless the command line
    /// changed what there is to match.
    fn excluded(&self, mut cells: Vec<Origin>) -> Result<Vec<Origin>> {
        for exclude in &self.grid.exclude {
            let filter = Filter::from_table(exclude.get_ref());
            let present: Vec<Cell> = cells.iter().map(|origin| origin.cell.clone()).collect();
            if let Some((key, help)) = filter.unknown_key(&present) {
                let message = format!("exclude has an unknown key `{key}`");
                return Err(self.source.error(message, Some(exclude.span()), "in this one").help(help).into());
            }
            cells.retain(|origin| !filter.matches(&origin.cell));
            if cells.len() == present.len() && !self.is_changed {
                let error = self.source.error("exclude matches no cell", Some(exclude.span()), "this one");
                return Err(error.help(filter.why_nothing(&present)).into());
            }
        }
        Ok(cells)
    }

    /// The cell that `layer` describes between the grid's base and the command line, with defaults filled in.
    fn resolve(&self, layer: &Layer<'a>, variant: Option<&String>, span: Option<Range<usize>>) -> Result<Origin> {
        let mut whole = self.base.clone();
        whole.merge(layer);
        whole.merge(&self.on_top);
        let missing = |key: &str| {
            let error = self.source.error(format!("a cell has no {key}"), span.clone(), "this one");
            error.help(format!("set {key} under [base] or as an axis under [axes]"))
        };
        let over = whole.over.clone();
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
        let transform = (method.transforms || over.transform.net.is_some()).then(|| {
            let (mut transform, mut meta, mut terms) =
                (Transform::published(), Meta::published(arch), Terms::published());
            over.transform.apply(&mut transform);
            over.meta.apply(&mut meta);
            over.terms.apply(&mut terms);
            (transform, meta, terms)
        });
        let (transform, meta, terms) = transform.map_or((None, None, None), |(t, m, l)| (Some(t), Some(m), Some(l)));
        let dataset = over.dataset.unwrap_or_else(|| "fashion-mnist".to_string());
        let cell = Cell {
            arch: arch_name,
            weights: over.weights.unwrap_or_else(|| default_weights(arch, &dataset)),
            dataset,
            data: over.data,
            corrupt: over.corrupt.unwrap_or_default(),
            preprocess: over.preprocess.unwrap_or_default(),
            precision: over.precision.unwrap_or_default(),
            bits,
            method: method_name,
            variant: variant.cloned().or(over.variant),
            setting: over.setting.unwrap_or(Setting::Qdrop),
            calib_images,
            seed: over.seed.unwrap_or(0),
            augment: over.augment.unwrap_or_default(),
            recipe,
            transform,
            meta,
            terms,
        };
        check(&cell).map_err(|(key, problem)| self.out_of_range(&whole, &cell, (&key, &problem)))?;
        Ok(Origin { cell, span })
    }

    /// Points at the value that was written last for `key`.
    fn out_of_range(&self, whole: &Layer, cell: &Cell, (key, problem): (&str, &str)) -> Box<GridError> {
        let message = format!("{key}: {problem}");
        let place = whole.place(key).or_else(|| causes(key).iter().find_map(|cause| whole.place(cause)));
        let error = match place {
            Some(place) => place.error(message, "here"),
            None => self.source.error(message, None, ""),
        };
        error.help(format!("in cell {}", cell.slug()))
    }

    /// Two names for one configuration would be run twice and averaged as if they were two results.
    fn refuse_duplicates(&self, cells: &[Origin]) -> Result<()> {
        let mut seen: BTreeMap<Vec<(String, String)>, &Origin> = BTreeMap::new();
        for origin in cells {
            let fields = origin.cell.fields().into_iter().filter(|(key, _)| key != "variant").collect();
            let Some(first) = seen.insert(fields, origin) else { continue };
            let message =
                format!("two cells are the same configuration: {} and {}", first.cell.slug(), origin.cell.slug());
            let mut error = self.source.error(message, origin.span.clone(), "made by this");
            if let Some(span) = first.span.clone().filter(|span| Some(span) != origin.span.as_ref()) {
                error = error.label(span, "and by this");
            }
            let help = match self.is_changed {
                true => "--smoke or --set overrides what makes them differ",
                false => "drop one, or make them differ in a field",
            };
            return Err(error.help(help).into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! The predicates that filters know.

use crate::assets::source::EMBEDDED;
use crate::data::{CardSize, Corrupt};
use crate::diagnostic::suggest;
use crate::experiment::cell::Cell;
use crate::experiment::facts::{FACTS, Unit};
use ptq::augment::Augmentation;
use ptq::meta::config::Meta;
use ptq::meta::nets::Transform;
use ptq::meta::terms::Terms;
use ptq::ops::precision::Precision;
use ptq::recipe::{Bits, Recipe, Setting};
use ptq::{arch, methods};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// What the values of a predicate are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Number,
    /// A number that people also write as percent.
    Fraction,
    /// UTC, as `2026-11-23T13:03:04Z`.
    Time,
}

/// What is known of a stored run beside the fields of its cell and [`FACTS`], with a description for help texts.
const OF_RUNS: &[(&str, Kind, &str)] = &[
    ("run", Kind::Text, "its id"),
    ("experiment", Kind::Text, "folder of results that it is in"),
    ("status", Kind::Text, "done, failed, pending (a cell), stale (done by other revisions)"),
    ("revision", Kind::Number, "of the method, when it ran"),
    ("tag", Kind::Text, "tags that `harness tag` gave it"),
    ("note", Kind::Text, "texts that `harness note` gave it"),
    ("error", Kind::Text, "why it failed"),
    ("started", Kind::Time, "when it began (UTC)"),
    ("device", Kind::Text, "cpu or cuda:N"),
    ("processor", Kind::Text, "model of the processor"),
    ("git", Kind::Text, "revision of the binary's sources"),
    ("grid", Kind::Text, "grid file that it was run from"),
];

/// What is known of a stored run beside the fields of its cell, with a description for help texts: numbers are [`FACTS`].
pub fn run_predicates() -> impl Iterator<Item = (&'static str, Kind, &'static str)> {
    let facts = FACTS.iter().map(|fact| {
        let kind = if fact.unit == Unit::Fraction { Kind::Fraction } else { Kind::Number };
        (fact.name, kind, fact.about)
    });
    OF_RUNS.iter().copied().chain(facts)
}

/// Whether `name` says something of a run and not of a cell.
pub(super) fn is_run_predicate(name: &str) -> bool {
    run_predicates().any(|(known, ..)| known == name)
}

/// Every predicate by name: the fields of a cell by their dotted keys, and [`run_predicates`].
pub fn vocabulary() -> &'static BTreeMap<String, Kind> {
    static VOCABULARY: LazyLock<BTreeMap<String, Kind>> = LazyLock::new(|| {
        let of_runs = run_predicates().map(|(name, kind, _)| (name.to_string(), kind));
        of_cells().into_iter().chain(of_runs).collect()
    });
    &VOCABULARY
}

/// A cell that has every table that a cell can have.
fn with_every_table() -> Option<Cell> {
    let (arch, method) = (arch::find("resnet20")?, methods::find("metaaug")?);
    Some(Cell {
        arch: arch.name.to_string(),
        weights: EMBEDDED.to_string(),
        dataset: "fashion-mnist".to_string(),
        data: None,
        corrupt: Corrupt::default(),
        preprocess: CardSize::default(),
        // The default is left out of what is written.
        precision: Precision::Tf32,
        bits: Bits { w: 4, a: 4 },
        method: method.name.to_string(),
        variant: Some("named".to_string()),
        setting: Setting::Qdrop,
        calib_images: 1024,
        seed: 0,
        augment: vec![Augmentation::Mixup],
        recipe: (method.recipe)(arch),
        transform: Some(Transform::published()),
        meta: Some(Meta::published(arch)),
        terms: Some(Terms::published()),
    })
}

fn of_cells() -> BTreeMap<String, Kind> {
    let kind = |text: &str| if text.parse::<f64>().is_ok() { Kind::Number } else { Kind::Text };
    let fields = with_every_table().into_iter().flat_map(|cell| cell.fields());
    let met = fields.map(|(key, text)| (key, kind(&text)));
    // Numbers that are off are not written: the cell does not show them.
    let tables = [
        ("recipe", Recipe::keys()),
        ("transform", Transform::keys()),
        ("meta", Meta::keys()),
        ("terms", Terms::keys()),
    ];
    let all = tables.into_iter().flat_map(|(table, keys)| keys.into_iter().map(move |key| format!("{table}.{key}")));
    all.map(|key| (key, Kind::Number)).chain(met).collect()
}

/// What `given` could have been, of the names that `allowed` lets through: those of its table; or those without a dot, and
/// how many each table has.
pub(crate) fn known(given: &str, allowed: impl Fn(&str) -> bool) -> String {
    let names: Vec<&str> = vocabulary().keys().map(String::as_str).filter(|name| allowed(name)).collect();
    let table = given.split_once('.').map(|(table, _)| table);
    let table =
        table.filter(|table| names.iter().any(|name| name.split_once('.').is_some_and(|(known, _)| known == *table)));
    let is_near = |name: &str| name.split_once('.').map(|(within, _)| within) == table;
    let near: Vec<&str> = names.iter().copied().filter(|name| is_near(name)).collect();
    let mut far: BTreeMap<&str, usize> = BTreeMap::new();
    if table.is_none() {
        names.iter().filter_map(|name| name.split_once('.')).for_each(|(table, _)| *far.entry(table).or_default() += 1);
    }
    // A key of another table is still the best guess for a misspelt one.
    let text = match suggest(given, &names) {
        text if text.starts_with("did you mean") => {
            let guess = text.split_once(" known:").map_or("", |(guess, _)| guess);
            format!("{guess} known: {}", near.join(", "))
        }
        _ => suggest(given, &near),
    };
    far.iter().fold(text, |text, (table, count)| format!("{text}, {table}.* ({count})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vocabulary_has_the_fields_of_every_kind_of_cell_and_no_two_meanings() {
        let of_cells = of_cells();
        for (key, kind) in [
            ("arch", Kind::Text),
            ("variant", Kind::Text),
            ("augment", Kind::Text),
            ("seed", Kind::Number),
            ("recipe.drop-input", Kind::Number),
            ("transform.net", Kind::Text),
            ("meta.lr", Kind::Number),
            ("terms.margin", Kind::Number),
        ] {
            assert_eq!(of_cells.get(key), Some(&kind), "{key}");
        }
        // Names made from fields are those that a grid writes: none is there twice, spelt in two ways.
        let recipe = Recipe::keys();
        assert!(
            of_cells.keys().filter_map(|key| key.strip_prefix("recipe.")).all(|key| recipe.iter().any(|k| k == key))
        );
        assert!(run_predicates().all(|(name, ..)| !of_cells.contains_key(name)));
    }

    #[test]
    fn names_are_suggested_across_tables_but_only_near_ones_are_listed() {
        let text = known("recipe.iteration", |_| true);
        assert!(text.starts_with("did you mean recipe.iterations?") && text.contains("recipe.loss"), "{text}");
        assert!(!text.contains("terms.") && !text.contains("method"), "{text}");
        let text = known("metod", |_| true);
        assert!(text.starts_with("did you mean method?") && !text.contains("recipe.iterations"), "{text}");
        assert!(text.contains("terms.* ("), "{text}");
        assert!(!known("x", |name| name != "status").contains("status"));
    }
}

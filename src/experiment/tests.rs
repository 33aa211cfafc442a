use super::grid::{Experiment, Options};
use super::wire::CellOverride;
use super::{Cell, Filter, Revisions, RunId};
use crate::data::{CardSize, Corrupt};
use crate::error::Error;
use crate::experiment::Hashes;
use crate::store::record::Record;
use crate::store::{State, plan};
use proptest::prelude::*;
use ptq::meta::terms::Terms;
use ptq::ops::precision::Precision;
use ptq::recipe::{BatchNormMode, Recipe, RecipeOverride, RoundingName};
use ptq::recipe::{Bits, Setting};
use ptq::{arch, methods};

fn read(text: &str, options: &Options) -> Result<Experiment, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("grid.toml");
    std::fs::write(&path, text).unwrap();
    Experiment::read(&path, options)
}

fn cells(text: &str) -> Vec<Cell> {
    read(text, &Options::default()).unwrap().cells
}

/// The error of `text` as the terminal shows it, without colours.
fn rendered(text: &str, set: &[&str]) -> String {
    let options = Options { set: set.iter().map(ToString::to_string).collect(), ..Options::default() };
    match read(text, &options) {
        Err(Error::Grid(error)) => {
            let mut text = String::new();
            let theme = miette::GraphicalTheme::unicode_nocolor();
            miette::GraphicalReportHandler::new_themed(theme)
                .with_width(160)
                .render_report(&mut text, &*error)
                .unwrap();
            text
        }
        Err(other) => other.to_string(),
        Ok(experiment) => panic!("{} cells", experiment.cells.len()),
    }
}

const GRID: &str = r#"
name = "test"
title = "A test"
[base]
arch = "resnet20"
calib-images = 256
[base.recipe]
iterations = 100
[axes]
bits = ["W4A4", "W2A2"]
method = ["qdrop", "genie-m"]
seed = [0, 1]
"#;

#[test]
fn axes_expand_in_the_order_written() {
    let slugs: Vec<String> = cells(GRID).iter().map(Cell::slug).collect();
    assert_eq!(
        slugs[..5],
        [
            "resnet20-w4a4-qdrop-s0",
            "resnet20-w4a4-qdrop-s1",
            "resnet20-w4a4-genie-m-s0",
            "resnet20-w4a4-genie-m-s1",
            "resnet20-w2a2-qdrop-s0"
        ]
    );
    assert_eq!(slugs.len(), 8);
}

#[test]
fn later_layers_win_and_unset_fields_keep_the_published_values() {
    let text = format!(
        "{GRID}\"recipe.batch\" = [8]\n[variants.plain]\n[variants.kept]\nrecipe = {{ batch = 16, batch-norm = \"kept\" }}\n\
         [smoke.set]\ncalib-images = 64\nrecipe = {{ iterations = 5 }}\n[smoke.axes]\nseed = [7]\nmethod = [\"qdrop\"]\n"
    );
    let published = (methods::find("qdrop").unwrap().recipe)(arch::find("resnet20").unwrap());
    let normal = cells(&text);
    assert_eq!(normal.len(), 16);
    let expected = Recipe { iterations: 100, batch: 8, ..published.clone() };
    assert_eq!((normal[0].variant.as_deref(), &normal[0].recipe), (Some("plain"), &expected));
    let expected = Recipe { batch: 16, batch_norm: BatchNormMode::Kept, ..expected };
    assert_eq!((normal[1].variant.as_deref(), &normal[1].recipe), (Some("kept"), &expected));
    let set = vec!["recipe.iterations=6".to_string(), "setting=brecq".to_string()];
    let smoke = read(&text, &Options { smoke: true, set, ..Options::default() }).unwrap();
    assert_eq!((smoke.name.as_str(), smoke.cells.len()), ("test-smoke", 4));
    let cell = &smoke.cells[1];
    assert_eq!((cell.calib_images, cell.seed, cell.setting, cell.recipe.iterations), (64, 7, Setting::Brecq, 6));
    // A search cannot see more images than the sample has.
    assert_eq!((published.act_search_images, cell.recipe.act_search_images), (256, 64));
}

#[test]
fn includes_add_and_excludes_remove() {
    let text = format!(
        "{GRID}[[include]]\nmethod = \"rtn\"\nbits = \"W8A8\"\n[[exclude]]\nmethod = \"genie-m\"\nbits = [\"W4A4\", \"W8A8\"]\n"
    );
    let slugs: Vec<String> = cells(&text).iter().map(Cell::slug).collect();
    assert_eq!(slugs.len(), 7);
    assert_eq!(slugs[6], "resnet20-w8a8-rtn-s0");
    assert!(!slugs.contains(&"resnet20-w4a4-genie-m-s0".to_string()));
}

#[test]
fn errors_show_the_place_the_text_and_what_is_known() {
    for (broken, parts) in [
        (
            GRID.replace("[axes]", "[axis]"),
            vec!["unknown field `axis`", "grid.toml:9:2", "[axis]", "did you mean axes?"],
        ),
        (
            GRID.replace("\"qdrop\", ", "\"qdorp\", "),
            vec!["unknown method `qdorp`", "\"qdorp\"", "did you mean qdrop?", "genie-m", ":11:11"],
        ),
        (
            GRID.replace("\"resnet20\"", "\"resnet2\""),
            vec!["unknown architecture `resnet2`", ":5:8", "resnet20, mobilenetv2-tiny"],
        ),
        (
            GRID.replace("\"W2A2\"", "\"W1A2\""),
            vec!["weight bits must be 2 to 8, or 32 for not quantized; got 1", ":10:17"],
        ),
        (GRID.replace("\"W2A2\"", "\"2/2\""), vec!["not of the form \"W4A8\""]),
        (GRID.replace("seed = [0, 1]", "seed = []"), vec!["axis seed is empty", ":12:8"]),
        (GRID.replace("seed = [0, 1]", "seed = [1, 1]"), vec!["axis seed has a value twice", "again", ":12:12"]),
        (GRID.replace("seed = [0, 1]", "seed = [-1]"), vec!["-1", "expected a whole number from 0 on", ":12:9"]),
        (GRID.replace("seed = [0, 1]", "\"recipe.bach\" = [1]"), vec!["unknown field `bach`", "did you mean batch?"]),
        (
            GRID.replace("iterations = 100", "iterations = \"many\""),
            vec!["\"many\"", "expected a whole number from 0 on", ":8:14"],
        ),
        (
            GRID.replace("iterations = 100", "iterations = 0"),
            vec!["recipe.iterations: 0 is not allowed", ":8:1", "in cell resnet20-w4a4-qdrop-s0"],
        ),
        (
            GRID.replace("iterations = 100", "drop-input = 1.5"),
            vec!["recipe.drop-input: 1.5 is not a fraction", ":8:1"],
        ),
        (GRID.replace("iterations = 100", "alpha-lr = nan"), vec!["recipe.alpha-lr", "finite"]),
        (
            GRID.replace("calib-images = 256", "calib-images = 5000"),
            vec!["calib-images: 5000 is not 1 to 4096", ":6:1"],
        ),
        (
            GRID.replace("calib-images = 256", "calib-images = 16"),
            vec!["recipe.batch: 32 is more than calib-images = 16"],
        ),
        (GRID.replace("name = \"test\"", "name = \"Test 1\""), vec!["is not kebab-case", ":2:8"]),
        (GRID.replace("arch = \"resnet20\"", ""), vec!["a cell has no arch", "[base]"]),
        (
            format!("{GRID}[[include]]\nmethod = \"qdrop\"\nbits = \"W4A4\"\n"),
            vec!["two cells are the same configuration", "made by this"],
        ),
        (format!("{GRID}[[exclude]]\nmethod = \"rtn\"\n"), vec!["exclude matches no cell"]),
        (format!("{GRID}[[exclude]]\nmethdo = \"rtn\"\n"), vec!["unknown key `methdo`", "did you mean method?"]),
        (GRID.replace("[axes]", "[axes"), vec![":9:"]),
    ] {
        let text = rendered(&broken, &[]);
        for part in parts {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
    }
    assert!(rendered(GRID, &["recipe.iteration=3"]).contains("did you mean iterations?"));
    assert!(rendered(GRID, &["seed"]).contains("not of the form key=value"));
    let missing = Experiment::read("nowhere.toml".as_ref(), &Options::default()).unwrap_err().to_string();
    assert!(missing.contains("nowhere.toml"), "{missing}");
}

#[test]
fn filters_select_by_any_field() {
    let all = cells(GRID);
    let selected =
        |filter: &str| Filter::parse(filter).and_then(|filter| filter.select(all.clone())).map(|cells| cells.len());
    assert_eq!(selected("method(qdrop)").unwrap(), 4);
    assert_eq!(selected("method(genie-* | rtn) & bits(w2a2) & seed(>=1)").unwrap(), 1);
    assert_eq!(selected("recipe.iterations(100)").unwrap(), 8);
    assert_eq!(selected("not recipe.drop-input(0.5)").unwrap_err().to_string().matches("none of 8 cells").count(), 1);
    assert!(matches!(selected("seed(5)"), Err(Error::NothingMatched(_))));
}

fn hashes() -> Hashes {
    Hashes { weights: "aa".into(), calib: "bb".into(), test: "cc".into() }
}

/// This revision of the method, and the first of all modules.
fn method(revision: u32) -> Revisions {
    Revisions { method: revision, ..Revisions::default() }
}

/// These and the module `name` at `revision`.
fn with_module(revisions: &Revisions, name: &str, revision: u32) -> Revisions {
    let mut revisions = revisions.clone();
    revisions.modules.insert(name.to_string(), revision);
    revisions
}

#[test]
fn run_ids_are_the_same_in_every_build() {
    let cell = &cells(GRID)[0];
    assert_eq!(RunId::new(cell, &hashes(), &method(1)).to_string(), "resnet20-w4a4-qdrop-s0-82c2e6d6f2");
}

#[test]
fn run_ids_depend_on_what_determines_the_result_and_nothing_else() {
    let cell = cells(GRID).remove(0);
    let hash = |id: RunId| id.to_string().rsplit('-').next().unwrap().to_string();
    let id = |cell: &Cell, hashes: &Hashes, revision: u32| hash(RunId::new(cell, hashes, &method(revision)));
    let original = id(&cell, &hashes(), 1);
    assert_eq!(id(&Cell { variant: Some("named".into()), ..cell.clone() }, &hashes(), 1), original);
    let of_module =
        |name: &str, revision: u32| hash(RunId::new(&cell, &hashes(), &with_module(&method(1), name, revision)));
    // As before modules had revisions.
    assert_eq!(of_module("ops", 1), original);
    let mut others = vec![
        id(&cell, &hashes(), 2),
        of_module("ops", 2),
        of_module("recon", 2),
        id(&cell, &Hashes { weights: "x".into(), ..hashes() }, 1),
        id(&cell, &Hashes { calib: "x".into(), ..hashes() }, 1),
        id(&cell, &Hashes { test: "x".into(), ..hashes() }, 1),
        id(&Cell { seed: 9, ..cell.clone() }, &hashes(), 1),
        id(&Cell { setting: Setting::Brecq, ..cell.clone() }, &hashes(), 1),
        id(&Cell { bits: Bits { w: 4, a: 8 }, ..cell.clone() }, &hashes(), 1),
        id(&Cell { calib_images: 255, ..cell.clone() }, &hashes(), 1),
        id(&Cell { recipe: Recipe { drop_input: 0.25, ..cell.recipe.clone() }, ..cell.clone() }, &hashes(), 1),
    ];
    others.push(original);
    let n = others.len();
    others.sort();
    others.dedup();
    assert_eq!(others.len(), n);
}

#[test]
fn where_a_weights_file_lies_is_not_part_of_a_run_id() {
    let cell = cells(GRID).remove(0);
    let id = |weights: &str, sha256: &str| {
        let hashes = Hashes { weights: sha256.into(), ..hashes() };
        RunId::new(&Cell { weights: weights.into(), ..cell.clone() }, &hashes, &method(1))
    };
    assert_eq!(id("file:/a/x.safetensors", "aa"), id("file:/b/y.safetensors", "aa"));
    assert_ne!(id("file:/a/x.safetensors", "aa"), id("file:/a/x.safetensors", "ab"));
}

/// The record of a finished run of `cell`.
fn stored(cell: &Cell) -> Record {
    let Revisions { method: method_revision, modules: revisions } = Revisions::of(cell);
    let id = RunId::new(cell, &hashes(), &Revisions::of(cell)).to_string();
    Record {
        cell: cell.clone(),
        hashes: hashes(),
        method_revision,
        revisions,
        ..Record::sample(&id, "qdrop", "W4A4", 0)
    }
}

#[test]
fn plans_tell_done_failed_stale_and_missing_apart() {
    let grid = cells(GRID);
    let older = Cell { recipe: Recipe { iterations: 50, ..grid[2].recipe.clone() }, ..grid[2].clone() };
    let stored = [stored(&grid[0]), stored(&grid[1]).failed("out of luck"), stored(&older)];
    let planned = plan(grid, &stored, |_| Ok(Some(hashes()))).unwrap();
    assert_eq!(planned[0].state, State::Done);
    assert_eq!(planned[1].state, State::Failed("out of luck".into()));
    let State::Stale { differs, .. } = &planned[2].state else { panic!("{:?}", planned[2].state) };
    assert_eq!(*differs, [("recipe.iterations".to_string(), "50".to_string(), "100".to_string())]);
    assert_eq!(planned[3].state, State::Missing);
}

#[test]
fn a_run_of_another_revision_of_a_module_is_stale_and_the_plan_names_it() {
    let cell = cells(GRID).remove(0);
    let now = Revisions::of(&cell);
    let of = |module: &str| {
        let made_with = with_module(&now, module, 7);
        let run_id = RunId::new(&cell, &hashes(), &made_with).to_string();
        let record = Record { run_id, revisions: made_with.modules, ..stored(&cell) };
        plan(vec![cell.clone()], &[record], |_| Ok(Some(hashes()))).unwrap().remove(0).state
    };
    let State::Stale { differs, .. } = of("recon") else { panic!("the run is of another revision") };
    assert_eq!(differs, [("revision of recon".to_string(), "7".to_string(), now.modules["recon"].to_string())]);
}

#[test]
fn a_stored_sibling_does_not_make_a_missing_cell_stale() {
    let siblings = cells(&GRID.replace("seed = [0, 1]", "\"recipe.drop-input\" = [0.0, 0.5]"));
    assert_eq!(siblings[0].slug(), siblings[1].slug());
    let state_of_second = |stored: &[Record]| {
        let planned = plan(siblings.clone(), stored, |_| Ok(Some(hashes()))).unwrap();
        assert_eq!(planned[0].state, State::Done);
        planned[1].state.clone()
    };
    assert_eq!(state_of_second(&[stored(&siblings[0])]), State::Missing);
    let outdated = Cell { recipe: Recipe { batch: 8, ..siblings[1].recipe.clone() }, ..siblings[1].clone() };
    let State::Stale { differs, .. } = state_of_second(&[stored(&siblings[0]), stored(&outdated)]) else {
        panic!("an older run of the second cell is stored");
    };
    assert_eq!(differs, [("recipe.batch".to_string(), "8".to_string(), "32".to_string())]);
}

proptest! {
    #[test]
    fn resolved_cells_come_back_from_their_toml(
        iterations in 1usize..100_000, batch in 1usize..64, drop in 0.0f64..=1.0, lr in 0.0f64..1.0,
        method in 0..methods::METHODS.len(), w in 2u32..=8, seed in 0u64..=i64::MAX as u64, variant in proptest::option::of("[a-z]{1,8}"),
    ) {
        let arch = arch::find("mobilenetv2-tiny").unwrap();
        let method = &methods::METHODS[method];
        let mut recipe = (method.recipe)(arch);
        let over = RecipeOverride {
            iterations: Some(iterations), batch: Some(batch), drop_input: Some(drop), act_scale_lr: Some(lr), ..RecipeOverride::default()
        };
        over.apply(&mut recipe);
        let cell = Cell {
            arch: arch.name.into(), weights: "embedded".into(), dataset: "fashion-mnist".into(), data: None, corrupt: Corrupt::Error, preprocess: CardSize::Train, precision: Precision::Tf32, bits: Bits { w, a: 32 },
            method: method.name.into(), variant, setting: Setting::Brecq, calib_images: 64, seed, recipe,
            augment: Vec::new(), transform: None, meta: None, terms: None,
        };
        let text = cell.to_toml().unwrap();
        prop_assert_eq!(toml::from_str::<Cell>(&text).unwrap(), cell);
    }

    #[test]
    fn merging_takes_what_is_set(first in proptest::option::of(0u64..9), second in proptest::option::of(0u64..9)) {
        let mut merged = CellOverride { seed: first, ..CellOverride::default() };
        merged.merge(&CellOverride { seed: second, ..CellOverride::default() });
        prop_assert_eq!(merged.seed, second.or(first));
    }
}

#[test]
fn what_came_later_changes_no_fields_of_cells_without_it() {
    // Of a stored record from before terms had a table.
    let stored =
        r#"{"val-kl":5.0,"label-ce":0.0,"margin":0.5,"distribution":30000.0,"feature-mse":0.0,"feature-kl":0.0}"#;
    let terms: Terms = serde_json::from_str(stored).unwrap();
    assert_eq!(terms, Terms::published());
    assert_eq!(serde_json::to_string(&terms).unwrap(), stored);
    let mut cell = Record::sample("x", "metaaug", "W2A2", 0).cell;
    cell.terms = Some(terms);
    let fields = cell.fields();
    let of_terms: Vec<_> = fields.iter().filter(|(key, _)| key.starts_with("terms.")).collect();
    let expected = [
        ("distribution", "30000.0"),
        ("feature-kl", "0.0"),
        ("feature-mse", "0.0"),
        ("label-ce", "0.0"),
        ("margin", "0.5"),
        ("val-kl", "5.0"),
    ];
    assert_eq!(of_terms.len(), expected.len());
    for ((key, value), (name, weight)) in of_terms.into_iter().zip(expected) {
        assert_eq!((key.strip_prefix("terms."), value.as_str()), (Some(name), weight));
    }
    assert!(!fields.contains_key("recipe.rounding"));
    cell.recipe.rounding = RoundingName::Flexround;
    assert_eq!(cell.fields()["recipe.rounding"], "flexround");
}

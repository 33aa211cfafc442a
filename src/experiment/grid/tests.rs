use super::*;

const GRID: &str = r#"name = "test"
[base]
arch = "resnet20"
# A comment that names iterations and seed must not be taken for them.
[base.recipe]
batch-norm = "folded"
iterations = 100
[axes]
method = ["brecq", "qdrop"]
bits = ["W4A4", "W2A2"]
seed = [0, 1]
[smoke.set]
recipe = { iterations = 2 }
[smoke.axes]
seed = [5]
"#;

fn parse(text: &str, smoke: bool, set: &[&str]) -> Result<Experiment> {
    let set = set.iter().map(ToString::to_string).collect();
    Experiment::parse(SourceText { name: "grid.toml", text }, &Options { smoke, set, ..Options::default() })
}

/// The error as the terminal shows it, without colours.
fn rendered(text: &str, set: &[&str]) -> String {
    let error = match parse(text, false, set) {
        Err(Error::Grid(error)) => error,
        Err(other) => return other.to_string(),
        Ok(experiment) => panic!("{} cells", experiment.cells.len()),
    };
    let mut shown = String::new();
    let theme = miette::GraphicalTheme::unicode_nocolor();
    miette::GraphicalReportHandler::new_themed(theme).with_width(200).render_report(&mut shown, &*error).unwrap();
    shown
}

fn assert_shows(text: &str, set: &[&str], parts: &[&str]) {
    let shown = rendered(text, set);
    for part in parts {
        assert!(shown.contains(part), "{part:?} is missing in:\n{shown}");
    }
}

#[test]
fn shipped_grids_keep_the_phases_of_the_methods() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments");
    let files = [folder.clone(), folder.join("fashion")].map(|folder| std::fs::read_dir(folder).unwrap());
    let grids = files.into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut names = Vec::new();
    for grid in grids.filter(|path| path.extension().is_some_and(|extension| extension == "toml")) {
        for smoke in [false, true] {
            let experiment = Experiment::read(&grid, &Options { smoke, ..Options::default() }).unwrap();
            for cell in &experiment.cells {
                let published = (methods::find(&cell.method).unwrap().recipe)(arch::find(&cell.arch).unwrap());
                let place = format!("{}: {}", grid.display(), cell.slug());
                assert_eq!(cell.recipe.act_phase_frac, published.act_phase_frac, "{place}");
            }
            assert!(!names.contains(&experiment.name), "{} is the name of two grids", experiment.name);
            names.push(experiment.name);
        }
    }
    assert!(names.len() > 20, "{names:?}");
}

#[test]
fn setting_the_field_of_an_axis_leaves_one_value_of_it() {
    let slugs: Vec<String> = parse(GRID, false, &["seed=7"]).unwrap().cells.iter().map(Cell::slug).collect();
    let expected = ["w4a4-brecq", "w2a2-brecq", "w4a4-qdrop", "w2a2-qdrop"];
    assert_eq!(slugs, expected.map(|cell| format!("resnet20-{cell}-s7")));
    // What --set says holds for an axis that --smoke brings, too.
    assert_eq!(parse(GRID, true, &["seed=7"]).unwrap().cells.len(), 4);
    assert_eq!(parse(GRID, true, &["bits=W8A8", "method=rtn"]).unwrap().cells.len(), 1);
}

#[test]
fn an_exclude_may_have_nothing_to_do_once_smoke_replaced_the_axes() {
    let text =
        GRID.replace("[smoke.set]\nrecipe = { iterations = 2 }\n", "[[exclude]]\nseed = 1\nmethod = \"brecq\"\n");
    assert_eq!(parse(&text, false, &[]).unwrap().cells.len(), 6);
    assert_eq!(parse(&text, true, &[]).unwrap().cells.len(), 4);
    let text = text.replace("method = \"brecq\"", "method = \"brec\"");
    assert_shows(&text, &[], &["exclude matches no cell", "grid.toml:12:1", "did you mean brecq?"]);
}

#[test]
fn excludes_reach_recipe_fields_however_the_key_is_written() {
    for key in ["\"recipe.drop-input\" = 0", "recipe.drop-input = 0.0", "recipe = { drop-input = 0.0 }"] {
        let text = format!("{GRID}[[exclude]]\n{key}\n").replace("seed = [0, 1]", "\"recipe.drop-input\" = [0.0, 0.5]");
        let cells = parse(&text, false, &[]).unwrap().cells;
        assert!(cells.len() == 4 && cells.iter().all(|cell| cell.recipe.drop_input == 0.5), "{key}");
    }
}

#[test]
fn values_out_of_range_are_shown_where_they_were_written_last() {
    assert_shows(&GRID.replace("= 100", "= 0"), &[], &["recipe.iterations: 0 is not allowed", "grid.toml:7:14"]);
    // The name of this key begins another.
    assert_shows(
        &GRID.replace("iterations = 100", "batch = 0"),
        &[],
        &["recipe.batch: 0 is not allowed", "grid.toml:7:9"],
    );
    let text = GRID.replace("seed = [0, 1]", "seed = [0, 1]\n\"recipe.iterations\" = [9, 0]");
    assert_shows(&text, &[], &["recipe.iterations", "grid.toml:12:27"]);
    let text = format!("{GRID}[variants.good]\n[variants.bad]\nrecipe.batch = 0\n");
    assert_shows(&text, &[], &["recipe.batch: 0", "grid.toml:18:16", "in cell resnet20-w4a4-brecq-bad-s0"]);
    assert_shows(GRID, &["recipe.drop-inside=2"], &["recipe.drop-inside: 2", "[--set:1:20]"]);
    // Nobody wrote the published batch of 32: what makes it too large is shown.
    let text = GRID.replace("arch = \"resnet20\"", "arch = \"resnet20\"\ncalib-images = 16");
    assert_shows(&text, &[], &["recipe.batch: 32 is more than calib-images = 16", "grid.toml:4:16"]);
}

#[test]
fn seeds_that_could_not_be_written_back_are_refused() {
    let text = GRID.replace("seed = [0, 1]", "").replace("[base]", "[base]\nseed = 9223372036854775808");
    assert_shows(&text, &[], &["seed", "9223372036854775808", "grid.toml:3:8"]);
    let largest = text.replace("9223372036854775808", "9223372036854775807");
    let cell = &parse(&largest, false, &[]).unwrap().cells[0];
    assert_eq!(toml::from_str::<Cell>(&cell.to_toml().unwrap()).unwrap(), *cell);
}

#[test]
fn duplicates_name_both_origins_and_what_made_them() {
    let text = format!("{GRID}[variants.a]\nseed = 3\n[variants.b]\nseed = 3\n");
    assert_shows(&text, &[], &["-a-s3", "-b-s3", "made by this", "and by this", "make them differ"]);
    let text = format!("{GRID}[variants.a]\nseed = 3\n[variants.b]\nseed = 4\n").replace("seed = [0, 1]", "");
    assert_eq!(parse(&text, false, &[]).unwrap().cells.len(), 8);
    assert_shows(&text, &["seed=5"], &["same configuration", "--set overrides"]);
}

#[test]
fn names_are_safe_as_folders() {
    for name in ["", "-a", "a-", "a--b", "A", "a/b", "..", "a b", "é"] {
        let text = GRID.replace("\"test\"", &format!("{name:?}"));
        assert_shows(&text, &[], &["is not kebab-case", "grid.toml:1:8"]);
        let text = format!("{GRID}[variants.{name:?}]\n");
        assert_shows(&text, &[], &["name of a variant", "is not kebab-case", "grid.toml:16:11"]);
    }
    assert_shows(&GRID.replace("\"test\"", "\"test-smoke\""), &[], &["ends in -smoke"]);
}

#[test]
fn errors_without_a_place_name_the_file() {
    let text = GRID.split("[smoke.set]").next().unwrap();
    let error = parse(text, true, &[]).unwrap_err().to_string();
    assert_eq!(error, "grid.toml: --smoke, but the grid has no [smoke] section");
    assert_shows("name = \"x\"", &[], &["grid.toml: a cell has no arch"]);
}

#[test]
fn broken_text_never_hides_its_place() {
    for text in [
        "",
        "name",
        "name = \"x",
        "name = \"x\"\n[axes",
        "name = 'x'\n[axes]\nseed = [1,",
        "\u{feff}name = 3",
        "[base]\narch = \"é\nx",
    ] {
        let shown = rendered(text, &[]);
        assert!(shown.contains("[grid.toml:") && !shown.contains("OutOfBounds"), "{text:?}:\n{shown}");
    }
    assert_shows(
        &GRID.replace("seed = [0, 1]", "recipe.batch = [1]"),
        &[],
        &["expected a list", "\"recipe.iterations\" = [...]"],
    );
    assert_shows(
        &GRID.replace("recipe = { iterations = 2 }", "recipe = 2"),
        &[],
        &["expected a table of recipe fields"],
    );
}

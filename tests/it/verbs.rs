//! Every verb is where people look for it.

use crate::stored::Results;

#[test]
fn every_verb_is_in_the_readme_and_in_the_completions() {
    let results = Results::new();
    let help = results.harness(&["help"]).stdout;
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    // Further lines of a description are indented deeper.
    let lines = commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let verbs: Vec<&str> = lines.map(|line| line.split_whitespace().next().unwrap()).filter(|v| *v != "help").collect();
    assert!(verbs.len() > 15 && verbs.contains(&"reproduce"), "{verbs:?}");
    let readme = include_str!("../../README.md");
    let table: String = readme.lines().filter(|line| line.starts_with("| `")).collect();
    for verb in &verbs {
        let is_there = [" ", "`"].iter().any(|end| table.contains(&format!("`{verb}{end}")));
        assert!(is_there, "{verb} is missing in the README");
    }
    for shell in ["bash", "zsh", "fish"] {
        let completions = results.harness(&["completions", shell]).stdout;
        assert!(verbs.iter().all(|verb| completions.contains(verb)), "{shell}");
    }
}

#[test]
fn the_language_of_filters_is_described_where_errors_point() {
    let help = Results::new().harness(&["help", "list"]).stdout;
    for part in ["Filters:", "seed(>=1)", "recipe.KEY", "full-precision", "when it began (UTC)"] {
        assert!(help.contains(part), "{part}\n{help}");
    }
}

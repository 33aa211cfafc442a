use super::*;
use crate::store::record::Record;

/// The error of a wrong filter, as the command line shows it.
fn shown(text: &str) -> String {
    match Filter::parse(text) {
        Err(Error::Grid(error)) => rendered(&error),
        other => panic!("{text:?}: {other:?}"),
    }
}

fn rendered(error: &GridError) -> String {
    let mut text = String::new();
    let theme = miette::GraphicalTheme::unicode_nocolor();
    miette::GraphicalReportHandler::new_themed(theme).with_width(400).render_report(&mut text, error).unwrap();
    text
}

/// Something of which it is not known whether it has a tag.
struct Item(&'static [(&'static str, &'static [&'static str])]);

impl Subject for Item {
    const CALLED: &'static str = "items";

    fn knows(_: &str) -> bool {
        true
    }

    fn values(&self, name: &str) -> Option<Vec<String>> {
        let values = |values: &[&str]| values.iter().map(|value| value.to_string()).collect();
        match self.0.iter().find(|(known, _)| *known == name) {
            Some((_, found)) => Some(values(found)),
            None if name == "tag" => None,
            None => Some(Vec::new()),
        }
    }
}

const ITEM: Item = Item(&[
    ("arch", &["resnet20"]),
    ("bits", &["W2A4"]),
    ("method", &["genie-m"]),
    ("seed", &["1"]),
    ("recipe.drop-input", &["0.5"]),
    ("test", &["0.8123"]),
    ("augment", &["mixup", "flip"]),
    ("error", &["loss (NaN) | stopped"]),
    ("started", &["2026-11-23T13:03:04Z"]),
]);

#[test]
fn filters_hold_where_they_should() {
    for text in [
        "arch(resnet*) & bits(w2a2 | w2a4) & !status(failed)",
        "method(=genie-m)",
        "method(GENIE-M)",
        "not method(qdrop)",
        "!!method(genie-m)",
        "method(rtn) | method(rtn) or method(genie-m)",
        "method(rtn) & method(rtn) | seed(1)",
        "seed(1) | method(rtn) and method(rtn)",
        "not (method(rtn) or seed(2))",
        "not method(rtn) and seed(1)",
        "  ( ( seed ( >= 1 ) ) ) ",
        "seed(>0)&seed(<2)&&seed(<=1)",
        "recipe.drop-input(0.50) & recipe.drop-input(=5e-1) & recipe.drop-input(<0.6)",
        "test(<82%) & test(>0.81) & test(>= 81.23 %)",
        "augment(flip) & augment(*) & not variant(*)",
        "error(\"*(nan) | *\") & error(=\"loss (NaN) | stopped\")",
        "arch(/^RES.*[0-9]{2}$/ | nothing) & run(/x/) | arch(/net(20|18)/)",
        "started(>=2026-11-23) & started(<2026-12) & started(2026-11*)",
        "all() & !none()",
        "not(seed(2))",
    ] {
        assert!(Filter::parse(text).unwrap().matches(&ITEM), "{text}");
    }
    for text in [
        "method(=Genie-M)",
        "method(genie)",
        "arch(resnet*) & bits(w4a4)",
        "not (seed(1) | seed(2))",
        "none() | seed(2)",
        "variant(*)",
        "test(>82%)",
        "seed(>1)",
        "method(/^m/)",
    ] {
        assert!(!Filter::parse(text).unwrap().matches(&ITEM), "{text}");
    }
}

#[test]
fn what_is_not_known_yet_neither_selects_nor_excludes() {
    for (text, matches, possible) in [
        ("tag(paper)", false, true),
        ("not tag(paper)", false, true),
        ("tag(paper) & seed(2)", false, false),
        ("tag(paper) | seed(2)", false, true),
        ("tag(paper) | seed(1)", true, true),
        ("not (tag(paper) & seed(1))", false, true),
        ("not (tag(paper) | seed(1))", false, false),
    ] {
        let filter = Filter::parse(text).unwrap();
        let is_possible = filter.select_possible(vec![Item(ITEM.0)]).is_ok();
        assert_eq!((filter.matches(&ITEM), is_possible), (matches, possible), "{text}");
    }
}

#[test]
fn mistakes_are_shown_with_their_place_and_the_remedy() {
    for (text, place, parts) in [
        ("", "", &["the filter is empty", "for example method(qdrop)"][..]),
        ("metod(qdrop)", ":1:1]", &["no predicate `metod`", "did you mean method?", "recipe.* ("]),
        ("seed(1) & recipe.iteration(3)", ":1:11]", &["did you mean recipe.iterations?", "recipe.loss"]),
        ("method=qdrop,bits=w2a2", ":1:1]", &["`method` has no value", "write method(qdrop), and several joined by &"]),
        ("seed(1) & method", ":1:11]", &["write method(value)"]),
        ("method(qdrop", ":1:7]", &["never closed", "opened here"]),
        ("(method(qdrop)", ":1:1]", &["never closed"]),
        ("(method(qdrop) seed(1))", ":1:16]", &["expected `)`", "opened here"]),
        ("method(qdrop))", ":1:14]", &["closes nothing"]),
        ("method()", ":1:8]", &["`method` lacks a value", "method(*) matches"]),
        ("method(qdrop|)", ":1:14]", &["lacks a value"]),
        ("method(qdrop, rtn)", ":1:13]", &["a comma does not part values", "method(this | that)"]),
        ("method(qdrop), seed(1)", ":1:14]", &["a comma does not join"]),
        ("method(qdrop) seed(1)", ":1:15]", &["an operator is missing", "write &"]),
        ("method(qdrop) &", ":1:16]", &["expected a predicate"]),
        ("& method(qdrop)", ":1:1]", &["expected a predicate"]),
        ("seed(>=x)", ":1:8]", &["`x` is not a number"]),
        ("bits(<3)", ":1:7]", &["`bits` is not a number"]),
        ("test(<80)", ":1:7]", &["`test` is a fraction", "80% for percent, or 0.8"]),
        ("started(>yesterday)", ":1:10]", &["not the beginning of a time", "2026-11-23"]),
        ("bits(!w2a2)", ":1:6]", &["cannot be negated", "not bits(...)"]),
        ("method(a(b))", ":1:9]", &["written in quotes"]),
        ("method(\"a)", ":1:8]", &["quote is never closed"]),
        ("run(/a)", ":1:5]", &["regular expression has no end"]),
        ("run(/[/)", ":1:5]", &["wrong regular expression: unclosed character class"]),
        ("all(x)", ":1:5]", &["all() takes no value"]),
        ("é(x)", ":1:1]", &["no predicate `é`"]),
        ("method(é", ":1:7]", &["never closed"]),
    ] {
        let shown = shown(text);
        for part in [&[place], parts].concat() {
            assert!(shown.contains(part), "{text:?}: {part:?} is missing in\n{shown}");
        }
    }
}

#[test]
fn no_depth_of_nesting_overflows_the_stack() {
    for text in ["(".repeat(100_000), "!".repeat(100_000), "not ".repeat(100_000)] {
        assert!(shown(&text).contains("within each other"));
    }
    assert!(Filter::parse(&format!("{}seed(1){}", "(".repeat(60), ")".repeat(60))).is_ok());
}

#[test]
fn a_filter_of_cells_cannot_ask_for_results() {
    let cell = Record::sample("x", "qdrop", "W2A2", 3).cell;
    let filter = Filter::parse("method(qdrop) & test(>0.8)").unwrap();
    let Err(Error::Grid(error)) = filter.select(vec![cell.clone()]) else { panic!("selected") };
    let text = rendered(&error);
    assert!(text.contains("cells have no `test`") && text.contains(":1:17]"), "{text}");
    assert!(filter.select_possible(vec![cell]).is_ok());
}

#[test]
fn what_there_is_instead_is_listed_unless_it_is_too_much() {
    let select = |count: u32, text: &str| {
        let runs: Vec<Record> = (0..count).map(|seed| Record::sample("x", "qdrop", "W2A2", seed.into())).collect();
        let cells: Vec<Cell> = runs.into_iter().map(|run| run.cell).collect();
        Filter::parse(text).unwrap().select(cells).unwrap_err().to_string()
    };
    let text = select(3, "method(qdrop) & seed(7 | >8)");
    assert_eq!(
        text,
        "filter `method(qdrop) & seed(7 | >8)` matches none of 3 cells: none has seed(7 | >8); known: 0, 1, 2"
    );
    assert!(select(3, "method(qdorp)").ends_with("none has method(qdorp); did you mean qdrop? known: qdrop"));
    assert!(select(400, "seed(x)").ends_with("there are 400 values from 0 to 99"), "{}", select(400, "seed(x)"));
    assert!(select(1, "variant(x)").ends_with("none has a variant"));
    assert!(select(2, "seed(0) & seed(1)").ends_with("each predicate matches some, but the whole matches none"));
}

//! The templates of pages: one folder, one environment.

use crate::error::{Error, Result};
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;

/// How pages look.
pub const STYLE: &str = include_str!("templates/style.css");
/// Tables that sort, filter and unfold.
pub const TABLES: &str = include_str!("templates/tables.js");

/// Pages that keep up with what is stored.
pub const REFRESH: &str = include_str!("templates/refresh.js");

/// The page that compares runs: no value stands in it, its script asks for them and sets them as text.
pub const COMPARE: &str = include_str!("templates/compare.html");
pub const COMPARE_STYLE: &str = include_str!("templates/compare.css");
pub const COMPARE_SCRIPT: &str =
    concat!("\"use strict\";\n", include_str!("templates/compare_figures.js"), include_str!("templates/compare.js"));

/// Whether values are escaped goes by the name: those of HTML are.
const TEMPLATES: [(&str, &str); 8] = [
    ("report.html", include_str!("templates/report.html")),
    ("details.html", include_str!("templates/details.html")),
    ("overview.html", include_str!("templates/overview.html")),
    ("experiment.html", include_str!("templates/experiment.html")),
    ("run.html", include_str!("templates/run.html")),
    ("live.html", include_str!("templates/live.html")),
    ("style.css", STYLE),
    ("tables.js", TABLES),
];

/// The template `name` with `context`, values escaped. Errors: a fault of the template.
pub fn render(name: &str, context: &impl Serialize) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let added = TEMPLATES.into_iter().try_for_each(|(name, source)| environment.add_template(name, source));
    let rendered = added.and_then(|()| environment.get_template(name)?.render(Serde(context)));
    rendered.map_err(|error| Error::Report(format!("cannot make {name}: {error:#}")))
}

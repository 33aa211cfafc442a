//! How tables on the terminal show what filters know of a run.

use crate::experiment::facts;
use crate::experiment::filter::{Kind, vocabulary};

/// What the values called `name` are.
pub fn kind(name: &str) -> Kind {
    vocabulary().get(name).copied().unwrap_or(Kind::Text)
}

/// The heading of a column: with the unit in which [`shown`] shows it.
pub fn heading(name: &str) -> String {
    facts::find(name).map_or_else(|| name.to_string(), |fact| format!("{name} {}", fact.unit.symbol()))
}

/// A value, as filters have it, in the unit of its [`heading`].
pub fn shown(name: &str, value: &str) -> String {
    match (facts::find(name), value.parse::<f64>()) {
        (Some(fact), Ok(number)) => {
            let digits = if fact.unit == facts::Unit::Fraction { 2 } else { 0 };
            format!("{:.digits$}", fact.unit.scale() * number)
        }
        _ => value.to_string(),
    }
}

//! How tables on the terminal show what filters know of a run.

use crate::experiment::filter::{Kind, vocabulary};

/// What the values called `name` are.
pub fn kind(name: &str) -> Kind {
    vocabulary().get(name).copied().unwrap_or(Kind::Text)
}

/// The heading of a column: with the unit in which [`shown`] shows it.
pub fn heading(name: &str) -> String {
    match (kind(name), name) {
        (Kind::Fraction, _) => format!("{name} %"),
        (_, "wall" | "cpu") => format!("{name} s"),
        (_, "memory") => format!("{name} MiB"),
        _ => name.to_string(),
    }
}

/// A value, as filters have it, in the unit of its [`heading`].
pub fn shown(name: &str, value: &str) -> String {
    let number = |scale: f64, digits: usize| match value.parse::<f64>() {
        Ok(number) => format!("{:.digits$}", scale * number),
        Err(_) => value.to_string(),
    };
    match (kind(name), name) {
        (Kind::Fraction, _) => number(100.0, 2),
        (_, "wall" | "cpu") => number(1.0, 0),
        (_, "memory") => number(1.0 / f64::from(1 << 20), 0),
        _ => value.to_string(),
    }
}

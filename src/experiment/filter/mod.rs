//! Selecting cells and runs: `arch(resnet*) & bits(w2a2 | w2a4) & not status(failed)`.
//!
//! | | |
//! |---|---|
//! | `method(qdrop \| genie-*)` | a value or another; `*` stands for any characters, capitals do not count |
//! | `method(=genie-m)` | exactly this text |
//! | `run(/-s[0-4]-/)` | a regular expression that matches somewhere in the value |
//! | `seed(>=1)`, `test(<80%)`, `started(>=2026-11-20)` | comparisons of numbers, fractions and dates |
//! | `recipe.drop-input(0.5)` | numbers are the same however they are written |
//! | `tag(*)` | has any value; where there is none, nothing matches |
//! | `not`/`!`, `and`/`&`, `or`/`\|`, `(…)` | in this order of strength |
//! | `all()`, `none()` | everything, nothing |
//!
//! What stands before the parenthesis is a predicate: a field of a cell by its dotted key, or what is stored of a run
//! ([`vocabulary`]). A text with any of `( ) | & !` in it is written in double quotes.

mod matcher;
mod parse;
mod subject;
mod vocabulary;

pub use subject::Subject;
pub(crate) use vocabulary::known;
pub use vocabulary::{Kind, run_predicates, vocabulary};

use super::cell::Cell;
use crate::diagnostic::{GridError, SourceText, suggest};
use crate::error::{Error, Result};
use matcher::Matcher;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// A parsed filter.
#[derive(Clone, Debug)]
pub struct Filter {
    /// As given.
    text: String,
    expr: Expr,
}

#[derive(Clone, Debug)]
enum Expr {
    All,
    None,
    Not(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Is(Predicate),
}

/// `name(matcher | matcher)`.
#[derive(Clone, Debug)]
struct Predicate {
    name: String,
    /// Where the name stands in the text.
    span: Range<usize>,
    alternatives: Vec<Matcher>,
}

impl Filter {
    /// Parses a filter. Errors: [`Error::Grid`], which shows the place and what would have been right.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(Self { text: text.to_string(), expr: parse::parse(SourceText { name: "filter", text })? })
    }

    /// A filter from a table whose values are single values or lists of alternatives.
    pub(super) fn from_table(table: &BTreeMap<String, toml::Value>) -> Self {
        fn flatten(name: String, value: &toml::Value, all: &mut Vec<Expr>) {
            let alternatives = match value {
                toml::Value::Table(table) => {
                    return table.iter().for_each(|(inner, value)| flatten(format!("{name}.{inner}"), value, all));
                }
                toml::Value::Array(values) => values.iter().map(|value| Matcher::glob(&plain(value))).collect(),
                single => vec![Matcher::glob(&plain(single))],
            };
            all.push(Expr::Is(Predicate { name, span: 0..0, alternatives }));
        }
        let mut all = Vec::new();
        table.iter().for_each(|(key, value)| flatten(key.clone(), value, &mut all));
        Self { text: String::new(), expr: Expr::And(all) }
    }

    /// The first name that none of `cells` has as a key, with the known ones.
    pub(super) fn unknown_key(&self, cells: &[Cell]) -> Option<(String, String)> {
        let mut known: BTreeSet<String> = cells.iter().flat_map(|cell| cell.fields().into_keys()).collect();
        if known.is_empty() {
            return None;
        }
        known.insert("variant".to_string());
        let unknown = self.predicates().into_iter().find(|predicate| !known.contains(&predicate.name))?;
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        Some((unknown.name.clone(), suggest(&unknown.name, &known)))
    }

    /// Whether `subject` is selected; what is not known of it is not selected by.
    pub fn matches<S: Subject>(&self, subject: &S) -> bool {
        self.expr.holds(subject) == Some(true)
    }

    /// The `items` that match. Errors: a predicate that means nothing for them ([`Error::Grid`]); nothing matched.
    pub fn select<S: Subject>(&self, items: Vec<S>) -> Result<Vec<S>> {
        self.check::<S>()?;
        self.keep(items, |holds| holds == Some(true))
    }

    /// The `items` that match, or may match by what is not known of them yet. Errors: nothing can match.
    pub fn select_possible<S: Subject>(&self, items: Vec<S>) -> Result<Vec<S>> {
        self.keep(items, |holds| holds != Some(false))
    }

    /// Refuses predicates that mean nothing for `S`.
    pub(super) fn check<S: Subject>(&self) -> Result<(), Box<GridError>> {
        let Some(wrong) = self.predicates().into_iter().find(|predicate| !S::knows(&predicate.name)) else {
            return Ok(());
        };
        let source = SourceText { name: "filter", text: &self.text };
        let message = format!("{} have no `{}`", S::CALLED, wrong.name);
        Err(source.error(message, Some(wrong.span.clone()), "here").help(known(&wrong.name, S::knows)))
    }

    fn keep<S: Subject>(&self, items: Vec<S>, wanted: impl Fn(Option<bool>) -> bool) -> Result<Vec<S>> {
        let (selected, others): (Vec<S>, Vec<S>) = items.into_iter().partition(|item| wanted(self.expr.holds(item)));
        if selected.is_empty() {
            let (text, total, called, why) = (&self.text, others.len(), S::CALLED, self.why_nothing(&others));
            return Err(Error::NothingMatched(format!("filter `{text}` matches none of {total} {called}: {why}")));
        }
        Ok(selected)
    }

    /// Which predicate none of `items` meets, and what it could have been.
    pub(super) fn why_nothing<S: Subject>(&self, items: &[S]) -> String {
        let unmet = |predicate: &&Predicate| !items.iter().any(|item| predicate.holds(item) == Some(true));
        let Some(Predicate { name, alternatives, .. }) = self.predicates().into_iter().find(unmet) else {
            return "each predicate matches some, but the whole matches none".to_string();
        };
        let wanted: Vec<String> = alternatives.iter().map(Matcher::to_string).collect();
        let wanted = wanted.join(" | ");
        let present: BTreeSet<String> = items.iter().filter_map(|item| item.values(name)).flatten().collect();
        let present: Vec<&str> = present.iter().map(String::as_str).collect();
        // Ids of runs, say: nobody reads ten thousand of them.
        const LISTED: usize = 30;
        match present[..] {
            [] => format!("none has a {name}"),
            [first, .., last] if present.len() > LISTED => {
                format!("none has {name}({wanted}); there are {} values from {first} to {last}", present.len())
            }
            _ => format!("none has {name}({wanted}); {}", suggest(&wanted, &present)),
        }
    }

    /// All predicates that are not negated, in the order written, then the negated ones.
    fn predicates(&self) -> Vec<&Predicate> {
        fn collect<'a>(expr: &'a Expr, negated: bool, plain: &mut Vec<&'a Predicate>, not: &mut Vec<&'a Predicate>) {
            match expr {
                Expr::All | Expr::None => (),
                Expr::Not(inner) => collect(inner, !negated, plain, not),
                Expr::And(all) | Expr::Or(all) => all.iter().for_each(|expr| collect(expr, negated, plain, not)),
                Expr::Is(predicate) => if negated { not } else { plain }.push(predicate),
            }
        }
        let (mut plain, mut not) = (Vec::new(), Vec::new());
        collect(&self.expr, false, &mut plain, &mut not);
        plain.extend(not);
        plain
    }
}

impl Expr {
    /// `None` where it depends on what is not known of `subject`.
    fn holds(&self, subject: &impl Subject) -> Option<bool> {
        match self {
            Expr::All => Some(true),
            Expr::None => Some(false),
            Expr::Not(inner) => inner.holds(subject).map(|holds| !holds),
            Expr::And(all) => decided(all, subject, false),
            Expr::Or(all) => decided(all, subject, true),
            Expr::Is(predicate) => predicate.holds(subject),
        }
    }
}

/// `decisive` if one of `all` is; otherwise its opposite, unless one is unknown.
fn decided(all: &[Expr], subject: &impl Subject, decisive: bool) -> Option<bool> {
    let mut result = Some(!decisive);
    for expr in all {
        match expr.holds(subject) {
            Some(holds) if holds == decisive => return Some(decisive),
            Some(_) => (),
            None => result = None,
        }
    }
    result
}

impl Predicate {
    fn holds(&self, subject: &impl Subject) -> Option<bool> {
        let values = subject.values(&self.name)?;
        Some(values.iter().any(|value| self.alternatives.iter().any(|matcher| matcher.matches(value))))
    }
}

/// The text of a value as [`Cell::fields`] has it.
fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;

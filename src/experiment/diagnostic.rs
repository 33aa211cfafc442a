//! Errors in grid files, with the offending text.

use miette::{Diagnostic, NamedSource, SourceSpan};
use std::ops::Range;

/// What is wrong with a grid file, and where.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{message}")]
pub struct GridError {
    message: String,
    #[source_code]
    source_code: NamedSource<String>,
    #[label("{label}")]
    span: Option<SourceSpan>,
    label: String,
    #[help]
    help: Option<String>,
}

/// A grid file's text with its name: makes errors that point into it.
#[derive(Clone, Copy)]
pub struct SourceText<'a> {
    pub name: &'a str,
    pub text: &'a str,
}

impl SourceText<'_> {
    /// An error about the text at `span`, or about the file as a whole.
    pub fn error(&self, message: impl Into<String>, span: Option<Range<usize>>, label: &str) -> Box<GridError> {
        Box::new(GridError {
            message: message.into(),
            source_code: NamedSource::new(self.name, self.text.to_string()).with_language("toml"),
            span: span.map(SourceSpan::from),
            label: label.to_string(),
            help: None,
        })
    }

    /// What the TOML parser or a field's type refused.
    pub fn syntax(&self, error: &toml::de::Error) -> Box<GridError> {
        let (message, help) = with_suggestion(error.message());
        let mut own = self.error(message, error.span(), "here");
        own.help = help;
        own
    }

    /// Where `key` stands within `section`, else the section itself: the span to show for a value read as part of it.
    pub fn find_key(&self, section: Range<usize>, key: &str) -> Range<usize> {
        let name = key.rsplit('.').next().unwrap_or(key);
        let found = self.text.get(section.clone()).and_then(|text| text.find(name));
        found.map_or(section.clone(), |at| section.start + at..section.start + at + name.len())
    }
}

impl GridError {
    /// The same error, about another place.
    pub fn at(mut self: Box<Self>, span: Range<usize>) -> Box<Self> {
        self.span = Some(span.into());
        self
    }

    /// The same error with a remedy.
    pub fn help(mut self: Box<Self>, help: impl Into<String>) -> Box<Self> {
        self.help = Some(help.into());
        self
    }
}

/// Moves the known names that a message lists into the help, with the closest one first; serde quotes the offending
/// name with backticks.
fn with_suggestion(message: &str) -> (String, Option<String>) {
    let Some((head, known)) = message.split_once(", expected one of ") else {
        return (message.to_string(), None);
    };
    let known: Vec<&str> = known.split(", ").map(|name| name.trim_matches('`')).collect();
    let offending = head.split('`').nth(1).unwrap_or_default();
    (head.to_string(), Some(suggest(offending, &known)))
}

/// "did you mean …? known: …"
pub fn suggest(given: &str, known: &[&str]) -> String {
    let closest = known.iter().map(|name| (distance(given, name), *name)).min();
    let listed = known.join(", ");
    match closest {
        Some((distance, name)) if distance <= 2 && distance < name.len() => {
            format!("did you mean {name}? known: {listed}")
        }
        _ => format!("known: {listed}"),
    }
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

//! Errors in grid files, with the offending text; and how text of others is shown.

use miette::{Diagnostic, LabeledSpan, NamedSource};
use std::borrow::Cow;
use std::ops::Range;

/// What is wrong with a grid file, a filter or an override, and where.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{message}")]
pub struct GridError {
    message: String,
    #[source_code]
    source_code: NamedSource<String>,
    #[label(collection)]
    labels: Vec<LabeledSpan>,
    #[help]
    help: Option<String>,
}

/// A text with its name: makes errors that point into it.
#[derive(Clone, Copy)]
pub struct SourceText<'a> {
    pub name: &'a str,
    pub text: &'a str,
}

impl SourceText<'_> {
    /// An error about the text at `span`, or about the file as a whole.
    pub fn error(&self, message: impl Into<String>, span: Option<Range<usize>>, label: &str) -> Box<GridError> {
        let message = message.into();
        let primary = span.clone().map(|span| {
            // The parser points past the end of a file that breaks off.
            let end = self.text.len();
            LabeledSpan::new_primary_with_span(Some(label.to_string()), span.start.min(end)..span.end.min(end))
        });
        Box::new(GridError {
            // Without a span nothing else shows which file is meant.
            message: printable(&if span.is_some() { message } else { format!("{}: {message}", self.name) })
                .into_owned(),
            source_code: self.source_code(),
            labels: primary.into_iter().collect(),
            help: None,
        })
    }

    /// The text as it is shown: a control character has a `?` for each of its bytes, so that places stay what they are.
    fn source_code(&self) -> NamedSource<String> {
        let mut text = String::with_capacity(self.text.len());
        for c in self.text.chars() {
            match is_command(c) {
                true => text.extend(std::iter::repeat_n('?', c.len_utf8())),
                false => text.push(c),
            }
        }
        NamedSource::new(printable(self.name), text).with_language("toml")
    }

    /// What the TOML parser or a field's type refused.
    pub fn syntax(&self, error: &toml::de::Error) -> Box<GridError> {
        self.syntax_at(error, error.span().unwrap_or(0..0))
    }

    /// The same for a value that was read on its own, so that the place the error names is not one of this text.
    pub fn syntax_at(&self, error: &toml::de::Error, span: Range<usize>) -> Box<GridError> {
        let (message, help) = readable(error.message());
        let mut own = self.error(message, Some(span), "here");
        own.help = help.map(|help| printable(&help).into_owned());
        own
    }
}

impl GridError {
    /// The same error about `text`, which stands in quotes at `span` of `source`: shown there, at its own place if no
    /// escape moves it.
    pub fn within(mut self: Box<Self>, source: SourceText, text: &str, span: Range<usize>) -> Box<Self> {
        let quoted = source.text.get(span.clone()).unwrap_or_default();
        let quotes = if quoted.starts_with("\"\"\"") || quoted.starts_with("'''") { 3 } else { 1 };
        let is_verbatim = quoted.get(quotes..).is_some_and(|inside| inside.starts_with(text));
        self.labels = match (is_verbatim, self.labels.is_empty()) {
            (true, false) => {
                let moved = |label: &LabeledSpan| {
                    let start = span.start + quotes + label.offset();
                    LabeledSpan::new_with_span(label.label().map(str::to_string), start..start + label.len())
                };
                self.labels.iter().map(moved).collect()
            }
            _ => vec![LabeledSpan::new_primary_with_span(Some("in this".to_string()), span)],
        };
        self.source_code = source.source_code();
        self
    }

    /// The same error, with one more labelled place.
    pub fn label(mut self: Box<Self>, span: Range<usize>, label: &str) -> Box<Self> {
        self.labels.push(LabeledSpan::new_with_span(Some(label.to_string()), span));
        self
    }

    /// The same error with a remedy.
    pub fn help(mut self: Box<Self>, help: impl Into<String>) -> Box<Self> {
        self.help = Some(printable(&help.into()).into_owned());
        self
    }
}

/// Whether a terminal takes `c` for a command: a control character, but for line feeds and tabs, or one that turns the
/// direction of the text after it.
fn is_command(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t')) || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text` with what a terminal takes for commands written out, `\u001b`, as JSON writes it.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_command) {
        return text.into();
    }
    let written = |c: char| if is_command(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    text.chars().map(written).collect()
}

/// What serde says, in the words of a grid file.
const WORDS: [(&str, &str); 8] = [
    ("expected usize", "expected a whole number from 0 on"),
    ("expected u64", "expected a whole number from 0 on"),
    ("expected f64", "expected a number"),
    ("expected struct RecipeOverride", "expected a table of recipe fields"),
    ("expected struct CellOverride", "expected a table of cell fields"),
    ("expected a sequence", "expected a list [...]"),
    ("invalid type: map", "invalid type: table"),
    ("unknown variant", "unknown value"),
];

/// Translates serde's message, and moves the known names that it lists into the help, with the closest one first.
fn readable(message: &str) -> (String, Option<String>) {
    // serde quotes names with backticks: first the offending one, then, after "expected", the known ones.
    if let Some((head, listed)) = message.split_once(", expected ").filter(|(_, listed)| listed.ends_with('`')) {
        let known: Vec<&str> = listed.split('`').skip(1).step_by(2).collect();
        let offending = head.split('`').nth(1).unwrap_or_default();
        return (worded(head), Some(suggest(offending, &known)));
    }
    let is_nested_axis = message == "invalid type: map, expected a sequence";
    let help = is_nested_axis.then(|| "write the key of an axis in quotes: \"recipe.iterations\" = [...]".to_string());
    (worded(message), help)
}

fn worded(message: &str) -> String {
    WORDS.iter().fold(message.to_string(), |message, (serde, ours)| message.replace(serde, ours))
}

/// "did you mean …? known: …"
pub fn suggest(given: &str, known: &[&str]) -> String {
    let closest = known.iter().map(|name| (distance(given, name), *name)).min();
    let listed = known.join(", ");
    match closest {
        // Two slips, but not so many that a short name is another word.
        Some((distance, name)) if distance <= 2 && 2 * distance < name.len() => {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_move_to_the_help_however_many_there_are() {
        let cases = [
            (
                "unknown field `setz`, expected `set` or `axes`",
                "unknown field `setz`",
                "did you mean set? known: set, axes",
            ),
            ("unknown variant `x`, expected one of `aa`, `bb`, `cc`", "unknown value `x`", "known: aa, bb, cc"),
            ("unknown field `nam`, expected `name`", "unknown field `nam`", "did you mean name? known: name"),
        ];
        for (message, text, help) in cases {
            assert_eq!(readable(message), (text.to_string(), Some(help.to_string())));
        }
    }

    #[test]
    fn commands_to_a_terminal_are_written_out() {
        let hostile = "a\u{1b}]0;title\u{7}\r\u{9b}2J\u{202e}b";
        assert_eq!(printable(hostile), "a\\u001b]0;title\\u0007\\u000d\\u009b2J\\u202eb");
        assert!(matches!(printable("tab\t, line\n, ü ± – 二"), Cow::Borrowed(_)));
        let source = SourceText { name: "x\u{1b}.toml", text: "a = \u{9b}\u{1b}[2J = 3" };
        let error = source.error("wrong \u{1b}", Some(6..7), "here").help("\u{1b}");
        assert_eq!((error.message.as_str(), error.help.as_deref()), ("wrong \\u001b", Some("\\u001b")));
        assert_eq!((error.source_code.name(), error.source_code.inner().as_str()), ("x\\u001b.toml", "a = ???[2J = 3"));
    }

    #[test]
    fn types_are_named_as_a_grid_writes_them() {
        let (message, help) = readable("invalid type: string \"many\", expected usize");
        assert_eq!(
            (message.as_str(), help),
            ("invalid type: string \"many\", expected a whole number from 0 on", None)
        );
    }

    #[test]
    fn only_close_names_are_suggested() {
        assert!(suggest("qdorp", &["rtn", "qdrop"]).starts_with("did you mean qdrop?"));
        assert_eq!(suggest("abc", &["rtn", "qdrop"]), "known: rtn, qdrop");
    }
}

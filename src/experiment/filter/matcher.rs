//! What a predicate compares a value with.

use super::vocabulary::Kind;
use regex::{Regex, RegexBuilder};
use std::cmp::Ordering;
use std::fmt;

/// One alternative of a predicate.
#[derive(Clone, Debug)]
pub(super) enum Matcher {
    /// In lower case; `*` stands for any characters.
    Glob(String),
    Exact(String),
    Regex(Regex),
    Compare(Comparison, Bound),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What a value is compared with.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Bound {
    Number(f64),
    /// The beginning of `2026-11-23T13:03:04Z`: `2026-11` is the whole month.
    Time(String),
}

/// Longest first: `<=` is not `<` and `=…`.
const COMPARISONS: [(&str, Comparison); 4] = [
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

impl Comparison {
    /// The comparison that `text` begins with, and its length.
    pub(super) fn at_start_of(text: &str) -> Option<(Self, usize)> {
        COMPARISONS.iter().find(|(sign, _)| text.starts_with(sign)).map(|(sign, comparison)| (*comparison, sign.len()))
    }

    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Comparison::Less => ordering.is_lt(),
            Comparison::LessOrEqual => ordering.is_le(),
            Comparison::Greater => ordering.is_gt(),
            Comparison::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

impl Bound {
    /// `text` as a bound for values of `kind`; otherwise what is wrong with it, and a remedy.
    pub(super) fn parse(text: &str, kind: Kind, name: &str) -> Result<Self, (String, String)> {
        let number = match text.strip_suffix('%') {
            Some(percent) => percent.trim_end().parse::<f64>().map(|percent| percent / 100.0),
            None => text.parse(),
        };
        match (kind, number) {
            (Kind::Text, _) => Err((
                format!("`{name}` is not a number"),
                format!("compare it with a text: {name}({text}), {name}(=exactly), {name}(begin*)"),
            )),
            (Kind::Time, _) => match is_time_prefix(text) {
                true => Ok(Bound::Time(text.to_uppercase())),
                false => Err((
                    format!("`{text}` is not the beginning of a time"),
                    "for example 2026-11-23 or 2026-11-23T13:30 (UTC)".to_string(),
                )),
            },
            (_, Err(_)) => Err((format!("`{text}` is not a number"), format!("for example {name}(>=1)"))),
            (_, Ok(number)) if number.is_nan() => {
                Err(("nothing compares with NaN".to_string(), format!("for example {name}(>=1)")))
            }
            (Kind::Fraction, Ok(number)) if !(-1.0..=1.0).contains(&number) => Err((
                format!("`{name}` is a fraction, and {text} is not"),
                format!("write {text}% for percent, or {} for a fraction", number / 100.0),
            )),
            (_, Ok(number)) => Ok(Bound::Number(number)),
        }
    }
}

/// Whether `2026-11-23T13:03:04Z` could begin like this: at least a year and a hyphen, at most to the second.
fn is_time_prefix(text: &str) -> bool {
    const FORM: &str = "dddd-dd-ddTdd:dd:ddZ";
    let fits = text.chars().zip(FORM.chars()).all(|(given, form)| match form {
        'd' => given.is_ascii_digit(),
        form => given.eq_ignore_ascii_case(&form),
    });
    (4..=FORM.len()).contains(&text.len()) && fits
}

impl Matcher {
    pub(super) fn glob(pattern: &str) -> Self {
        Matcher::Glob(pattern.to_lowercase())
    }

    pub(super) fn regex(pattern: &str) -> Result<Self, regex::Error> {
        RegexBuilder::new(pattern).case_insensitive(true).build().map(Matcher::Regex)
    }

    pub(super) fn matches(&self, value: &str) -> bool {
        match self {
            Matcher::Glob(pattern) => glob(pattern, &value.to_lowercase()) || is_same_number(pattern, value),
            Matcher::Exact(text) => text == value || is_same_number(text, value),
            Matcher::Regex(regex) => regex.is_match(value),
            Matcher::Compare(comparison, Bound::Number(bound)) => {
                let ordering = value.parse::<f64>().ok().and_then(|value| value.partial_cmp(bound));
                ordering.is_some_and(|ordering| comparison.holds(ordering))
            }
            Matcher::Compare(comparison, Bound::Time(bound)) => {
                comparison.holds(value.get(..bound.len()).unwrap_or(value).cmp(bound))
            }
        }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Matcher::Glob(pattern) => f.write_str(pattern),
            Matcher::Exact(text) => write!(f, "={text}"),
            Matcher::Regex(regex) => write!(f, "/{}/", regex.as_str()),
            Matcher::Compare(comparison, bound) => {
                let sign = COMPARISONS.iter().find(|(_, known)| known == comparison).map_or("", |(sign, _)| sign);
                match bound {
                    Bound::Number(number) => write!(f, "{sign}{number}"),
                    Bound::Time(time) => write!(f, "{sign}{time}"),
                }
            }
        }
    }
}

/// Whether both are numbers and equal: `1e-3` selects what is printed as `0.001`.
fn is_same_number(a: &str, b: &str) -> bool {
    matches!((a.parse::<f64>(), b.parse::<f64>()), (Ok(a), Ok(b)) if a == b)
}

/// Whether `text` matches `pattern`, in which `*` stands for any characters.
///
/// Where characters after a star do not fit, the last star takes one character more: no pattern takes longer than the
/// product of both lengths.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut last_star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                last_star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((star, taken)) = last_star else { return false };
                last_star = Some((star, taken + 1));
                (p, t) = (star + 1, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_characters_and_nothing_else_does() {
        let matching =
            [("*", ""), ("genie-*", "genie-m"), ("*a2", "w4a2"), ("w*a*", "w2a4"), ("é*", "éa"), ("*a*", "ba")];
        assert!(matching.iter().all(|(pattern, text)| glob(pattern, text)));
        let other = [("genie", "genie-m"), ("*a2", "w2a4"), ("w*a*b", "w2a4"), ("", "a"), ("a*", ""), ("**b", "a")];
        assert!(!other.iter().any(|(pattern, text)| glob(pattern, text)));
    }

    #[test]
    fn many_stars_take_no_longer_than_few() {
        // Whoever tries all places of all stars does not come to an end here.
        assert!(!glob(&("*a".repeat(40) + "b"), &"a".repeat(4000)));
    }

    #[test]
    fn numbers_match_however_they_are_written() {
        assert!(is_same_number("1e-3", "0.001") && is_same_number("0", "0.0"));
        assert!(!is_same_number("nan", "nan") && !is_same_number("w2a2", "w2a2"));
    }

    #[test]
    fn bounds_are_numbers_percents_or_the_beginning_of_a_time() {
        let parse = |text, kind| Bound::parse(text, kind, "x");
        assert_eq!(parse("1e3", Kind::Number), Ok(Bound::Number(1000.0)));
        assert_eq!(parse("80%", Kind::Fraction), Ok(Bound::Number(0.8)));
        assert!(parse("80", Kind::Fraction).unwrap_err().1.contains("80% for percent, or 0.8"));
        for text in ["", "x", "nan", "1,5"] {
            assert!(parse(text, Kind::Number).is_err(), "{text}");
        }
        for text in ["2026", "2026-1", "2026-11-23", "2026-11-23t13:30", "2026-11-23T13:03:04Z"] {
            assert!(parse(text, Kind::Time).is_ok(), "{text}");
        }
        for text in ["202", "23.11.2026", "2026-11-23 13:30", "2026-11-23T13:03:04Z0"] {
            assert!(parse(text, Kind::Time).is_err(), "{text}");
        }
        assert!(parse("3", Kind::Text).is_err());
    }

    #[test]
    fn a_time_bound_stands_for_the_whole_of_what_it_names() {
        let holds = |text: &str, value: &str| {
            let (comparison, length) = Comparison::at_start_of(text).unwrap();
            Matcher::Compare(comparison, Bound::parse(&text[length..], Kind::Time, "x").unwrap()).matches(value)
        };
        let noon = "2026-11-23T12:00:00Z";
        for text in [">=2026-11-23", "<=2026-11-23", ">2026-11-22", "<2026-12", "<=2026-11-23T12:00:00Z"] {
            assert!(holds(text, noon), "{text}");
        }
        for text in [">2026-11-23", "<2026-11-23", "<2026", ">2026-11-23T12"] {
            assert!(!holds(text, noon), "{text}");
        }
    }
}

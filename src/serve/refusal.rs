//! Why a question is refused, as JSON for the page that asked it.

use crate::error::Error;
use miette::Diagnostic;
use serde::Serialize;

#[derive(Debug, PartialEq, Serialize)]
pub struct Refusal {
    message: String,
    help: Option<String>,
    place: Option<Place>,
}

/// What of a text is wrong, in pieces: no page has to count bytes.
#[derive(Debug, PartialEq, Serialize)]
struct Place {
    /// The first wrong character, from 1.
    at: usize,
    before: String,
    wrong: String,
    after: String,
}

impl Refusal {
    /// What `error` says of `text`; `None` if the question is not to blame.
    pub fn of(error: &Error, text: &str) -> Option<Self> {
        match error {
            Error::Grid(error) => {
                let label = error.labels().and_then(|mut labels| labels.next());
                let place = label.and_then(|label| Place::of(text, label.offset(), label.offset() + label.len()));
                // By its trait: the method that gives an error a help is called so too.
                let help = Diagnostic::help(error.as_ref()).map(|help| help.to_string());
                Some(Self { message: error.to_string(), help, place })
            }
            Error::Usage(message) => Some(Self { message: message.clone(), help: None, place: None }),
            _ => None,
        }
    }
}

impl Place {
    fn of(text: &str, start: usize, end: usize) -> Option<Self> {
        let (before, wrong, after) = (text.get(..start)?, text.get(start..end)?, text.get(end..)?);
        let [before, wrong, after] = [before, wrong, after].map(str::to_string);
        Some(Self { at: before.chars().count() + 1, before, wrong, after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::Filter;

    #[test]
    fn the_place_is_told_in_characters() {
        let text = "method(\"größer\") & metod(x)";
        let error = Filter::parse(text).unwrap_err();
        let refusal = Refusal::of(&error, text).unwrap();
        let place = refusal.place.unwrap();
        assert_eq!((place.at, place.before.as_str(), place.wrong.as_str()), (20, "method(\"größer\") & ", "metod"));
        assert_eq!(place.after, "(x)");
        assert!(refusal.message.contains("metod") && refusal.help.unwrap().contains("method"));
        // At the end of the text nothing is wrong but that it ends.
        assert_eq!(Place::of("ab", 2, 2).unwrap().at, 3);
        assert_eq!(Place::of("ä", 1, 2), None);
        assert_eq!(Refusal::of(&Error::NothingMatched(String::new()), ""), None);
    }
}

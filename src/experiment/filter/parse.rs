//! From the text of a filter to an expression.
//!
//! ```text
//! or        = and { ("|" | "or") and }
//! and       = not { ("&" | "and") not }
//! not       = ("!" | "not") not | "(" or ")" | predicate
//! predicate = name "(" matcher { "|" matcher } ")" | ("all" | "none") "(" ")"
//! matcher   = value | "=" value | "/" regex "/" | ("<" | "<=" | ">" | ">=") value
//! ```

use super::matcher::{Bound, Comparison, Matcher};
use super::vocabulary::{known, vocabulary};
use super::{Expr, Predicate};
use crate::diagnostic::{GridError, SourceText};
use std::ops::Range;

type Parsed<T> = Result<T, Box<GridError>>;

/// Parentheses and negations within each other.
const DEEPEST: usize = 64;
/// What ends a value that is not in quotes.
const ENDS_VALUE: [char; 6] = ['|', ')', '(', '&', ',', '"'];

/// The expression of the whole text.
pub(super) fn parse(source: SourceText) -> Parsed<Expr> {
    let mut parser = Parser { source, at: 0, depth: 0 };
    parser.skip_space();
    if parser.rest().is_empty() {
        let error = source.error("the filter is empty", None, "");
        return Err(error.help("for example method(qdrop) & bits(w2a2), or all()"));
    }
    let expr = parser.or()?;
    match parser.rest().chars().next() {
        None => Ok(expr),
        Some(')') => {
            let error = source.error("this closes nothing", Some(parser.next_char()), "here");
            Err(error.help("drop it, or open it with ( before"))
        }
        Some(',') => {
            let error = source.error("a comma does not join predicates", Some(parser.next_char()), "here");
            Err(error.help("write & where both must hold, | where one is enough"))
        }
        Some(_) => {
            let error = source.error("an operator is missing", Some(parser.next_word()), "before this");
            Err(error.help("write & where both must hold, | where one is enough"))
        }
    }
}

struct Parser<'a> {
    source: SourceText<'a>,
    /// Bytes read.
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.source.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Reads `sign` and the space after it, if it is next.
    fn eat(&mut self, sign: &str) -> bool {
        let found = self.rest().starts_with(sign);
        if found {
            self.at += sign.len();
            self.skip_space();
        }
        found
    }

    /// Reads `word` and the space after it, if it is the next name.
    fn eat_word(&mut self, word: &str) -> bool {
        self.name_length() == word.len() && self.eat(word)
    }

    fn name_length(&self) -> usize {
        let is_end = |c: char| !(c.is_alphanumeric() || matches!(c, '-' | '_' | '.'));
        self.rest().find(is_end).unwrap_or(self.rest().len())
    }

    /// Where the next character stands; the end of the text after the last one.
    fn next_char(&self) -> Range<usize> {
        self.at..self.at + self.rest().chars().next().map_or(0, char::len_utf8)
    }

    /// Where the next name stands, or else the next character.
    fn next_word(&self) -> Range<usize> {
        match self.name_length() {
            0 => self.next_char(),
            length => self.at..self.at + length,
        }
    }

    fn or(&mut self) -> Parsed<Expr> {
        let mut any = vec![self.and()?];
        while self.eat("||") || self.eat("|") || self.eat_word("or") {
            any.push(self.and()?);
        }
        Ok(if any.len() == 1 { any.remove(0) } else { Expr::Or(any) })
    }

    fn and(&mut self) -> Parsed<Expr> {
        let mut all = vec![self.not()?];
        while self.eat("&&") || self.eat("&") || self.eat_word("and") {
            all.push(self.not()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Expr::And(all) })
    }

    fn not(&mut self) -> Parsed<Expr> {
        let start = self.next_char();
        self.depth += 1;
        if self.depth > DEEPEST {
            let message = format!("more than {DEEPEST} parentheses and negations within each other");
            return Err(self.source.error(message, Some(start), "here"));
        }
        let expr = if self.eat("!") || self.eat_word("not") {
            Expr::Not(Box::new(self.not()?))
        } else if self.eat("(") {
            let inner = self.or()?;
            if !self.eat(")") {
                return Err(self.unclosed(start));
            }
            inner
        } else {
            self.predicate()?
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn unclosed(&self, opening: Range<usize>) -> Box<GridError> {
        let error = match self.rest().is_empty() {
            true => self.source.error("this is never closed", Some(opening), "opened here"),
            false => {
                let error = self.source.error("expected `)`", Some(self.next_char()), "before this");
                error.label(opening, "opened here")
            }
        };
        error.help("close it with )")
    }

    fn predicate(&mut self) -> Parsed<Expr> {
        let span = self.at..self.at + self.name_length();
        let name = &self.source.text[span.clone()];
        if name.is_empty() {
            let error = self.source.error("expected a predicate", Some(self.next_char()), "here");
            return Err(error.help("for example method(qdrop), bits(w2a2 | w2a4), not status(failed)"));
        }
        self.at = span.end;
        self.skip_space();
        let opening = self.next_char();
        if !self.eat("(") {
            return Err(self.not_called(name, span));
        }
        if matches!(name, "all" | "none") {
            return match self.eat(")") {
                true => Ok(if name == "all" { Expr::All } else { Expr::None }),
                false => Err(self.source.error(format!("{name}() takes no value"), Some(self.next_char()), "here")),
            };
        }
        if !vocabulary().contains_key(name) {
            let error = self.source.error(format!("there is no predicate `{name}`"), Some(span), "here");
            return Err(error.help(known(name, |_| true)));
        }
        let mut alternatives = vec![self.matcher(name, &opening)?];
        while self.eat("||") || self.eat("|") {
            alternatives.push(self.matcher(name, &opening)?);
        }
        if self.eat(")") {
            return Ok(Expr::Is(Predicate { name: name.to_string(), span, alternatives }));
        }
        let wrong = self.next_char();
        match self.rest().chars().next() {
            Some(',') => Err(self
                .source
                .error("a comma does not part values", Some(wrong), "here")
                .help(format!("write {name}(this | that)"))),
            Some('&' | '(') => Err(self
                .source
                .error("a value with one of ( ) | & in it is written in quotes", Some(wrong), "here")
                .help(format!("{name}(\"such as (this)\"); predicates are joined outside: {name}(x) & {name}(y)"))),
            _ => Err(self.unclosed(opening)),
        }
    }

    /// A name without a parenthesis: what was probably meant.
    fn not_called(&self, name: &str, span: Range<usize>) -> Box<GridError> {
        let rest = self.rest();
        let sign_length = ["==", "=", ":"].iter().find(|sign| rest.starts_with(**sign)).map_or(0, |sign| sign.len());
        let value = rest[sign_length..].trim_start();
        let value = &value[..value.find([',', '&', '|', ' ', ')']).unwrap_or(value.len())];
        let value = if sign_length == 0 || value.is_empty() { "value" } else { value };
        let error = self.source.error(format!("`{name}` has no value in parentheses"), Some(span), "here");
        error.help(format!("write {name}({value}), and several joined by & or |"))
    }

    fn matcher(&mut self, name: &str, opening: &Range<usize>) -> Parsed<Matcher> {
        let kind = vocabulary()[name];
        if let Some((comparison, length)) = Comparison::at_start_of(self.rest()) {
            self.at += length;
            self.skip_space();
            let (text, span) = self.value(name, opening)?;
            let bound = Bound::parse(&text, kind, name)
                .map_err(|(problem, remedy)| self.source.error(problem, Some(span), "here").help(remedy))?;
            return Ok(Matcher::Compare(comparison, bound));
        }
        if self.eat("=") {
            return Ok(Matcher::Exact(self.value(name, opening)?.0));
        }
        if self.rest().starts_with('/') {
            return self.regex();
        }
        if self.rest().starts_with('!') {
            let error = self.source.error("a value cannot be negated", Some(self.next_char()), "here");
            return Err(error.help(format!("negate the predicate: not {name}(...)")));
        }
        Ok(Matcher::glob(&self.value(name, opening)?.0))
    }

    fn regex(&mut self) -> Parsed<Matcher> {
        let start = self.at;
        let body = &self.rest()[1..];
        let mut escaped = false;
        let end = body.find(|c| {
            let ends = c == '/' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let Some(end) = end else {
            let error = self.source.error("this regular expression has no end", Some(start..start + 1), "begins here");
            return Err(error.help("end it with /"));
        };
        self.at = start + end + 2;
        let span = start..self.at;
        self.skip_space();
        Matcher::regex(&body[..end].replace("\\/", "/")).map_err(|error| {
            // The last line says what is wrong; those before draw the place.
            let text = error.to_string();
            let problem = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_string();
            self.source.error(format!("wrong regular expression: {problem}"), Some(span), "here")
        })
    }

    /// A value, in quotes or not, with its place; the space after it is read too.
    fn value(&mut self, name: &str, opening: &Range<usize>) -> Parsed<(String, Range<usize>)> {
        let start = self.at;
        if self.rest().starts_with('"') {
            return self.quoted();
        }
        let length = self.rest().find(ENDS_VALUE).unwrap_or(self.rest().len());
        let text = self.rest()[..length].trim_end();
        if text.is_empty() {
            if self.rest().is_empty() {
                return Err(self.unclosed(opening.clone()));
            }
            let error = self.source.error(format!("`{name}` lacks a value"), Some(self.next_char()), "before this");
            return Err(error.help(format!("{name}(*) matches what has any")));
        }
        self.at += length;
        Ok((text.to_string(), start..start + text.len()))
    }

    fn quoted(&mut self) -> Parsed<(String, Range<usize>)> {
        let start = self.at;
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((index, c)) = chars.next() {
            match c {
                '"' => {
                    self.at = start + index + 1;
                    let span = start..self.at;
                    self.skip_space();
                    return Ok((text, span));
                }
                '\\' => text.extend(chars.next().map(|(_, c)| c)),
                c => text.push(c),
            }
        }
        let error = self.source.error("this quote is never closed", Some(start..start + 1), "opened here");
        Err(error.help("close it with \""))
    }
}

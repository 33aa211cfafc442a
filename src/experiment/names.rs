//! Names that become parts of paths.

/// Whether `name` can be part of a path and of a run id: lower-case words and digits, joined by single hyphens.
pub fn is_kebab_case(name: &str) -> bool {
    let is_word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.split('-').all(is_word)
}

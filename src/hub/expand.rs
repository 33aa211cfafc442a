//! `~` and variables in paths, as Python's `os.path.expandvars(os.path.expanduser(path))` replaces them: shells do that
//! only where they see the text, and a value out of a job script or a service file has seen none.

use std::path::{Path, PathBuf};

/// `path` with a leading `~` or `~NAME` as that user's home, then `$NAME` and `${NAME}` by their values.
///
/// As in Python, what names no user or no variable stays as it is, and values are not expanded again.
pub(super) fn expanded(path: &str, variable: &dyn Fn(&str) -> Option<String>, home: &Path) -> PathBuf {
    let users = || std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    PathBuf::from(with_variables(&with_home(path, home, &users), variable))
}

/// `users` gives the content of `/etc/passwd`, which is read for `~NAME` alone.
fn with_home(path: &str, home: &Path, users: &dyn Fn() -> String) -> String {
    let Some(rest) = path.strip_prefix('~') else { return path.to_string() };
    let (name, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let home = match name {
        "" => Some(home.to_string_lossy().into_owned()),
        _ => users().lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(4).map(str::to_string)).flatten()
        }),
    };
    match home {
        Some(home) if rest.is_empty() && home == "/" => home,
        Some(home) => format!("{}{rest}", home.trim_end_matches('/')),
        None => path.to_string(),
    }
}

fn with_variables(path: &str, variable: &dyn Fn(&str) -> Option<String>) -> String {
    let (mut expanded, mut left) = (String::new(), path);
    while let Some(at) = left.find('$') {
        expanded.push_str(&left[..at]);
        let (name, len) = reference(&left[at + 1..]);
        match variable(name).filter(|_| !name.is_empty()) {
            Some(value) => expanded.push_str(&value),
            None => expanded.push_str(&left[at..at + 1 + len]),
        }
        left = &left[at + 1 + len..];
    }
    expanded + left
}

/// The name that `text` begins with, in braces or of ASCII letters, digits and underscores, and how many bytes it takes.
fn reference(text: &str) -> (&str, usize) {
    let braced = text.strip_prefix('{').and_then(|text| text.split_once('}'));
    let is_other = |char: char| !(char.is_ascii_alphanumeric() || char == '_');
    match braced {
        Some((name, _)) => (name, name.len() + "{}".len()),
        None => {
            let len = text.find(is_other).unwrap_or(text.len());
            (&text[..len], len)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann/:/bin/sh\n";

    /// The expected values are what Python 3.11 gives with this environment.
    #[test]
    fn paths_become_what_python_makes_of_them() {
        let variable = |name: &str| match name {
            "SCRATCH" => Some("/scratch/$USER".to_string()),
            "USER" => Some("me".to_string()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (path, expected) in [
            ("$SCRATCH/hf", "/scratch/$USER/hf"),
            ("/a/${USER}b/$USERb", "/a/meb/$USERb"),
            ("~/$USER", "/user/me"),
            ("~", "/user"),
            ("a~/b", "a~/b"),
            ("~ann/x", "/home/ann/x"),
            ("~ann", "/home/ann"),
            ("~nobody-here/x", "~nobody-here/x"),
            ("$NOT_SET/x", "$NOT_SET/x"),
            ("${NOT_SET}/x", "${NOT_SET}/x"),
            ("$/x${}y${USER", "$/x${}y${USER"),
            ("$EMPTY/x", "/x"),
            ("$$USER", "$me"),
            ("${{USER}/${US}ER}", "${{USER}/${US}ER}"),
            ("plain", "plain"),
        ] {
            let home = with_home(path, Path::new("/user"), &|| USERS.to_string());
            assert_eq!(with_variables(&home, &variable), expected, "{path}");
        }
        assert_eq!(with_home("~/x", Path::new("/"), &String::new), "/x");
        assert_eq!(with_home("~", Path::new("/"), &String::new), "/");
    }
}

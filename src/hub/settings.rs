//! What the environment says of the Hub, with the meaning that Python's `huggingface_hub` gives it.

use super::expand::expanded;
use std::fmt;
use std::path::{Path, PathBuf};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// Values that switch a variable on, whatever their case.
const ON: [&str; 4] = ["1", "ON", "YES", "TRUE"];

/// A secret: it can be sent, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// `None` for a text that holds nothing.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.replace(['\r', '\n'], "");
        Some(text.trim()).filter(|text| !text.is_empty()).map(|text| Self(text.to_string()))
    }

    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// Where the Hub and its cache are, and how to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubSettings {
    /// `HF_ENDPOINT`, without a slash at its end.
    pub endpoint: String,
    /// `HF_HUB_CACHE`, else `HF_HOME/hub`, with `~` and `$VARIABLES` replaced.
    pub cache: PathBuf,
    /// `HF_TOKEN`, else the content of the file `HF_TOKEN_PATH` or `HF_HOME/token`.
    pub token: Option<Token>,
    /// `HF_HUB_OFFLINE`: only the cache is used.
    pub offline: bool,
}

impl HubSettings {
    pub fn from_env() -> Self {
        let home = std::env::home_dir().unwrap_or_else(std::env::temp_dir);
        Self::read(&|name| std::env::var(name).ok(), &home)
    }

    fn read(variable: &dyn Fn(&str) -> Option<String>, user: &Path) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let folder = |name: &str| set(name).map(|path| expanded(&path, variable, user));
        let home = || {
            folder("HF_HOME")
                .or_else(|| folder("XDG_CACHE_HOME").map(|folder| folder.join("huggingface")))
                .unwrap_or_else(|| user.join(".cache/huggingface"))
        };
        let cache =
            folder("HF_HUB_CACHE").or_else(|| folder("HUGGINGFACE_HUB_CACHE")).unwrap_or_else(|| home().join("hub"));
        let is_on = |name: &str| set(name).is_some_and(|value| ON.contains(&value.to_uppercase().as_str()));
        let of_variable = || ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].iter().find_map(|name| Token::new(&set(name)?));
        let of_file = || {
            let path = folder("HF_TOKEN_PATH").unwrap_or_else(|| home().join("token"));
            Token::new(&std::fs::read_to_string(path).ok()?)
        };
        Self {
            endpoint: set("HF_ENDPOINT").as_deref().unwrap_or(DEFAULT_ENDPOINT).trim_end_matches('/').to_string(),
            cache,
            token: if is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") { None } else { of_variable().or_else(of_file) },
            offline: is_on(if set("HF_HUB_OFFLINE").is_some() { "HF_HUB_OFFLINE" } else { "TRANSFORMERS_OFFLINE" }),
        }
    }

    /// The endpoint without the name and password that its address may hold.
    pub fn shown_endpoint(&self) -> String {
        let Some((scheme, rest)) = self.endpoint.split_once("://") else { return self.endpoint.clone() };
        let host = rest.find('/').unwrap_or(rest.len());
        format!("{scheme}://{}", &rest[rest[..host].rfind('@').map_or(0, |at| at + 1)..])
    }

    /// `text` without the token, whoever put it there: a server may answer with what it was sent.
    pub(super) fn redact(&self, text: &str) -> String {
        match &self.token {
            Some(token) => text.replace(token.secret(), "***"),
            None => text.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> HubSettings {
        let value = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
        HubSettings::read(&value, Path::new("/user"))
    }

    #[test]
    fn the_cache_is_where_python_looks_for_it() {
        let all = [("HF_HUB_CACHE", "/c"), ("HF_HOME", "/h"), ("XDG_CACHE_HOME", "/x")];
        let expected = ["/c", "/h/hub", "/x/huggingface/hub", "/user/.cache/huggingface/hub"];
        for (from, expected) in expected.iter().enumerate() {
            assert_eq!(read(&all[from..]).cache, Path::new(expected));
        }
        assert_eq!(read(&[("HF_HUB_CACHE", ""), ("HF_HOME", "~/h")]).cache, Path::new("/user/h/hub"));
    }

    #[test]
    fn folders_are_expanded_as_python_expands_them() {
        let scratch = ("SCRATCH", "/scratch/me");
        for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"] {
            assert_eq!(read(&[(name, "$SCRATCH/hf"), scratch]).cache, Path::new("/scratch/me/hf"));
        }
        assert_eq!(read(&[("HF_HOME", "${SCRATCH}/hf"), scratch]).cache, Path::new("/scratch/me/hf/hub"));
        assert_eq!(read(&[("XDG_CACHE_HOME", "~/$X"), ("X", "y")]).cache, Path::new("/user/y/huggingface/hub"));
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("t"), "of-the-file").unwrap();
        let folder = ("SCRATCH", home.path().to_str().unwrap());
        assert_eq!(read(&[("HF_TOKEN_PATH", "$SCRATCH/t"), folder]).token, Token::new("of-the-file"));
    }

    #[test]
    fn variables_have_the_meaning_that_python_gives_them() {
        let plain = read(&[]);
        assert_eq!((plain.endpoint.as_str(), plain.token, plain.offline), (DEFAULT_ENDPOINT, None, false));
        let offline = |value: &str| read(&[("HF_HUB_OFFLINE", value)]).offline;
        assert!(offline("1") && offline("true") && offline("Yes") && !offline("0") && !offline(""));
        assert!(read(&[("TRANSFORMERS_OFFLINE", "1")]).offline);
        assert!(!read(&[("TRANSFORMERS_OFFLINE", "1"), ("HF_HUB_OFFLINE", "0")]).offline);
        let mirror = read(&[("HF_ENDPOINT", "http://localhost:1/")]);
        assert_eq!(mirror.endpoint, "http://localhost:1");
    }

    #[test]
    fn the_token_comes_from_a_variable_or_a_file_and_is_not_shown() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "of-the-file\n").unwrap();
        let home = home.path().to_str().unwrap();
        let token = |more: &[(&str, &str)]| read(&[&[("HF_HOME", home)], more].concat()).token;
        assert_eq!(token(&[]), Token::new("of-the-file"));
        assert_eq!(token(&[("HF_TOKEN", "secret")]), Token::new("secret"));
        assert_eq!(token(&[("HF_TOKEN", "secret"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        let settings = read(&[("HF_HOME", home), ("HF_TOKEN", "secret")]);
        assert!(!format!("{settings:?}").contains("secret"));
        assert_eq!(settings.redact("no secret is said"), "no *** is said");
    }
}

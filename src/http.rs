//! What requests to servers have in common: addresses as people write them, and why nobody answered.

use crate::error::{Error, Result};
use reqwest::Url;
use std::fmt;
use std::str::FromStr;

/// How the harness names itself to servers.
pub const USER_AGENT: &str = concat!("metaaug/", env!("CARGO_PKG_VERSION"));

/// The address of a server, with the name and password that may stand in it: these can be sent, and are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    url: Url,
    login: Option<(String, String)>,
}

impl Address {
    /// Whether `text` is meant as an address, rather than as a path.
    pub fn is_meant(text: &str) -> bool {
        text.contains("://")
    }

    /// Without name and password.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Name and password.
    pub fn login(&self) -> Option<(&str, &str)> {
        self.login.as_ref().map(|(name, password)| (name.as_str(), password.as_str()))
    }
}

impl FromStr for Address {
    type Err = Error;

    /// Errors: something else than an address of HTTP, or one with a query, which is no server's; its text is not repeated, since it
    /// may hold a password.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |problem: &str| Error::Usage(format!("{problem}; give one such as http://127.0.0.1:5000"));
        let mut url = Url::parse(text.trim()).map_err(|error| wrong(&format!("not an address of HTTP ({error})")))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(wrong(&format!("an address of {}, not of HTTP", url.scheme())));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("an address with a query or fragment is not that of a server"));
        }
        let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let login = (decoded(url.username()), decoded(url.password().unwrap_or_default()));
        // An address with a host can be without both.
        let _ = (url.set_username(""), url.set_password(None));
        Ok(Self { url, login: Some(login).filter(|(name, _)| !name.is_empty()) })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// The text of an error of the HTTP client, down to its cause, without the address: that may hold a secret.
pub fn text_of(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_what_is_secret() {
        let address: Address = " https://me:p%40ss@host.example:5000/mlflow/ ".parse().unwrap();
        assert_eq!(address.to_string(), "https://host.example:5000/mlflow");
        assert_eq!(format!("{address:?}"), "Address(https://host.example:5000/mlflow)");
        assert_eq!(address.login(), Some(("me", "p@ss")));
        assert_eq!("http://[::1]:5000".parse::<Address>().unwrap().login(), None);
    }

    #[test]
    fn what_is_no_server_is_refused_without_repeating_it() {
        for text in ["", "mlruns", "sqlite:///me:secret.db", "databricks://secret", "http://", "http://h/?token=secret"]
        {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("http://127.0.0.1:5000") && !error.contains("secret"), "{text}: {error}");
        }
    }
}

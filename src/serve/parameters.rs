//! What stands behind the `?` of a URL.

use percent_encoding::percent_decode_str;

/// Names and values, in their order.
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Of `url`, as forms and the `URLSearchParams` of browsers write them. What is no UTF-8 is replaced: it names nothing.
    pub fn of(url: &str) -> Self {
        let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let query = url.split('#').next().unwrap_or_default().split_once('?').map_or("", |(_, query)| query);
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self(pairs.map(|(name, value)| (decoded(name), decoded(value))).collect())
    }

    /// Every value called `name`.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The first value called `name`; empty where there is none.
    pub fn first(&self, name: &str) -> &str {
        self.all(name).first().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_whatever_comes_is_read() {
        let parameters = Parameters::of("/runs.json?run=a%2Fb&run=c+d&filter=x(%3D%22y%22)%26&flag&=&&bad=%ff%2#run=e");
        assert_eq!(parameters.all("run"), ["a/b", "c d"]);
        assert_eq!(parameters.first("filter"), "x(=\"y\")&");
        assert_eq!((parameters.first("flag"), parameters.first("nothing")), ("", ""));
        assert_eq!(parameters.first("bad"), "\u{fffd}%2");
        assert!(Parameters::of("/").all("").is_empty());
    }
}

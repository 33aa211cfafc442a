//! Published accuracies: `assets/published.toml`, compiled in, whose comments say what a row is.

use crate::error::{Error, Result};
use ptq::recipe::{Bits, Setting};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

const PATH: &str = "assets/published.toml";
const TEXT: &str = include_str!("../assets/published.toml");
/// The data set that all published numbers are of, and the size of its test (validation) set.
pub const DATASET: &str = "imagenet";
pub const TEST_IMAGES: usize = 50_000;
/// Calibration images of all published numbers.
pub const CALIB_IMAGES: usize = 1024;
/// Names of architectures in the file. Grids may write a hyphen for the underscore.
const ARCHS: [&str; 6] = ["resnet18", "resnet50", "mobilenetv2", "regnetx_600m", "regnetx_3200m", "mnasnet2_0"];
/// Titles of methods that only the file has.
const TITLES: [(&str, &str); 5] = [
    ("pd-quant", "PD-Quant"),
    ("mrecg+qdrop", "MRECG + QDrop"),
    ("mrecg+brecq", "MRECG + BRECQ"),
    ("bit-shrinking", "Bit-shrinking"),
    ("metaaug", "MetaAug"),
];

/// Where a number was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// In the authors' own repository.
    Official,
    /// Somebody else's run of the method.
    Rerun,
    /// In a third party's summary of the paper.
    Secondary,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Official => "official",
            Kind::Rerun => "re-run",
            Kind::Secondary => "secondary",
        })
    }
}

/// Full-precision top-1 of checkpoints, as fractions, by architecture.
#[derive(Clone, Debug, PartialEq)]
pub struct FullPrecision {
    pub source: String,
    pub top1: BTreeMap<String, f64>,
}

/// Top-1 of one method at one bit width, as fractions, by architecture.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedResult {
    pub method: String,
    pub setting: Setting,
    pub bits: Bits,
    pub kind: Kind,
    pub source: String,
    pub top1: BTreeMap<String, f64>,
}

/// A table of an ablation: top-1 as fractions by what was varied.
#[derive(Clone, Debug, PartialEq)]
pub struct Ablation {
    pub table: String,
    pub arch: String,
    pub bits: Bits,
    pub source: String,
    pub rows: Vec<(String, f64)>,
}

/// Top-1, as fractions, on the test set and on the calibration images, by method.
#[derive(Clone, Debug, PartialEq)]
pub struct Overfit {
    pub arch: String,
    pub bits: Bits,
    pub source: String,
    pub rows: Vec<(String, f64, f64)>,
}

/// The file, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    pub full_precision: Vec<FullPrecision>,
    /// In the order of the file.
    pub results: Vec<PublishedResult>,
    pub ablations: Vec<Ablation>,
    pub overfits: Vec<Overfit>,
}

/// The name of `arch` in the file, if it has one.
pub fn arch_key(arch: &str) -> Option<&'static str> {
    ARCHS.into_iter().find(|known| *known == arch.replace('-', "_"))
}

/// A method's name as printed.
pub fn title(method: &str) -> &str {
    let own = ptq::methods::find(method).map(|method| method.title);
    let other = || TITLES.iter().find(|(name, _)| *name == method).map(|(_, title)| *title);
    own.or_else(other).unwrap_or(method)
}

/// What the over-fitting tables are called among [`Published::table_names`].
pub const OVERFIT: &str = "overfit";

impl Published {
    /// Names of whole tables that can stand beside a declared one.
    pub fn table_names(&self) -> Vec<&str> {
        let ablations = self.ablations.iter().map(|table| table.table.as_str());
        ablations.chain((!self.overfits.is_empty()).then_some(OVERFIT)).collect()
    }

    /// The numbers compiled in.
    pub fn embedded() -> Result<Self> {
        Self::parse(PATH, TEXT)
    }

    /// Parses a file; `path` is for messages.
    ///
    /// Errors: unknown keys, kinds, settings or architectures; bits of another form; accuracies that are not percentages;
    /// rows without numbers or without a source; the same row twice.
    pub fn parse(path: &str, text: &str) -> Result<Self> {
        let wire: Wire = toml::from_str(text).map_err(|error| Error::content(path, error.to_string().trim_end()))?;
        let refuse = |place: String, problem: String| Error::content(path, format!("{place}: {problem}"));
        let mut full_precision = Vec::new();
        for (index, row) in wire.full_precision.into_iter().enumerate() {
            let place = format!("full_precision {} ({:?})", index + 1, row.source);
            let checked = checked_source(&row.source).and_then(|()| fractions(row.top1));
            let top1 = checked.map_err(|problem| refuse(place, problem))?;
            full_precision.push(FullPrecision { source: row.source, top1 });
        }
        let (mut results, mut seen) = (Vec::new(), BTreeSet::new());
        for (index, row) in wire.result.into_iter().enumerate() {
            let place = format!("result {} ({} {} {:?})", index + 1, row.method, row.bits, row.source);
            let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '+';
            let named = match !row.method.is_empty() && row.method.chars().all(is_word) {
                true => Ok(()),
                false => Err(format!("method {:?} is not of lower-case words, joined by - or +", row.method)),
            };
            let checked = named.and_then(|()| checked_source(&row.source)).and_then(|()| fractions(row.top1));
            let top1 = checked.map_err(|problem| refuse(place.clone(), problem))?;
            if !seen.insert((row.method.clone(), row.setting, row.bits, row.kind, row.source.clone())) {
                return Err(refuse(place, "the same row is there twice: keep one".to_string()));
            }
            let WireResult { method, setting, bits, kind, source, .. } = row;
            results.push(PublishedResult { method, setting, bits, kind, source, top1 });
        }
        let mut ablations = Vec::new();
        for (index, table) in wire.ablation.into_iter().enumerate() {
            let place = format!("ablation {} ({:?})", index + 1, table.table);
            checked_table(&table.arch, &table.source, table.rows.len())
                .map_err(|problem| refuse(place.clone(), problem))?;
            let rows = table.rows.into_iter().map(|row| Ok((row.terms, fraction(row.top1)?)));
            let rows = rows.collect::<Result<_, String>>().map_err(|problem| refuse(place, problem))?;
            let WireAblation { table, arch, bits, source, .. } = table;
            ablations.push(Ablation { table, arch, bits, source, rows });
        }
        let mut overfits = Vec::new();
        for (index, table) in wire.overfit.into_iter().enumerate() {
            let place = format!("overfit {} ({:?})", index + 1, table.source);
            checked_table(&table.arch, &table.source, table.rows.len())
                .map_err(|problem| refuse(place.clone(), problem))?;
            let rows =
                table.rows.into_iter().map(|row| Ok((row.method, fraction(row.test)?, fraction(row.calibration)?)));
            let rows = rows.collect::<Result<_, String>>().map_err(|problem| refuse(place, problem))?;
            let WireOverfit { arch, bits, source, .. } = table;
            overfits.push(Overfit { arch, bits, source, rows });
        }
        Ok(Self { full_precision, results, ablations, overfits })
    }
}

fn checked_source(source: &str) -> Result<(), String> {
    match source.trim().is_empty() {
        true => Err("source is empty: say where the number was read".to_string()),
        false => Ok(()),
    }
}

fn checked_arch(arch: &str) -> Result<(), String> {
    match ARCHS.contains(&arch) {
        true => Ok(()),
        false => Err(format!("unknown architecture or key {arch:?}; known architectures: {}", ARCHS.join(", "))),
    }
}

fn checked_table(arch: &str, source: &str, rows: usize) -> Result<(), String> {
    checked_source(source)?;
    checked_arch(arch)?;
    if rows == 0 { Err("rows is empty".to_string()) } else { Ok(()) }
}

fn fraction(percent: f64) -> Result<f64, String> {
    match percent > 0.0 && percent <= 100.0 {
        true => Ok(percent / 100.0),
        false => Err(format!("{percent} is not a top-1 accuracy in percent (0 to 100)")),
    }
}

fn fractions(top1: BTreeMap<String, f64>) -> Result<BTreeMap<String, f64>, String> {
    if top1.is_empty() {
        return Err(format!("no architecture has a number; known architectures: {}", ARCHS.join(", ")));
    }
    let checked = top1.into_iter().map(|(arch, percent)| {
        checked_arch(&arch)?;
        let top1 = fraction(percent).map_err(|problem| format!("{arch}: {problem}"))?;
        Ok((arch, top1))
    });
    checked.collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    full_precision: Vec<WireFullPrecision>,
    result: Vec<WireResult>,
    #[serde(default)]
    ablation: Vec<WireAblation>,
    #[serde(default)]
    overfit: Vec<WireOverfit>,
}

#[derive(Deserialize)]
struct WireFullPrecision {
    source: String,
    /// Every other key is an architecture.
    #[serde(flatten)]
    top1: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct WireResult {
    method: String,
    setting: Setting,
    bits: Bits,
    kind: Kind,
    source: String,
    #[serde(flatten)]
    top1: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireAblation {
    table: String,
    arch: String,
    bits: Bits,
    source: String,
    rows: Vec<WireAblationRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireAblationRow {
    terms: String,
    top1: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireOverfit {
    arch: String,
    bits: Bits,
    source: String,
    rows: Vec<WireOverfitRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireOverfitRow {
    method: String,
    test: f64,
    calibration: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_file_holds_what_its_sources_say() {
        let published = Published::embedded().unwrap();
        let of = |method: &str, bits: &str, kind: Kind, arch: &str| -> Vec<f64> {
            let rows = published.results.iter();
            let rows = rows.filter(|row| row.method == method && row.bits == bits.parse().unwrap() && row.kind == kind);
            rows.filter_map(|row| Some((1e4 * row.top1.get(arch)?).round() / 100.0)).collect()
        };
        assert_eq!(of("qdrop", "W2A2", Kind::Official, "resnet18"), [51.14, 51.76, 51.69]);
        assert_eq!(of("qdrop", "W3A3", Kind::Rerun, "mobilenetv2"), [56.05]);
        assert_eq!(of("metaaug", "W2A2", Kind::Secondary, "resnet18"), [54.22, 57.89]);
        assert!(of("genie-m", "W2A2", Kind::Official, "resnet18").is_empty());
        assert_eq!((published.full_precision.len(), published.ablations.len(), published.overfits.len()), (4, 2, 1));
        let (method, test, calib) = &published.overfits[0].rows[2];
        assert_eq!((method.as_str(), (1e4 * (calib - test)).round()), ("genie-m", 2641.0));
    }

    #[test]
    fn names_are_those_of_grids_or_of_the_file() {
        assert_eq!((arch_key("regnetx-600m"), arch_key("mnasnet2_0")), (Some("regnetx_600m"), Some("mnasnet2_0")));
        assert_eq!((arch_key("mobilenetv2-tiny"), arch_key("resnet20")), (None, None));
        assert_eq!((title("genie-m"), title("pd-quant"), title("new")), ("Genie-M", "PD-Quant", "new"));
    }

    #[test]
    fn a_wrong_row_is_named_with_what_is_wrong() {
        let row = "method = \"qdrop\"\nsetting = \"qdrop\"\nbits = \"w2a2\"\nkind = \"official\"\nsource = \"a\"\n";
        let file = |row: &str, more: &str| {
            format!("[[full_precision]]\nsource = \"b\"\nresnet18 = 71.0\n[[result]]\n{row}{more}")
        };
        Published::parse("p.toml", &file(row, "resnet18 = 51\n")).unwrap();
        for (text, problem) in [
            (file(row, ""), "result 1 (qdrop W2A2 \"a\"): no architecture has a number"),
            (file(row, "resnet19 = 50.0"), "unknown architecture or key \"resnet19\"; known architectures: resnet18"),
            (file(row, "resnet18 = 0.5170\nresnet50 = 101.0"), "resnet50: 101 is not a top-1 accuracy in percent"),
            (file(row, "resnet18 = nan"), "not a top-1 accuracy"),
            (file(row, "resnet18 = \"51\""), "invalid type: string"),
            (file(&row.replace("official", "own"), "resnet18 = 50.0"), "unknown variant `own`"),
            (file(&row.replace("w2a2", "w2"), "resnet18 = 50.0"), "not of the form"),
            (file(&row.replace("\"a\"", "\" \""), "resnet18 = 50.0"), "source is empty"),
            (file(&row.replace("method = \"qdrop\"", "method = \"Q Drop\""), "resnet18 = 50.0"), "lower-case words"),
            (
                file(row, &format!("resnet18 = 50.0\n[[result]]\n{row}resnet18 = 50.0")),
                "result 2 (qdrop W2A2 \"a\"): the same row",
            ),
            (
                file(row, "resnet18 = 50.0\n[[overfit]]\narch = \"x\"\nbits = \"w2a2\"\nsource = \"a\"\nrows = []"),
                "overfit 1",
            ),
            (file(row, "resnet18 = 50.0\n[[ablations]]"), "unknown field `ablations`"),
        ] {
            let error = Published::parse("p.toml", &text).unwrap_err().to_string();
            assert!(error.starts_with("p.toml: ") && error.contains(problem), "{problem}: {error}");
        }
    }
}

//! Published accuracies: `assets/published.toml`, compiled in, whose comments say what a row is.

use crate::error::{Error, Result};
use ptq::recipe::{Bits, Setting};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

const PATH: &str = "assets/published.toml";
const TEXT: &str = include_str!("../assets/published.toml");
/// Calibration images of all published numbers.
pub const CALIB_IMAGES: usize = 1024;
/// The networks that the file has numbers of.
pub const NETWORKS: [&Networks; 2] = [&IMAGENET, &CIFAR_10];
const IMAGENET: Networks = Networks {
    dataset: "imagenet",
    test_images: 50_000,
    archs: &["resnet18", "resnet50", "mobilenetv2", "regnetx_600m", "regnetx_3200m", "mnasnet2_0"],
};
/// Of the network in `assets/resnet20-cifar-10`, by published code that was run outside this repository.
const CIFAR_10: Networks = Networks { dataset: "cifar-10", test_images: 10_000, archs: &["resnet20"] };
/// Titles of methods that only the file has.
const TITLES: [(&str, &str); 5] = [
    ("pd-quant", "PD-Quant"),
    ("mrecg+qdrop", "MRECG + QDrop"),
    ("mrecg+brecq", "MRECG + BRECQ"),
    ("bit-shrinking", "Bit-shrinking"),
    ("metaaug", "MetaAug"),
];

/// The networks of one data set.
#[derive(Debug, PartialEq, Eq)]
pub struct Networks {
    pub dataset: &'static str,
    /// Size of its test (validation) set.
    pub test_images: usize,
    /// Names in the file. Grids may write a hyphen for the underscore.
    archs: &'static [&'static str],
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.archs.join(", "), self.dataset)
    }
}

/// Where a number was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// In the authors' own repository.
    Official,
    /// Somebody else's run of the method, or ours of its published code.
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
    pub networks: &'static Networks,
    pub source: String,
    pub top1: BTreeMap<String, f64>,
}

/// Top-1 of one method at one bit width, as fractions, by architecture.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedResult {
    pub networks: &'static Networks,
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

/// The networks that `arch` on `dataset` is among, and its name in the file, if it has one.
pub fn find(dataset: &str, arch: &str) -> Option<(&'static Networks, &'static str)> {
    let networks = NETWORKS.into_iter().find(|networks| networks.dataset == dataset)?;
    let arch = networks.archs.iter().copied().find(|known| *known == arch.replace('-', "_"))?;
    Some((networks, arch))
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
    /// Errors: unknown keys, kinds, settings, data sets or architectures; bits of another form; accuracies that are not percentages;
    /// rows without numbers or without a source; the same row twice.
    pub fn parse(path: &str, text: &str) -> Result<Self> {
        let wire: Wire = toml::from_str(text).map_err(|error| Error::content(path, error.to_string().trim_end()))?;
        let refuse = |place: String, problem: String| Error::content(path, format!("{place}: {problem}"));
        let mut full_precision = Vec::new();
        for (index, row) in wire.full_precision.into_iter().enumerate() {
            let place = format!("full_precision {} ({:?})", index + 1, row.source);
            let checked = checked_source(&row.source).and_then(|()| fractions(&row.dataset, row.top1));
            let (networks, top1) = checked.map_err(|problem| refuse(place, problem))?;
            full_precision.push(FullPrecision { networks, source: row.source, top1 });
        }
        let (mut results, mut seen) = (Vec::new(), BTreeSet::new());
        for (index, row) in wire.result.into_iter().enumerate() {
            let place = format!("result {} ({} {} {:?})", index + 1, row.method, row.bits, row.source);
            let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '+';
            let named = match !row.method.is_empty() && row.method.chars().all(is_word) {
                true => Ok(()),
                false => Err(format!("method {:?} is not of lower-case words, joined by - or +", row.method)),
            };
            let checked = named.and_then(|()| checked_source(&row.source));
            let checked = checked.and_then(|()| fractions(&row.dataset, row.top1));
            let (networks, top1) = checked.map_err(|problem| refuse(place.clone(), problem))?;
            let WireResult { method, setting, bits, kind, source, .. } = row;
            if !seen.insert((networks.dataset, method.clone(), setting, bits, kind, source.clone())) {
                return Err(refuse(place, "the same row is there twice: keep one".to_string()));
            }
            results.push(PublishedResult { networks, method, setting, bits, kind, source, top1 });
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

fn checked_arch(networks: &Networks, arch: &str) -> Result<(), String> {
    match networks.archs.contains(&arch) {
        true => Ok(()),
        false => Err(format!("unknown architecture or key {arch:?}; known architectures: {networks}")),
    }
}

fn checked_table(arch: &str, source: &str, rows: usize) -> Result<(), String> {
    checked_source(source)?;
    checked_arch(&IMAGENET, arch)?;
    if rows == 0 { Err("rows is empty".to_string()) } else { Ok(()) }
}

fn fraction(percent: f64) -> Result<f64, String> {
    match percent > 0.0 && percent <= 100.0 {
        true => Ok(percent / 100.0),
        false => Err(format!("{percent} is not a top-1 accuracy in percent (0 to 100)")),
    }
}

/// Top-1 by architecture.
type Top1 = BTreeMap<String, f64>;

fn fractions(dataset: &str, top1: Top1) -> Result<(&'static Networks, Top1), String> {
    let Some(networks) = NETWORKS.into_iter().find(|networks| networks.dataset == dataset) else {
        let known = NETWORKS.map(|networks| networks.dataset).join(", ");
        return Err(format!("unknown data set {dataset:?}; known: {known}"));
    };
    if top1.is_empty() {
        return Err(format!("no architecture has a number; known architectures: {networks}"));
    }
    let checked = top1.into_iter().map(|(arch, percent)| {
        checked_arch(networks, &arch)?;
        let top1 = fraction(percent).map_err(|problem| format!("{arch}: {problem}"))?;
        Ok((arch, top1))
    });
    Ok((networks, checked.collect::<Result<_, String>>()?))
}

/// Of rows that name no data set.
fn imagenet() -> String {
    IMAGENET.dataset.to_string()
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
    #[serde(default = "imagenet")]
    dataset: String,
    source: String,
    /// Every other key is an architecture.
    #[serde(flatten)]
    top1: Top1,
}

#[derive(Deserialize)]
struct WireResult {
    #[serde(default = "imagenet")]
    dataset: String,
    method: String,
    setting: Setting,
    bits: Bits,
    kind: Kind,
    source: String,
    #[serde(flatten)]
    top1: Top1,
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
        assert_eq!(of("rtn", "W4A4", Kind::Rerun, "resnet20"), [81.34]);
        assert_eq!(of("genie-m", "W2A4", Kind::Rerun, "resnet20"), [81.77]);
        assert_eq!((published.full_precision.len(), published.ablations.len(), published.overfits.len()), (5, 2, 1));
        let (method, test, calib) = &published.overfits[0].rows[2];
        assert_eq!((method.as_str(), (1e4 * (calib - test)).round()), ("genie-m", 2641.0));
    }

    #[test]
    fn names_are_those_of_grids_or_of_the_file() {
        assert_eq!(find("imagenet", "regnetx-600m"), Some((&IMAGENET, "regnetx_600m")));
        assert_eq!(find("cifar-10", "resnet20"), Some((&CIFAR_10, "resnet20")));
        for (dataset, arch) in
            [("imagenet", "mobilenetv2-tiny"), ("imagenet", "resnet20"), ("fashion-mnist", "resnet20")]
        {
            assert_eq!(find(dataset, arch), None);
        }
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
            (
                file(row, "dataset = \"cifar-10\"\nresnet18 = 51"),
                "\"resnet18\"; known architectures: resnet20 on cifar-10",
            ),
            (file(row, "dataset = \"cifar\"\nresnet20 = 51"), "unknown data set \"cifar\"; known: imagenet, cifar-10"),
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

//! Pretrained weights as named tensors.

use super::pickle;
use super::source::{FILE_PREFIX, MADE_UP, WeightsSource, embedded_model, with_table};
use crate::data;
use crate::data::preprocess::Preprocess;
use crate::disk::foreign::{LARGEST_WEIGHTS, guarded, read, read_text};
use crate::disk::sha256;
use crate::embedded;
use crate::error::{Error, Result};
use crate::hub::{HUB_PREFIX, Hub, HubFile};
use candle_core::{Device, Tensor};
use ptq::arch::layout::TORCHVISION;
use ptq::arch::{ArchSpec, made_up};
use ptq::device_error::DeviceError;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::Path;

/// Tensors by name, and where they come from.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub tensors: HashMap<String, Tensor>,
    /// Of the file, in lower-case hexadecimal; where one of its tables was chosen, of that hash and the table's name.
    pub sha256: String,
    /// The file's path, with the table that was chosen, for messages and records; that of an embedded file is relative to `assets/`, and one on the Hub
    /// has its name with the commit.
    pub source: String,
    /// `None` for files: nobody vouches for them.
    pub card: Option<Card>,
    /// Text of the `config.json` that came with the weights: how they want their images preprocessed.
    pub config: Option<String>,
}

/// What the makers of a checkpoint say of it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Card {
    pub arch: String,
    pub dataset: String,
    /// Full-precision top-1 on the test set, a fraction.
    pub test_top1: f64,
    /// Mean and standard deviation of each channel that inputs are normalised with, in levels / 255.
    pub mean: Vec<f64>,
    pub std: Vec<f64>,
}

impl Card {
    /// Parses the text of a card; `path` is for messages.
    ///
    /// Errors: anything but the five keys; a normalisation that is not the data set's.
    fn parse(path: &str, text: &[u8]) -> Result<Card> {
        let card: Card =
            toml::from_slice(text).map_err(|error| Error::content(path, error.to_string().trim_end().to_string()))?;
        let Some(dataset) = data::find(&card.dataset) else {
            return Err(Error::content(path, format!("there is no data set {:?}", card.dataset)));
        };
        let Preprocess { mean, std, .. } = (dataset.preprocess)();
        match (&mean, &std) == (&card.mean, &card.std) {
            true => Ok(card),
            false => Err(Error::content(
                path,
                format!(
                    "the network expects mean {:?} and standard deviation {:?}, but {} is normalised with {mean:?} and \
                     {std:?}",
                    card.mean, card.std, dataset.name
                ),
            )),
        }
    }
}

/// Loads what `spec` names: the weights compiled in for `arch` and `dataset`, a file of safetensors or PyTorch's, one on the
/// Hub, or weights made up by a rule.
///
/// Errors: another form of `spec`; nothing compiled in for this pair; a file that cannot be had or read, is damaged,
/// truncated or not safetensors. Whether the tensors fit is found out by [`arch::load`](ptq::arch::load).
pub fn load_weights(spec: &str, arch: &ArchSpec, dataset: &str, device: &Device, hub: &Hub) -> Result<Checkpoint> {
    match WeightsSource::parse(spec).map_err(Error::Usage)? {
        WeightsSource::Embedded => load_embedded(arch.name, dataset, device),
        WeightsSource::File(path) => load_file(path, device),
        WeightsSource::Hub { file, table } => load_from_hub(&file, table, device, hub),
        WeightsSource::MadeUp => make_up(arch, device),
    }
}

fn load_file(path: &Path, device: &Device) -> Result<Checkpoint> {
    let (path, table) = with_table(path);
    let bytes = read("cannot read weights", path, LARGEST_WEIGHTS)?;
    let source = path.display().to_string();
    let config = config_beside(path)?;
    let tensors = parse(&source, &bytes, Chosen { table, spec: &format!("{FILE_PREFIX}{source}") }, device)?;
    let (sha256, source) = (of_table(sha256(&[&bytes]), table), with_name(source, table));
    Ok(Checkpoint { tensors, sha256, source, card: None, config })
}

/// Which table of a file is meant, and how a grid names the file.
#[derive(Clone, Copy)]
struct Chosen<'a> {
    table: Option<&'a str>,
    spec: &'a str,
}

/// The hash of one table in the file of this hash: what is remembered of one must not be taken for another's.
fn of_table(file: String, table: Option<&str>) -> String {
    match table {
        None => file,
        Some(table) => sha256(&[file.as_bytes(), b"#", table.as_bytes()]),
    }
}

/// Names that weights have in a repository of the Hub.
const NAMES_ON_HUB: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// The text of the `config.json` in the folder of a file that is called as on the Hub: a copy of a repository.
fn config_beside(weights: &Path) -> Result<Option<String>> {
    if !weights.file_name().is_some_and(|name| NAMES_ON_HUB.iter().any(|on_hub| name == *on_hub)) {
        return Ok(None);
    }
    let path = weights.with_file_name("config.json");
    path.exists().then(|| read_text("cannot read", &path)).transpose()
}

fn with_name(source: String, table: Option<&str>) -> String {
    table.map_or(source.clone(), |table| format!("{source}#{table}"))
}

fn load_from_hub(file: &HubFile, table: Option<&str>, device: &Device, hub: &Hub) -> Result<Checkpoint> {
    let weights = hub.fetch(file)?;
    let config = hub.fetch_if_there(&weights.file.config())?.map(|config| config.read_to_string()).transpose()?;
    let (bytes, sha256) = weights.read()?;
    let source = weights.file.to_string();
    let tensors = parse(&source, &bytes, Chosen { table, spec: &source }, device)?;
    let (sha256, source) = (of_table(sha256, table), with_name(source, table));
    Ok(Checkpoint { tensors, sha256, source, card: None, config })
}

fn make_up(arch: &ArchSpec, device: &Device) -> Result<Checkpoint> {
    let made = made_up::tensors(arch, &TORCHVISION)?;
    let tensors =
        made.into_iter().map(|(name, tensor)| Ok((name, tensor.to_device(device)?))).collect::<Result<_>>()?;
    // The rule and the architecture are all that determines them.
    let sha256 = sha256(&[MADE_UP.as_bytes(), arch.name.as_bytes()]);
    Ok(Checkpoint { tensors, sha256, source: MADE_UP.to_string(), card: None, config: None })
}

fn load_embedded(arch: &str, dataset: &str, device: &Device) -> Result<Checkpoint> {
    let [model, card] = [embedded_model(arch, dataset), format!("{arch}-{dataset}/card.toml")];
    if !embedded::contains(&model) {
        return Err(Error::Usage(format!(
            "no weights of {arch} for {dataset} are compiled in; give a file: weights = \"{FILE_PREFIX}PATH.safetensors\", or \
             \"{HUB_PREFIX}OWNER/NAME/FILE\""
        )));
    }
    let card = Card::parse(&card, embedded::read(&card)?.0)?;
    let (bytes, sha256) = embedded::read(&model)?;
    let tensors = parse(&model, bytes, Chosen { table: None, spec: &model }, device)?;
    Ok(Checkpoint { tensors, sha256, source: model, card: Some(card), config: None })
}

fn parse(path: &str, bytes: &[u8], chosen: Chosen, device: &Device) -> Result<HashMap<String, Tensor>> {
    guarded(path, || tensors(path, bytes, chosen, device))
}

fn tensors(path: &str, bytes: &[u8], chosen: Chosen, device: &Device) -> Result<HashMap<String, Tensor>> {
    let Chosen { table, spec } = chosen;
    if pickle::is_pickled(bytes) {
        return pickle::parse(path, bytes, table, spec, device);
    }
    if let Some(table) = table {
        return Err(Error::content(path, format!("a safetensors file is one table: leave out #{table}")));
    }
    candle_core::safetensors::load_buffer(bytes, device).map(pickle::without_prefix).map_err(|error| {
        let text = error.to_string();
        if DeviceError::of(&text).is_some() {
            return error.into();
        }
        let first = text.lines().next().unwrap_or_default();
        let problem =
            format!("not a complete safetensors file ({first}); compare its size and SHA-256 with its source");
        Error::content(path, problem)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assets::source::EMBEDDED;
    use ptq::arch::{self, ARCHS};

    const RESNET20: &str = "resnet20-fashion-mnist/model.safetensors";

    fn load(spec: &str) -> Result<Checkpoint> {
        load_weights(spec, arch::find("resnet20").unwrap(), "fashion-mnist", &Device::Cpu, &Hub::silent())
    }

    #[test]
    fn embedded_weights_fit_their_architectures() {
        for arch in ARCHS.iter().filter(|arch| arch.images == [1, 28, 28]) {
            let checkpoint = load_weights(EMBEDDED, arch, "fashion-mnist", &Device::Cpu, &Hub::silent()).unwrap();
            let card = checkpoint.card.clone().unwrap();
            assert_eq!((card.arch.as_str(), card.dataset.as_str()), (arch.name, "fashion-mnist"));
            assert_eq!(arch::load(arch, checkpoint.tensors, &checkpoint.source, &Device::Cpu).unwrap().arch, arch.name);
        }
        let arch = arch::find("resnet20").unwrap();
        let error = load_weights(EMBEDDED, arch, "elsewhere", &Device::Cpu, &Hub::silent()).unwrap_err().to_string();
        assert!(error.contains("no weights of resnet20 for elsewhere are compiled in"), "{error}");
    }

    #[test]
    fn weights_from_a_file_are_those_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("copy.safetensors");
        std::fs::write(&path, embedded::read(RESNET20).unwrap().0).unwrap();
        let [embedded, file] =
            [EMBEDDED.to_string(), format!("file:{}", path.display())].map(|spec| load(&spec).unwrap());
        assert_eq!((&embedded.sha256, embedded.tensors.len()), (&file.sha256, file.tensors.len()));
        assert_eq!((file.source, file.card, file.config), (path.display().to_string(), None, None));
        let values = |tensors: &HashMap<String, Tensor>| tensors["fc.weight"].to_vec2::<f32>().unwrap();
        assert_eq!(values(&embedded.tensors), values(&file.tensors));
    }

    #[test]
    fn two_tables_of_a_file_are_two_checkpoints() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/pth/two.pth");
        let loaded = |table: &str| load(&format!("file:{path}#{table}")).unwrap();
        let [weights, average] = ["state_dict", "state_dict_ema"].map(loaded);
        assert_ne!(weights.sha256, average.sha256);
        assert_eq!(average.source, format!("{path}#state_dict_ema"));
        let value = |checkpoint: &Checkpoint| checkpoint.tensors["fc.bias"].to_vec1::<f32>().unwrap();
        assert_eq!([value(&weights), value(&average)], [[1.0], [2.0]]);
        let error = load(&format!("file:{path}")).unwrap_err().to_string();
        assert!(error.contains(&format!("weights = \"file:{path}#state_dict\"")), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        std::fs::write(&path, embedded::read(RESNET20).unwrap().0).unwrap();
        let error = load(&format!("file:{}#ema", path.display())).unwrap_err().to_string();
        assert!(error.contains("one table: leave out #ema"), "{error}");
    }

    #[test]
    fn a_configuration_beside_a_copy_of_a_repository_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["model.safetensors", "pytorch_model.bin", "other.safetensors"];
        let paths = names.map(|name| folder.path().join(name));
        paths.iter().for_each(|path| std::fs::write(path, embedded::read(RESNET20).unwrap().0).unwrap());
        let config = |path: &Path| load(&format!("file:{}", path.display())).unwrap().config;
        assert_eq!(config(&paths[0]), None);
        std::fs::write(folder.path().join("config.json"), "{}").unwrap();
        assert_eq!(paths.each_ref().map(|path| config(path)), [Some("{}".to_string()), Some("{}".to_string()), None]);
    }

    #[test]
    fn the_prefix_of_parallel_wrappers_is_left_out_of_safetensors_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wrapped.safetensors");
        let tensor = Tensor::new(&[1f32], &Device::Cpu).unwrap();
        candle_core::safetensors::save(&HashMap::from([("module.fc.bias", tensor)]), &path).unwrap();
        let tensors = load(&format!("file:{}", path.display())).unwrap().tensors;
        assert_eq!(tensors.keys().collect::<Vec<_>>(), ["fc.bias"]);
    }

    #[test]
    fn a_broken_file_is_one_error_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.safetensors");
        let bytes = embedded::read(RESNET20).unwrap().0;
        let mut broken: Vec<Vec<u8>> =
            [0, 4, 1000, bytes.len() - 1].iter().map(|length| bytes[..*length].to_vec()).collect();
        broken.push([bytes, &[0]].concat());
        // The header's length, its first key, and content of another kind altogether.
        for (position, byte) in [(7, 0xff), (8, b'['), (9, 0xff)] {
            let mut altered = bytes.to_vec();
            altered[position] = byte;
            broken.push(altered);
        }
        broken.push(b"\x89PNG, not safetensors".to_vec());
        for content in broken {
            std::fs::write(&path, &content).unwrap();
            let error = load(&format!("file:{}", path.display())).unwrap_err().to_string();
            let parts = ["broken.safetensors", "not a complete safetensors file"];
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_read_or_understood_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("nowhere.safetensors");
        for path in [missing.as_path(), folder.path()] {
            let error = load(&format!("file:{}", path.display())).unwrap_err().to_string();
            assert!(error.starts_with(&format!("cannot read weights {}", path.display())), "{error}");
        }
        for spec in ["elsewhere", "file:", ""] {
            assert!(load(spec).unwrap_err().to_string().contains("file:PATH"), "{spec:?}");
        }
    }

    #[test]
    fn a_card_must_be_complete_and_match_its_data_set() {
        let text = |dataset: &str, mean: f64, more: &str| {
            format!("arch = \"a\"\ndataset = \"{dataset}\"\ntest-top1 = 0.5\nmean = [{mean}]\nstd = [0.353]\n{more}")
        };
        let card = Card::parse("card.toml", text("fashion-mnist", 0.286, "").as_bytes()).unwrap();
        assert_eq!((card.test_top1, card.mean, card.std), (0.5, vec![0.286], vec![0.353]));
        for (text, problem) in [
            (text("fashion-mnist", 0.5, ""), "expects mean [0.5]"),
            (text("elsewhere", 0.286, ""), "there is no data set \"elsewhere\""),
            (text("fashion-mnist", 0.286, "accuracy = 1"), "unknown field `accuracy`"),
            ("arch = \"a\"".to_string(), "missing field"),
        ] {
            let error = Card::parse("some/card.toml", text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("some/card.toml") && error.contains(problem), "{error}");
        }
    }

    #[test]
    fn misfits_are_listed_together_with_the_path() {
        let mut checkpoint = load(EMBEDDED).unwrap();
        let fc = checkpoint.tensors.remove("fc.bias").unwrap();
        checkpoint.tensors.insert("fc.weight".to_string(), fc.clone());
        checkpoint.tensors.insert("head.bias".to_string(), fc);
        let error = arch::load(arch::find("resnet20").unwrap(), checkpoint.tensors, &checkpoint.source, &Device::Cpu)
            .unwrap_err()
            .to_string();
        for part in [RESNET20, "missing fc.bias", "fc.weight has shape [10]", "unexpected head.bias"] {
            assert!(error.contains(part), "{error}");
        }
    }
}

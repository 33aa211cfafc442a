//! Pretrained weights as named tensors.

use super::embedded::{self, sha256};
use crate::arch::ArchSpec;
use crate::error::{Error, Result};
use candle_core::{Device, Tensor};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::Path;

/// How a cell names the weights that are compiled into the binary.
pub const EMBEDDED: &str = "embedded";
/// How it names a file.
const FILE_PREFIX: &str = "file:";

/// Whether `spec` has the form of a cell's `weights`.
pub fn is_weights_spec(spec: &str) -> bool {
    spec == EMBEDDED || spec.strip_prefix(FILE_PREFIX).is_some_and(|path| !path.is_empty())
}

/// Tensors by name, and where they come from.
pub struct Checkpoint {
    pub tensors: HashMap<String, Tensor>,
    /// Of the file, in lower-case hexadecimal.
    pub sha256: String,
    pub card: Option<Card>,
}

/// What the makers of a checkpoint say of it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Card {
    pub arch: String,
    pub dataset: String,
    /// Full-precision top-1 on the test set, a fraction.
    pub test_top1: f64,
    /// Mean and standard deviation that inputs are normalised with, in grey levels / 255.
    pub mean: f64,
    pub std: f64,
}

/// Loads `embedded`, the weights compiled in for `arch` and `dataset`, or `file:PATH`, a safetensors file.
pub fn load_weights(spec: &str, arch: &ArchSpec, dataset: &str, device: &Device) -> Result<Checkpoint> {
    if spec == EMBEDDED {
        return load_embedded(arch.name, dataset, device);
    }
    let Some(path) = spec.strip_prefix(FILE_PREFIX).map(Path::new) else {
        return Err(Error::Usage(format!("weights {spec:?} are neither \"{EMBEDDED}\" nor \"{FILE_PREFIX}PATH\"")));
    };
    let bytes = std::fs::read(path).map_err(Error::io("cannot read weights", path))?;
    Ok(Checkpoint { tensors: parse(path, &bytes, device)?, sha256: sha256(&[&bytes]), card: None })
}

fn load_embedded(arch: &str, dataset: &str, device: &Device) -> Result<Checkpoint> {
    let cards = [
        include_str!("../../assets/resnet20-fashion-mnist/card.toml"),
        include_str!("../../assets/mobilenetv2-tiny-fashion-mnist/card.toml"),
    ];
    for text in cards {
        let card: Card = toml::from_str(text).map_err(|error| Error::content("card.toml", error.to_string()))?;
        if card.arch == arch && card.dataset == dataset {
            let path = format!("{arch}-{dataset}/model.safetensors");
            let (bytes, sha256) = embedded::read(&path)?;
            return Ok(Checkpoint { tensors: parse(Path::new(&path), bytes, device)?, sha256, card: Some(card) });
        }
    }
    Err(Error::Usage(format!(
        "no weights of {arch} for {dataset} are compiled in; give a file: weights = \"{FILE_PREFIX}PATH.safetensors\""
    )))
}

fn parse(path: &Path, bytes: &[u8], device: &Device) -> Result<HashMap<String, Tensor>> {
    candle_core::safetensors::load_buffer(bytes, device).map_err(|error| {
        Error::content(
            path,
            format!("not a complete safetensors file ({error}); compare its size and SHA-256 with its source"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::{self, ARCHS};

    fn load(spec: &str) -> Result<Checkpoint> {
        load_weights(spec, arch::find("resnet20").unwrap(), "fashion-mnist", &Device::Cpu)
    }

    #[test]
    fn embedded_weights_fit_their_architectures() {
        for arch in ARCHS {
            let checkpoint = load_weights(EMBEDDED, arch, "fashion-mnist", &Device::Cpu).unwrap();
            assert_eq!(checkpoint.card.unwrap().arch, arch.name);
            arch::load(arch, checkpoint.tensors, &Device::Cpu).unwrap();
        }
    }

    #[test]
    fn a_truncated_or_missing_file_is_one_error_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.safetensors");
        let (bytes, _) = embedded::read("resnet20-fashion-mnist/model.safetensors").unwrap();
        for length in [0, 4, 1000, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let error = load(&format!("file:{}", path.display())).err().unwrap().to_string();
            assert!(error.contains("cut.safetensors") && error.contains("not a complete safetensors file"), "{error}");
        }
        let error = load("file:nowhere.safetensors").err().unwrap().to_string();
        assert!(error.contains("nowhere.safetensors"), "{error}");
        assert!(load("elsewhere").err().unwrap().to_string().contains("file:PATH"));
    }

    #[test]
    fn misfits_are_listed_together() {
        let mut tensors = load(EMBEDDED).unwrap().tensors;
        let fc = tensors.remove("fc.bias").unwrap();
        tensors.insert("fc.weight".to_string(), fc.clone());
        tensors.insert("head.bias".to_string(), fc);
        let error = arch::load(arch::find("resnet20").unwrap(), tensors, &Device::Cpu).unwrap_err().to_string();
        for part in ["missing fc.bias", "fc.weight has shape [10]", "unexpected head.bias"] {
            assert!(error.contains(part), "{error}");
        }
    }
}

//! A kept network as a folder that the Hugging Face Hub takes: `README.md` (a model card with `model-index`), `config.json`,
//! `model.safetensors`, `model.onnx`.

use super::onnx;
use crate::data;
use crate::error::{Error, Result};
use crate::store::record::{Metrics, Record};
use crate::store::{ModelFiles, Run, SavedModel};
use std::fs;
use std::path::Path;

/// The network that was quantized, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// `OWNER/NAME` on the Hub.
    pub model: Option<String>,
    /// As the Hub spells it, such as `apache-2.0`.
    pub license: Option<String>,
}

/// The licence that a model card names: `license` in the YAML between its first two lines of `---`.
pub fn license_of(card: &str) -> Option<String> {
    let (head, _) = card.trim_start_matches('\u{feff}').strip_prefix("---")?.split_once("\n---")?;
    let value = head.lines().find_map(|line| line.strip_prefix("license:"))?;
    let license = value.split(" #").next()?.trim().trim_matches(['"', '\'']);
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    (!license.is_empty() && license.chars().all(is_name)).then(|| license.to_string())
}

/// Writes `saved`, the network of a run, which was made from `base`, to `folder`, when all of it is known.
///
/// Errors: a run without its network or accuracy; a network that has no ONNX model.
pub fn write(folder: &Path, saved: &SavedModel, base: &Base) -> Result<()> {
    let run = &saved.folder;
    let onnx = onnx::file(saved)?;
    let Run { record, artefacts } = Run::read(run)?;
    let (Some(metrics), Some(ModelFiles { config, weights })) = (&record.metrics, artefacts.model) else {
        return Err(Error::content(run, "the run has no accuracy that a model card could name"));
    };
    let card = card(&record, metrics, saved, base);
    put(
        folder,
        &[
            ("config.json", config.as_bytes()),
            ("model.safetensors", &weights),
            ("model.onnx", &onnx),
            ("README.md", card.as_bytes()),
        ],
    )
}

/// Writes the files when there is room for all of them; others that are in `folder` stay.
fn put(folder: &Path, files: &[(&str, &[u8])]) -> Result<()> {
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // On the file system that they are to be on.
    let beside = if folder.is_dir() { folder } else { parent };
    fs::create_dir_all(beside).map_err(Error::io("cannot make folder", beside))?;
    let staging = tempfile::Builder::new().prefix(".writing-").tempdir_in(beside);
    let staging = staging.map_err(Error::io("cannot write into", beside))?;
    for (name, content) in files {
        fs::write(staging.path().join(name), content).map_err(Error::io("cannot write", &folder.join(name)))?;
    }
    fs::create_dir_all(folder).map_err(Error::io("cannot make folder", folder))?;
    for (name, _) in files {
        let target = folder.join(name);
        fs::rename(staging.path().join(name), &target).map_err(Error::io("cannot write", &target))?;
    }
    Ok(())
}

/// The model card of `record`.
fn card(record: &Record, metrics: &Metrics, saved: &SavedModel, base: &Base) -> String {
    let (cell, network) = (&record.cell, &saved.config.network);
    let dataset = data::find(&cell.dataset).map_or(cell.dataset.as_str(), |dataset| dataset.title);
    // A string of JSON is one of YAML.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let preprocess = saved.config.preprocess.identity();
    let [channels, height, width] = network.input;
    let license = base.license.as_ref().map_or(String::new(), |license| format!("license: {license}\n"));
    let model = base.model.as_ref();
    let model =
        model.map_or(String::new(), |name| format!("base_model: {}\nbase_model_relation: quantized\n", quoted(name)));
    format!(
        "---\n\
         {license}{model}library_name: onnx\n\
         pipeline_tag: image-classification\n\
         tags:\n- onnx\n- quantized\n- post-training-quantization\n\
         model-index:\n\
         - name: {name}\n  results:\n  - task:\n      type: image-classification\n    dataset:\n      name: {dataset_name}\n      \
         type: {dataset_type}\n      split: test\n    metrics:\n    - type: accuracy\n      value: {top1}\n      name: Top-1 accuracy\n\
         ---\n\n\
         # {run_id}\n\n\
         {arch} quantized after training to {bits} by {method} ({setting} setting, seed {seed}, {calib} calibration images).\n\n\
         | | |\n|---|---|\n\
         | test top-1, {dataset} | {percent:.2} % of {images} images; in full precision {full:.2} % |\n\
         | input | ({channels}, {height}, {width}), {preprocess} |\n\
         | output | logits of {classes} classes |\n\
         | made from | {weights}, SHA-256 {weights_sha}, whose licence holds for this network too |\n\n\
         `model.onnx` (operator set 21) runs in onnxruntime: input `images`, output `logits`. `model.safetensors` has the packed integer weights that \
         `config.json` describes.\n",
        name = quoted(&record.run_id),
        dataset_name = quoted(dataset),
        dataset_type = quoted(&cell.dataset),
        top1 = metrics.test_top1,
        run_id = record.run_id,
        arch = network.architecture,
        bits = network.bits,
        method = cell.method,
        setting = cell.setting,
        seed = cell.seed,
        calib = cell.calib_images,
        percent = 100.0 * metrics.test_top1,
        images = metrics.test_images,
        full = 100.0 * metrics.fp_test_top1,
        classes = network.classes,
        weights = record.weights_source.as_deref().unwrap_or(&cell.weights),
        weights_sha = record.hashes.weights,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_licence_is_read_from_the_head_of_a_card_alone() {
        let license = |card: &str| license_of(card);
        assert_eq!(license("---\nlicense: apache-2.0\ntags:\n- x\n---\n# A"), Some("apache-2.0".to_string()));
        assert_eq!(license("---\r\ntags:\r\n- x\r\nlicense: \"mit\" # so\r\n---\r\n"), Some("mit".to_string()));
        for card in [
            "",
            "license: mit",
            "---\ntags: []\n---\nlicense: mit",
            "---\nlicense: mit",
            "---\nlicense:\n- mit\n---\n",
            "---\nlicense: mit\\nbase_model: x\n---\n",
            "---\n  license: mit\n---\n",
        ] {
            assert_eq!(license(card), None, "{card:?}");
        }
    }
}

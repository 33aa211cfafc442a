use super::*;
use crate::data::preprocess::Preprocess;
use crate::experiment::Hashes;
use crate::store::record::Record;
use crate::store::{ModelFiles, RunOfModel};
use candle_core::{DType, Tensor};
use ptq::arch::layout::TORCHVISION;
use ptq::arch::{self, made_up};
use ptq::checkpoint::save;
use ptq::graph::fold_bn::fold_bn;
use ptq::methods;
use ptq::quant::model::{Mode, QuantModel};
use ptq::recipe::{Prefix, RangeSearch, Recipe, Setting};

/// A run's kept network of this architecture, rounded to nearest, on images of this side.
fn kept(name: &str, side: usize, method: &str, bits: &str) -> (tempfile::TempDir, SavedModel) {
    let (arch, bits) = (arch::find(name).unwrap(), bits.parse().unwrap());
    let (published, search) = ((methods::find(method).unwrap().recipe)(arch), RangeSearch::MinMax);
    let recipe = Recipe { weight_search: search, act_search: search, alpha_lr: 0.0, ..published };
    let trained = arch::load(arch, made_up::tensors(arch, &TORCHVISION).unwrap(), "made-up", &Device::Cpu).unwrap();
    let network = fold_bn(&trained, recipe.batch_norm).unwrap();
    let mut model = QuantModel::new(&network, bits, Setting::Qdrop, &recipe).unwrap();
    let count = 2 * arch.images[0] * side * side;
    let images: Vec<f32> = made_up::noise("images", count).map(|value| value as f32).collect();
    let images = Tensor::from_vec(images, (2, arch.images[0], side, side), &Device::Cpu).unwrap();
    assert_eq!(images.dtype(), DType::F32);
    model.search_acts(&images, search, Mode::of_prefix(Prefix::FullPrecision)).unwrap();
    let input = [arch.images[0], side, side];
    let saved = save(&model, arch.name, input, (bits, recipe.batch_norm)).unwrap();
    let channels = vec![0.5; arch.images[0]];
    let preprocess = Preprocess::unresized(side, &channels, &channels);
    let hash = || "00".to_string();
    let run = RunOfModel {
        run_id: "a-run".to_string(),
        cell: Record::sample("a-run", method, "W2A4", 0).cell,
        hashes: Hashes { weights: hash(), calib: hash(), test: hash() },
        data_source: None,
    };
    let files = ModelFiles::new(&saved, &preprocess, run).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), files.config).unwrap();
    std::fs::write(folder.path().join("model.safetensors"), files.weights).unwrap();
    let saved = SavedModel::open(folder.path()).unwrap();
    (folder, saved)
}

/// A field of a message.
#[derive(Debug, PartialEq)]
enum Value {
    Varint(u64),
    Bytes(Vec<u8>),
}

/// The fields of a message without fixed-width ones, which the export has none of.
fn fields(mut message: &[u8]) -> Vec<(u64, Value)> {
    fn varint(message: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = message[0];
            *message = &message[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut message)),
            2 => {
                let length = varint(&mut message) as usize;
                let (bytes, rest) = message.split_at(length);
                message = rest;
                Value::Bytes(bytes.to_vec())
            }
            other => panic!("wire type {other}"),
        };
        fields.push((tag >> 3, value));
    }
    fields
}

/// The messages or texts of field `number`.
fn all(message: &[u8], number: u64) -> Vec<Vec<u8>> {
    let of = |(field, value)| match value {
        Value::Bytes(bytes) if field == number => Some(bytes),
        _ => None,
    };
    fields(message).into_iter().filter_map(of).collect()
}

fn text(message: &[u8], number: u64) -> String {
    String::from_utf8(all(message, number).remove(0)).unwrap()
}

/// Operation, name, inputs and output.
type Read = (String, String, Vec<String>, String);

/// The graph of a file, and its nodes.
fn nodes(file: &[u8]) -> (Vec<u8>, Vec<Read>) {
    let graph = all(file, 7).remove(0);
    let nodes = all(&graph, 1);
    let inputs = |node: &[u8]| all(node, 1).into_iter().map(|name| String::from_utf8(name).unwrap()).collect();
    let nodes = nodes.iter().map(|node| (text(node, 4), text(node, 3), inputs(node), text(node, 2))).collect();
    (graph, nodes)
}

#[test]
fn a_file_has_the_networks_nodes_in_order_each_reading_what_is_known() {
    for (name, side, method) in [
        ("resnet20", 28, "rtn"),
        ("resnet20", 28, "genie-m"),
        ("mobilenetv2-tiny", 28, "brecq"),
        ("resnet18", 32, "rtn"),
        ("resnet20-identity", 32, "genie-m"),
        ("efficientnet-lite0", 33, "rtn"),
    ] {
        let (_folder, saved) = kept(name, side, method, "W2A4");
        let file = file(&saved).unwrap();
        let (graph, nodes) = nodes(&file);
        let mut known: Vec<String> = all(&graph, 5).iter().map(|constant| text(constant, 8)).collect();
        known.push("images".to_string());
        for (op, name, inputs, output) in &nodes {
            assert!(inputs.iter().all(|input| known.contains(input)), "{op} {name} reads {inputs:?}");
            assert!(!known.contains(output), "{output} is computed twice");
            known.push(output.clone());
        }
        assert_eq!(known.last().unwrap(), "logits");
        let model = saved.network(&Device::Cpu).unwrap();
        for node in model.units.iter().flat_map(|unit| &unit.fp.nodes) {
            assert!(nodes.iter().any(|(_, name, _, _)| *name == node.name), "{} is missing", node.name);
        }
    }
}

#[test]
fn weights_are_stored_in_four_bits_and_low_activations_clipped_to_their_levels() {
    let (_folder, saved) = kept("resnet20", 28, "genie-m", "W2A4");
    let file = file(&saved).unwrap();
    assert!(fields(&file).contains(&(1, Value::Varint(10))));
    assert!(fields(&all(&file, 8)[0]).contains(&(2, Value::Varint(21))));
    let (graph, nodes) = nodes(&file);
    let constant = |name: &str| all(&graph, 5).into_iter().find(|constant| text(constant, 8) == name).unwrap();
    let (stem, conv) = (constant("conv1.weight.levels"), constant("layer1.0.conv1.weight.levels"));
    assert!(fields(&stem).contains(&(2, Value::Varint(2))) && fields(&conv).contains(&(2, Value::Varint(21))));
    assert_eq!((all(&stem, 9)[0].len(), all(&conv, 9)[0].len()), (16 * 9, 16 * 16 * 9 / 2));
    // The BatchNorm that is kept multiplies the weight.
    let reads = |name: &str| nodes.iter().find(|(_, own, _, _)| own == name).unwrap().2.clone();
    assert_eq!(reads("layer1.0.conv1")[1], "layer1.0.conv1.weight.scaled");
    assert_eq!(reads("layer1.0.conv1")[0], "layer1.0.input.quantized");
    // A bias is added by a node of its own: as an input of the layer it would be rounded by readers.
    assert_eq!(reads("layer1.0.conv1").len(), 2);
    assert_eq!(reads("layer1.0.conv1.sum"), ["layer1.0.conv1.product", "layer1.0.conv1.bias"]);
    assert_eq!(reads("layer1.0.input.levels")[0], "layer1.0.input.clipped");
    let entries = all(&file, 14);
    let entry = |key: &str| entries.iter().find(|entry| text(entry, 1) == key).map(|entry| text(entry, 2)).unwrap();
    let tensors: serde_json::Value = serde_json::from_str(&entry("harness.tensors")).unwrap();
    assert_eq!(tensors["layer1.0.conv1.weight"], json!({ "bits": 2, "storage": "UINT4" }));
    assert_eq!(tensors["conv1.weight"], json!({ "bits": 8, "storage": "UINT8" }));
    assert_eq!(tensors["layer1.0.input"], json!({ "bits": 4, "storage": "UINT8" }));
    assert_eq!(entry("harness.run_id"), "a-run");
    let preprocess: Preprocess = serde_json::from_str(&entry("harness.preprocess")).unwrap();
    assert_eq!(preprocess, saved.config.preprocess);
}

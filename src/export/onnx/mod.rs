//! A quantized network as an ONNX model (<https://onnx.ai/onnx/repo-docs/IR.html>), for onnxruntime and whatever else reads these.
//!
//! Its arithmetic is the harness's: activations and weights pass through pairs of `QuantizeLinear` and `DequantizeLinear`, layers compute in
//! `f32` on what comes out. Weights of up to 4 bits are stored as `UINT4`, others as `UINT8`, one scale and zero point per output channel;
//! where a channel's range lies so far off 0 that neither holds them, as `INT32`. Activations of fewer than 8 bits are clipped to their levels
//! before a quantizer of 8 bits. Nodes are called as those of the network; what each tensor has of bits and storage, and how images
//! are preprocessed, is told in `metadata_props`.

mod graph;
mod network;
mod quantizers;
#[cfg(test)]
mod tests;

use super::proto::Message;
use crate::error::{Error, Result};
use crate::store::{ModelConfig, SavedModel};
use candle_core::Device;
use graph::{Graph, Type};
use network::Translation;
use serde_json::json;

/// What the files need of a reader: `UINT4` came with this operator set, and with this version of the format.
const OPSET: u64 = 21;
const IR_VERSION: u64 = 10;
/// No message of protocol buffers is longer.
const LARGEST_BYTES: usize = i32::MAX as usize;
/// Names of input and output.
const IMAGES: &str = "images";
const LOGITS: &str = "logits";

/// Fields of the messages (`onnx/onnx.proto`).
mod field {
    pub mod model {
        pub const IR_VERSION: u32 = 1;
        pub const PRODUCER_NAME: u32 = 2;
        pub const PRODUCER_VERSION: u32 = 3;
        pub const GRAPH: u32 = 7;
        pub const OPSET_IMPORT: u32 = 8;
        pub const METADATA_PROPS: u32 = 14;
    }
    pub mod opset {
        pub const DOMAIN: u32 = 1;
        pub const VERSION: u32 = 2;
    }
    pub mod entry {
        pub const KEY: u32 = 1;
        pub const VALUE: u32 = 2;
    }
}

/// The file of the network that `saved` holds. Errors: an operation or quantizer that ONNX has no counterpart of.
pub fn file(saved: &SavedModel) -> Result<Vec<u8>> {
    let model = saved.network(&Device::Cpu)?;
    let config = &saved.config;
    let [channels, height, width] = config.network.input;
    let mut translation = Translation::new(Graph::default(), IMAGES, vec![channels, height, width]);
    model.units.iter().try_for_each(|unit| translation.unit(unit))?;
    let (mut graph, value, tensors) = translation.finish();
    graph.node("Identity", LOGITS, &[&value], LOGITS, Vec::new());
    graph.input(IMAGES, Type::Float, &[channels, height, width]);
    graph.output(LOGITS, Type::Float, &[config.network.classes]);
    let message = |message: Message, (key, value): (&str, String)| {
        let entry = Message::default().bytes(field::entry::KEY, key.as_bytes());
        message.message(field::model::METADATA_PROPS, &entry.bytes(field::entry::VALUE, value.as_bytes()))
    };
    let opset = Message::default().bytes(field::opset::DOMAIN, b"").varint(field::opset::VERSION, OPSET);
    let file = Message::default()
        .varint(field::model::IR_VERSION, IR_VERSION)
        .bytes(field::model::PRODUCER_NAME, env!("CARGO_PKG_NAME").as_bytes())
        .bytes(field::model::PRODUCER_VERSION, env!("CARGO_PKG_VERSION").as_bytes())
        .message(field::model::GRAPH, &graph.finish(&config.network.architecture))
        .message(field::model::OPSET_IMPORT, &opset);
    let bytes = metadata(config, tensors).into_iter().fold(file, message).into_bytes();
    match bytes.len() {
        length if length > LARGEST_BYTES => {
            Err(Error::Report(format!("the ONNX model would have {length} bytes, more than protocol buffers can")))
        }
        _ => Ok(bytes),
    }
}

/// What the graph does not say of itself.
fn metadata(config: &ModelConfig, tensors: serde_json::Map<String, serde_json::Value>) -> Vec<(&'static str, String)> {
    let run = &config.run;
    vec![
        ("harness.run_id", run.run_id.clone()),
        ("harness.architecture", config.network.architecture.clone()),
        ("harness.method", run.cell.method.clone()),
        ("harness.bits", config.network.bits.to_string()),
        ("harness.model_sha256", config.weights.sha256.clone()),
        ("harness.preprocess", json!(config.preprocess).to_string()),
        ("harness.tensors", serde_json::Value::Object(tensors).to_string()),
    ]
}

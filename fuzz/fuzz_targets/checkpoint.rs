//! A kept network: `config.json`, a zero byte, and `model.safetensors`, of which what its header tells may be missing at the end. The
//! description is given the weights' true size and hash, without which nothing behind that check would ever be tried.
#![no_main]

use candle_core::Device;
use libfuzzer_sys::fuzz_target;
use metaaug::disk::sha256;
use metaaug::store::SavedModel;
use metaaug_fuzz::{Folder, own_panics_abort, write};
use serde_json::{Value, json};

/// No file that is filled up becomes larger.
const LARGEST: usize = 1 << 21;

fn filled_up(weights: &[u8]) -> Vec<u8> {
    let mut file = weights.to_vec();
    let wanted = weights.first_chunk::<8>().and_then(|length| {
        let end = usize::try_from(u64::from_le_bytes(*length)).ok()?.checked_add(8)?;
        let header: Value = serde_json::from_slice(weights.get(8..end)?).ok()?;
        let ends = header.as_object()?.values().filter_map(|tensor| tensor["data_offsets"][1].as_u64());
        end.checked_add(usize::try_from(ends.max()?).ok()?)
    });
    if let Some(wanted) = wanted.filter(|wanted| (file.len()..=LARGEST).contains(wanted)) {
        file.resize(wanted, 0x3c);
    }
    file
}

fuzz_target!(init: own_panics_abort(), |bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let (Some(config), Some(weights)) = (parts.next(), parts.next()) else { return };
    let weights = filled_up(weights);
    let config = match serde_json::from_slice::<Value>(config) {
        Ok(mut value) if value["weights"].is_object() => {
            value["weights"]["bytes"] = json!(weights.len());
            value["weights"]["sha256"] = json!(sha256(&[&weights]));
            value.to_string().into_bytes()
        }
        _ => config.to_vec(),
    };
    Folder::with(
        |_| {},
        |folder| {
            write(folder.join("config.json"), &config);
            write(folder.join("model.safetensors"), &weights);
            if let Ok(saved) = SavedModel::open(folder) {
                drop(saved.network(&Device::Cpu));
            }
        },
    );
});

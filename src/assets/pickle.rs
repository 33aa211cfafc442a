//! Checkpoints of PyTorch (`.pth`, `.pth.tar`), read without executing anything in them.
//!
//! Such a file is a zip archive: one pickle (protocols 2 to 5) that describes the tensors, and their bytes in either order.
//! Files of before version 1.6 are pickles with the bytes behind them. The [`machine`] only notes what a pickle would call;
//! anything but what a checkpoint needs is refused. Which dictionary of tensors in it is meant, [`tables`] says.
//!
//! (Candle's interpreter knows protocol 2 alone, and copies what a pickle shares, so that a small file can fill the memory.)

mod archive;
mod machine;
mod tables;
mod tensor;

pub use archive::is_pickled;

use crate::error::{Error, Result};
use archive::Archive;
use candle_core::{Device, Tensor};
use std::collections::HashMap;

/// Put before every name by PyTorch's parallel wrappers.
const PARALLEL: &str = "module.";
/// How many times the bytes of a file its tensors may take: shared storages are written out.
const SHARED: usize = 4;

/// What a table of tensors, and what training scripts store beside it, is rebuilt with.
const HARMLESS: &[(&str, &[&str])] = &[
    ("collections", &["OrderedDict", "defaultdict", "Counter"]),
    ("torch._utils", &["_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_parameter_with_state"]),
    ("torch._tensor", &["_rebuild_from_type_v2"]),
    ("torch.nn.parameter", &["Parameter"]),
    ("torch", &["Size", "Tensor", "device"]),
    ("torch", &["float16", "float32", "float64", "bfloat16", "uint8", "int8", "int16", "int32", "int64", "bool"]),
    ("numpy", &["dtype", "ndarray"]),
    ("numpy.core.multiarray", &["scalar", "_reconstruct"]),
    ("numpy._core.multiarray", &["scalar", "_reconstruct"]),
    ("_codecs", &["encode"]),
    ("argparse", &["Namespace"]),
    ("builtins", &["set", "frozenset", "bytearray", "complex", "slice", "dict", "list", "int", "float"]),
    ("__builtin__", &["set", "frozenset", "bytearray", "complex", "slice", "dict", "list", "int", "float"]),
];

/// The tensors of the file `path` with content `bytes`, of the table called `table` if one is given.
///
/// `spec` is how a grid names the file, for messages. Errors: a file that is truncated, or an archive with members outside
/// its folder; a pickle that asks for anything but tensors, or holds none; several tables of weights and none named;
/// storages that are missing, too short or of unknown type.
pub fn parse(
    path: &str,
    bytes: &[u8],
    table: Option<&str>,
    spec: &str,
    device: &Device,
) -> Result<HashMap<String, Tensor>> {
    tensors(bytes, table, spec, device).map_err(|problem| Error::content(path, problem))
}

fn tensors(bytes: &[u8], table: Option<&str>, spec: &str, device: &Device) -> Result<HashMap<String, Tensor>, String> {
    let mut archive = Archive::open(bytes, is_harmless)?;
    let table = tables::chosen(&archive.pickle, table, spec)?;
    let mut room = bytes.len().saturating_mul(SHARED);
    let mut tensors = HashMap::new();
    for (name, described) in table.tensors {
        let tensor = archive.storage(&described).and_then(|storage| described.tensor(storage, device));
        let tensor = tensor.map_err(|problem| format!("{name}: {problem}"))?;
        room = room.checked_sub(described.size_in_bytes()).ok_or_else(|| {
            format!("its tensors share their storages and would take more than {SHARED} times its size")
        })?;
        tensors.insert(name, tensor);
    }
    Ok(without_prefix(tensors))
}

/// Whether a checkpoint may mention this function or class.
fn is_harmless(module: &str, name: &str) -> bool {
    let is_storage = matches!(module, "torch" | "torch.storage") && name.ends_with("Storage");
    is_storage || HARMLESS.iter().any(|(known, names)| *known == module && names.contains(&name))
}

/// Without what PyTorch's parallel wrappers put before every name.
pub(super) fn without_prefix(tensors: HashMap<String, Tensor>) -> HashMap<String, Tensor> {
    if !tensors.keys().all(|name| name.starts_with(PARALLEL)) {
        return tensors;
    }
    tensors.into_iter().map(|(name, tensor)| (name[PARALLEL.len()..].to_string(), tensor)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::DType;

    /// What `scripts/make_pth_golden.py` wrote.
    fn golden(name: &str) -> Vec<u8> {
        std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pth").join(name)).unwrap()
    }

    fn parsed(name: &str) -> Result<HashMap<String, Tensor>> {
        table_of(name, None)
    }

    fn table_of(name: &str, table: Option<&str>) -> Result<HashMap<String, Tensor>> {
        parse(name, &golden(name), table, &format!("file:{name}"), &Device::Cpu)
    }

    fn read(bytes: &[u8]) -> Result<HashMap<String, Tensor>> {
        parse("x.pth", bytes, None, "file:x.pth", &Device::Cpu)
    }

    #[test]
    fn tensors_come_out_as_pytorch_put_them_in() {
        for name in ["plain.pth", "wrapped.pth.tar", "legacy.pth", "protocol4.pth", "protocol5.pth", "big-endian.pth"] {
            let tensors = parsed(name).unwrap();
            let values = |tensor: &str| -> Vec<f32> {
                let tensor = tensors[tensor].to_dtype(DType::F32).unwrap();
                tensor.flatten_all().unwrap().to_vec1().unwrap()
            };
            assert_eq!(tensors["plain.weight"].dims(), [2, 3, 4]);
            assert_eq!(values("plain.weight"), (0..24).map(|i| i as f32).collect::<Vec<_>>());
            assert_eq!(tensors["transposed.weight"].dims(), [6, 4]);
            assert_eq!(values("transposed.weight")[..5], [0.0, 6.0, 12.0, 18.0, 1.0]);
            assert_eq!(values("view.bias"), [5.0, 6.0, 7.0, 8.0]);
            assert_eq!(values("strided.bias"), [1.0, 6.0, 11.0, 16.0, 21.0]);
            assert_eq!((values("half.bias"), values("parameter.bias")), (vec![0.5, -2.0], vec![1.5]));
            assert_eq!(tensors["bn.num_batches_tracked"].to_scalar::<i64>().unwrap(), 7);
            assert_eq!(tensors.len(), 7, "{name}");
        }
    }

    /// An `OrderedDict` that carries `_metadata`, as `state_dict()` returns it, is a table of tensors like any other.
    #[test]
    fn the_state_of_a_module_is_its_tensors() {
        let tensors = parsed("module.pth").unwrap();
        let mut names: Vec<&str> = tensors.keys().map(String::as_str).collect();
        names.sort_unstable();
        let norm = ["bias", "num_batches_tracked", "running_mean", "running_var", "weight"];
        assert_eq!(names, [vec!["0.weight".to_string()], norm.map(|tensor| format!("1.{tensor}")).to_vec()].concat());
        assert_eq!(tensors["0.weight"].dims(), [2, 1, 1, 1]);
        assert_eq!(tensors["1.running_var"].to_vec1::<f32>().unwrap(), [1.0, 1.0]);
    }

    #[test]
    fn nothing_is_executed_and_nothing_written() {
        for (name, parts) in [
            ("hostile.pth", ["`posix.system`", "nothing was executed"]),
            ("outside.pth", ["written-by-archive", "nothing was written"]),
            ("hostile4.pth", ["`posix.system`", "nothing was executed"]),
            ("hostile-legacy.pth", ["`posix.system`", "nothing was executed"]),
            ("bare.pkl", ["torch.save did not write", "save a table"]),
            ("empty.pth", ["holds no tensors", "state_dict"]),
            ("expanded.pth", ["fc.bias: its storage has 1 elements", "too few for shape [100000, 1000000]"]),
        ] {
            let error = parsed(name).unwrap_err().to_string();
            assert!(error.starts_with(name) && parts.iter().all(|part| error.contains(part)), "{error}");
        }
        for written in ["executed-by-pickle", "../written-by-archive"] {
            assert!(!std::path::Path::new(written).exists());
        }
    }

    #[test]
    fn a_truncated_or_altered_archive_is_an_error_and_no_panic() {
        for name in ["plain.pth", "protocol4.pth", "legacy.pth"] {
            let bytes = golden(name);
            for length in (4..bytes.len()).step_by(7) {
                assert!(read(&bytes[..length]).is_err(), "{name} {length}");
            }
            for position in 4..bytes.len() {
                let mut altered = bytes.clone();
                altered[position] ^= 0x15;
                // Checksums of an archive find most of it; what they do not cover may pass.
                let _ = read(&altered);
            }
        }
    }

    #[test]
    fn several_tables_are_listed_and_one_is_chosen_by_its_name() {
        for name in ["two.pth", "two-reversed.pth"] {
            let error = parsed(name).unwrap_err().to_string();
            for part in [
                name,
                "state_dict (2 tensors)",
                "state_dict_ema (2 tensors)",
                "weights = \"file:two",
                ".pth#state_dict",
            ] {
                assert!(error.contains(part), "{error}");
            }
            let value = |table| table_of(name, Some(table)).unwrap()["fc.weight"].to_vec1::<f32>().unwrap()[0];
            assert_eq!([value("state_dict"), value("state_dict_ema")], [1.0, 2.0]);
            let error = table_of(name, Some("model")).unwrap_err().to_string();
            assert!(error.contains("no table of tensors \"model\"; it has state_dict"), "{error}");
        }
        // A table inside another dictionary: by the whole way to it, or by where it is the only one.
        let error = parsed("nested.pth").unwrap_err().to_string();
        assert!(error.contains("model (2 tensors), ema/module (2 tensors)"), "{error}");
        for table in ["ema", "ema/module"] {
            assert_eq!(table_of("nested.pth", Some(table)).unwrap()["fc.bias"].to_vec1::<f32>().unwrap(), [2.0]);
        }
    }

    /// What training scripts keep beside the weights: optimiser, scheduler, statistics, the same table under a second name.
    #[test]
    fn one_table_of_weights_among_other_tensors_is_the_one() {
        for name in ["training.pth", "training-legacy.pth"] {
            let tensors = parsed(name).unwrap();
            let mut names: Vec<&str> = tensors.keys().map(String::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, ["fc.bias", "fc.weight"], "{name}");
        }
    }

    #[test]
    fn tensors_that_share_a_storage_cannot_fill_the_memory() {
        let error = parsed("shared.pth").unwrap_err().to_string();
        assert!(error.contains("more than 4 times its size"), "{error}");
    }

    #[test]
    fn a_safetensors_file_is_not_taken_for_a_pickle() {
        let header = |len: u64| [&len.to_le_bytes()[..], b"{"].concat();
        assert!(!is_pickled(&header(0x0280)) && !is_pickled(&header(0x0480)));
        assert!(is_pickled(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 ") && is_pickled(b"PK\x03\x04"));
    }
}

//! Checkpoints of PyTorch (`.pth`, `.pth.tar`), read without executing anything in them.
//!
//! Such a file is a zip archive: one pickle that describes the tensors, and their bytes. Candle's interpreter of pickles only
//! notes what a pickle would call; anything but what a table of tensors needs is refused here.

use crate::error::{Error, Result};
use candle_core::pickle::{Object, Stack};
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::io::{Cursor, Read};
use zip::ZipArchive;

/// How a zip archive begins.
const ZIP: &[u8] = b"PK\x03\x04";
/// How a pickle of protocol 2 begins: PyTorch's files of before version 1.6.
const BARE_PICKLE: &[u8] = &[0x80, 0x02];
/// Where training scripts put the table of tensors.
const WRAPPERS: [&str; 3] = ["state_dict", "model", "model_state_dict"];
/// Put before every name by PyTorch's parallel wrappers.
const PARALLEL: &str = "module.";

/// What a table of tensors, and what training scripts store beside it, is rebuilt with.
const HARMLESS: &[(&str, &str)] = &[
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch", "Size"),
    ("torch", "device"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("_codecs", "encode"),
    ("argparse", "Namespace"),
];

/// Whether a file that begins with `bytes` is for this module.
pub fn is_pickled(bytes: &[u8]) -> bool {
    bytes.starts_with(ZIP) || bytes.starts_with(BARE_PICKLE)
}

/// The tensors of the file `path` with content `bytes`.
///
/// Errors: an archive of before PyTorch 1.6, truncated or with members outside its folder; a pickle that asks for anything
/// but tensors, or holds none; storages that are missing, too short or of unknown type.
pub fn parse(path: &str, bytes: &[u8], device: &Device) -> Result<HashMap<String, Tensor>> {
    let problem = |what: String| Error::content(path, what);
    if bytes.starts_with(BARE_PICKLE) {
        return Err(problem(format!(
            "a PyTorch file of before version 1.6; write it anew: python -c \"import torch; \
             torch.save(torch.load('{path}', map_location='cpu', weights_only=True), 'new.pth')\""
        )));
    }
    let broken = |error: &dyn std::fmt::Display| {
        problem(format!("not a complete PyTorch archive ({error}); compare its size and SHA-256 with its source"))
    };
    let mut archive = Archive::open(bytes).map_err(|error| broken(&error))?;
    if let Some(name) = archive.zip.file_names().filter_map(|name| name.ok()).find(|name| leaves_its_folder(name)) {
        return Err(problem(format!("the archive has a member outside its folder: {name:?}; nothing was written")));
    }
    let mut stack = Stack::empty();
    let description = archive.read("data.pkl").map_err(|error| broken(&error))?;
    stack.read_loop(&mut Cursor::new(description)).map_err(|error| broken(&error))?;
    let object = stack.finalize().map_err(|error| broken(&error))?;
    if let Some(name) = foreign(&object) {
        return Err(problem(format!(
            "its pickle asks for {name}, which no table of tensors needs; nothing was executed"
        )));
    }
    let mut tensors = HashMap::new();
    for (name, value) in state_dict(object) {
        if let (Object::Unicode(name), Some(described)) = (name, Described::of(value)) {
            let tensor = archive.tensor(&described, device).map_err(|what| problem(format!("{name}: {what}")))?;
            tensors.insert(name, tensor);
        }
    }
    match tensors.is_empty() {
        true => Err(problem(format!("holds no tensors, neither itself nor under {}", WRAPPERS.join(", ")))),
        false => Ok(without_prefix(tensors)),
    }
}

fn leaves_its_folder(name: &str) -> bool {
    name.starts_with('/') || name.contains('\\') || name.split('/').any(|part| part == "..")
}

/// The first thing that `object` would call or rebuild and should not.
fn foreign(object: &Object) -> Option<String> {
    let any = |objects: &[Object]| objects.iter().find_map(foreign);
    match object {
        Object::Class { module_name, class_name } => {
            let is_storage = module_name == "torch" && class_name.ends_with("Storage");
            let is_known = HARMLESS.contains(&(module_name.as_str(), class_name.as_str()));
            (!is_storage && !is_known).then(|| format!("`{module_name}.{class_name}`"))
        }
        Object::Reduce { callable, args } | Object::Build { callable, args } => {
            foreign(callable).or_else(|| foreign(args))
        }
        Object::Tuple(objects) | Object::List(objects) => any(objects),
        Object::Dict(entries) => entries.iter().find_map(|(key, value)| foreign(key).or_else(|| foreign(value))),
        Object::PersistentLoad(object) => foreign(object),
        _ => None,
    }
}

/// The entries of the table of tensors in `object`.
fn state_dict(object: Object) -> Vec<(Object, Object)> {
    let Object::Dict(mut entries) = object else { return Vec::new() };
    let is_wrapper = |(key, value): &(Object, Object)| {
        matches!(key, Object::Unicode(key) if WRAPPERS.contains(&key.as_str())) && matches!(value, Object::Dict(_))
    };
    match entries.iter().position(is_wrapper) {
        Some(position) => state_dict(entries.swap_remove(position).1),
        None => entries,
    }
}

fn without_prefix(tensors: HashMap<String, Tensor>) -> HashMap<String, Tensor> {
    if !tensors.keys().all(|name| name.starts_with(PARALLEL)) {
        return tensors;
    }
    tensors.into_iter().map(|(name, tensor)| (name[PARALLEL.len()..].to_string(), tensor)).collect()
}

/// A tensor as the pickle describes it.
struct Described {
    storage: String,
    /// Of the storage: `FloatStorage`, ...
    kind: String,
    offset: usize,
    shape: Vec<usize>,
    stride: Vec<usize>,
}

impl Described {
    /// `None` if `object` is anything but a tensor.
    fn of(object: Object) -> Option<Self> {
        let (callable, args) = object.reduce().ok()?;
        let (_, function) = callable.class().ok()?;
        let mut args = args.tuple().ok()?.into_iter();
        match function.as_str() {
            "_rebuild_parameter" => return Self::of(args.next()?),
            "_rebuild_tensor_v2" => {}
            _ => return None,
        }
        let storage = args.next()?.persistent_load().ok()?.tuple().ok()?;
        let [_, class, key, ..] = <[Object; 5]>::try_from(storage).ok()?;
        let offset = usize::try_from(args.next()?.int_or_long().ok()?).ok()?;
        let shape = Vec::<usize>::try_from(args.next()?).ok()?;
        let stride = Vec::<usize>::try_from(args.next()?).ok()?;
        let kind = class.class().ok()?.1;
        (shape.len() == stride.len()).then_some(Self { storage: key.unicode().ok()?, kind, offset, shape, stride })
    }

    fn dtype(&self) -> Result<DType, String> {
        Ok(match self.kind.as_str() {
            "FloatStorage" => DType::F32,
            "DoubleStorage" => DType::F64,
            "HalfStorage" => DType::F16,
            "BFloat16Storage" => DType::BF16,
            "ByteStorage" | "BoolStorage" => DType::U8,
            "LongStorage" => DType::I64,
            other => return Err(format!("a {other} cannot be read")),
        })
    }

    /// Positions of the elements in the storage, in the order of the shape.
    fn positions(&self) -> Vec<u32> {
        let mut positions = vec![self.offset as u32];
        for (&extent, &stride) in self.shape.iter().zip(&self.stride) {
            positions = positions
                .into_iter()
                .flat_map(|start| (0..extent).map(move |step| start.wrapping_add((step * stride) as u32)))
                .collect();
        }
        positions
    }

    /// Whether a storage of `elements` has room for the tensor. One that repeats elements (a stride of 0) has not: written
    /// out, a small file could ask for any amount of memory.
    fn fits(&self, elements: usize) -> bool {
        let wanted = self.shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
        wanted.is_some_and(|wanted| wanted <= elements) && self.last().is_some_and(|last| last < elements)
    }

    /// Position of the last element in the storage; `None` if there is none, or it is beyond any storage.
    fn last(&self) -> Option<usize> {
        let steps = self.shape.iter().zip(&self.stride);
        let mut last = steps.map(|(&extent, &stride)| extent.checked_sub(1)?.checked_mul(stride));
        let last = last.try_fold(self.offset, |sum, step| sum.checked_add(step?))?;
        u32::try_from(last).is_ok().then_some(last)
    }
}

struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
    /// Before the name of every member.
    folder: String,
}

impl<'a> Archive<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, zip::result::ZipError> {
        let zip = ZipArchive::new(Cursor::new(bytes))?;
        let description = zip.file_names().filter_map(|name| name.ok()).find(|name| name.ends_with("data.pkl"));
        let folder = description.and_then(|name| name.strip_suffix("data.pkl").map(str::to_string));
        Ok(Self { zip, folder: folder.ok_or(zip::result::ZipError::FileNotFound)? })
    }

    fn read(&mut self, member: &str) -> Result<Vec<u8>, zip::result::ZipError> {
        let mut bytes = Vec::new();
        self.zip.by_name(&format!("{}{member}", self.folder))?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn tensor(&mut self, described: &Described, device: &Device) -> Result<Tensor, String> {
        let dtype = described.dtype()?;
        let bytes = self.read(&format!("data/{}", described.storage)).map_err(|error| error.to_string())?;
        let elements = bytes.len() / dtype.size_in_bytes();
        if described.shape.contains(&0) {
            return Tensor::zeros(described.shape.as_slice(), dtype, device).map_err(|error| error.to_string());
        }
        if !described.fits(elements) {
            return Err(format!("its storage has {elements} elements, too few for shape {:?}", described.shape));
        }
        let gathered = || {
            let storage = Tensor::from_raw_buffer(&bytes, dtype, &[elements], &Device::Cpu)?;
            let positions = described.positions();
            let positions = Tensor::from_vec(positions.clone(), positions.len(), &Device::Cpu)?;
            storage.index_select(&positions, 0)?.reshape(described.shape.as_slice())?.to_device(device)
        };
        gathered().map_err(|error: candle_core::Error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `scripts/make_pth_golden.py` wrote.
    fn golden(name: &str) -> Vec<u8> {
        std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pth").join(name)).unwrap()
    }

    fn parsed(name: &str) -> Result<HashMap<String, Tensor>> {
        parse(name, &golden(name), &Device::Cpu)
    }

    #[test]
    fn tensors_come_out_as_pytorch_put_them_in() {
        for name in ["plain.pth", "wrapped.pth.tar"] {
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
            ("legacy.pth", ["before version 1.6", "torch.save"]),
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
        let bytes = golden("plain.pth");
        for length in (4..bytes.len()).step_by(7) {
            assert!(parse("x.pth", &bytes[..length], &Device::Cpu).is_err(), "{length}");
        }
        for position in 4..bytes.len() {
            let mut altered = bytes.clone();
            altered[position] ^= 0x15;
            // Checksums of the archive find most of it; what they do not cover may pass.
            let _ = parse("x.pth", &altered, &Device::Cpu);
        }
    }
}

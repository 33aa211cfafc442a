//! The two containers of PyTorch's checkpoints: a zip archive, and before version 1.6 pickles with storages behind them.

use super::machine::{LIMIT_BYTES, Object, Permitted, Pickle};
use super::tensor::{Described, dtype};
use std::collections::HashMap;
use std::io::{Cursor, Read};
use zip::ZipArchive;

/// How a zip archive begins.
const ZIP: &[u8] = b"PK\x03\x04";
/// The first pickle of an old file, as PyTorch wrote and wanted it.
const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
/// The second.
const OLD_PROTOCOL: i128 = 1001;

/// Whether a file that begins with `bytes` may be a checkpoint of PyTorch.
pub fn is_pickled(bytes: &[u8]) -> bool {
    // A safetensors file begins with the length of its header, in eight bytes, which may look like a pickle's beginning.
    let is_safetensors = bytes.get(8) == Some(&b'{') && bytes[4..8] == [0; 4];
    bytes.starts_with(ZIP) || (matches!(bytes, [0x80, 2..=5, ..]) && !is_safetensors)
}

/// A checkpoint with its container.
pub(super) struct Archive<'a> {
    pub pickle: Pickle,
    storages: Storages<'a>,
}

enum Storages<'a> {
    Zip {
        zip: ZipArchive<Cursor<&'a [u8]>>,
        /// Before the name of every member.
        folder: String,
        /// Whether the first byte of an element is the highest.
        is_big_endian: bool,
        /// The last storage that was read, by key: many tensors may be parts of one.
        last: Option<(String, Vec<u8>)>,
    },
    Old(HashMap<String, &'a [u8]>),
}

impl<'a> Archive<'a> {
    /// Errors: a file that is truncated or no checkpoint, has members outside its folder, or asks for what is not
    /// `permitted`.
    pub fn open(bytes: &'a [u8], permitted: Permitted) -> Result<Self, String> {
        if bytes.starts_with(ZIP) { Self::open_zip(bytes, permitted) } else { Self::open_old(bytes, permitted) }
    }

    fn open_zip(bytes: &'a [u8], permitted: Permitted) -> Result<Self, String> {
        let mut zip = ZipArchive::new(Cursor::new(bytes)).map_err(|error| broken(&error))?;
        let names: Vec<String> = zip.file_names().filter_map(|name| name.ok()).map(|name| name.to_string()).collect();
        if let Some(name) = names.iter().find(|name| leaves_its_folder(name)) {
            return Err(format!("the archive has a member outside its folder: {name:?}; nothing was written"));
        }
        let folder = names.iter().find_map(|name| name.strip_suffix("data.pkl"));
        let folder = folder.ok_or_else(|| broken(&"no data.pkl"))?.to_string();
        let description = member(&mut zip, &format!("{folder}data.pkl"), LIMIT_BYTES as u64 + 1)?;
        let is_big_endian = match names.contains(&format!("{folder}byteorder")) {
            false => false,
            true => match member(&mut zip, &format!("{folder}byteorder"), 16)?.as_slice() {
                b"little" => false,
                b"big" => true,
                other => return Err(format!("its byte order {:?} is unknown", String::from_utf8_lossy(other))),
            },
        };
        let pickle = Pickle::read(&description, permitted).map_err(|error| as_broken(&error))?.0;
        Ok(Self { pickle, storages: Storages::Zip { zip, folder, is_big_endian, last: None } })
    }

    /// Magic number, protocol, what the machine was like, the description, the keys of the storages, and the storages.
    fn open_old(bytes: &'a [u8], permitted: Permitted) -> Result<Self, String> {
        let read = |bytes: &'a [u8]| Pickle::read(bytes, permitted).map_err(|error| as_broken(&error));
        let (magic, rest) = Pickle::read(bytes, |_, _| true)?;
        if magic.get(magic.root) != &Object::Int(MAGIC) {
            return Err("a pickle that torch.save did not write; save a table of tensors with it".to_string());
        }
        let (protocol, rest) = read(rest)?;
        if protocol.get(protocol.root) != &Object::Int(OLD_PROTOCOL) {
            return Err(
                "an old file of PyTorch of another protocol than 1001; write it anew with torch.save".to_string()
            );
        }
        let (_, rest) = read(rest)?;
        let (pickle, rest) = read(rest)?;
        let (keys, mut rest) = read(rest)?;
        let Object::List(listed) = keys.get(keys.root) else { return Err(broken(&"no list of its storages")) };
        let kinds: HashMap<&str, &str> = pickle.objects().iter().filter_map(|object| kind(&pickle, object)).collect();
        let mut storages = HashMap::new();
        for key in listed {
            let Object::Text(key) = keys.get(*key) else { return Err(broken(&"a storage without a name")) };
            let Some(kind) = kinds.get(key.as_str()) else {
                return Err(broken(&format!("storage {key} of no tensor")));
            };
            let size = dtype(kind)?.size_in_bytes() as u64;
            let truncated = || broken(&format!("storage {key} breaks off"));
            let (count, content) = rest.split_first_chunk::<8>().ok_or_else(truncated)?;
            let len = u64::from_le_bytes(*count).checked_mul(size).and_then(|len| usize::try_from(len).ok());
            let (storage, behind) = len.and_then(|len| content.split_at_checked(len)).ok_or_else(truncated)?;
            storages.insert(key.clone(), storage);
            rest = behind;
        }
        Ok(Self { pickle, storages: Storages::Old(storages) })
    }

    /// What the tensor is made of: the content of its storage, the lowest byte of an element first.
    pub fn storage(&mut self, tensor: &Described) -> Result<&[u8], String> {
        let key = &tensor.storage;
        match &mut self.storages {
            Storages::Old(storages) => storages.get(key).copied().ok_or_else(|| format!("there is no storage {key}")),
            Storages::Zip { zip, folder, is_big_endian, last } => {
                if last.as_ref().is_none_or(|(known, _)| known != key) {
                    let mut bytes = member(zip, &format!("{folder}data/{key}"), u64::MAX)?;
                    if *is_big_endian {
                        bytes.chunks_exact_mut(dtype(&tensor.kind)?.size_in_bytes()).for_each(<[u8]>::reverse);
                    }
                    *last = Some((key.clone(), bytes));
                }
                Ok(last.as_ref().map_or(&[], |(_, bytes)| bytes.as_slice()))
            }
        }
    }
}

/// Key and type of a storage, where `object` names one.
fn kind<'p>(pickle: &'p Pickle, object: &Object) -> Option<(&'p str, &'p str)> {
    let Object::Stored(id) = object else { return None };
    let Object::Tuple(items) = pickle.get(*id) else { return None };
    let [_, kind, key, ..] = items.as_slice() else { return None };
    match (pickle.get(*key), pickle.get(*kind)) {
        (Object::Text(key), Object::Global(_, kind)) => Some((key, kind)),
        _ => None,
    }
}

/// The content of a member, of which no more than `limit` bytes are read.
fn member(zip: &mut ZipArchive<Cursor<&[u8]>>, name: &str, limit: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = zip.by_name(name).map_err(|error| broken(&format!("{name}: {error}")))?;
    file.take(limit).read_to_end(&mut bytes).map_err(|error| broken(&format!("{name}: {error}")))?;
    Ok(bytes)
}

fn leaves_its_folder(name: &str) -> bool {
    name.starts_with('/') || name.contains('\\') || name.split('/').any(|part| part == "..")
}

fn broken(error: &dyn std::fmt::Display) -> String {
    format!("not a complete PyTorch file ({error}); compare its size and SHA-256 with its source")
}

/// What a pickle asks for says what it is; anything else wrong with it may be damage.
fn as_broken(error: &str) -> String {
    if error.contains("nothing was executed") { error.to_string() } else { broken(&error) }
}

//! Where the data of a cell lies: its field `data`, or a folder under `HARNESS_DATA`.

use super::DatasetSpec;
use super::hub_set::HubSet;
use super::shard_names::{TEST, shard_paths};
use crate::error::{Error, Result};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Names the folder that has one folder per data set.
pub const ROOT: &str = "HARNESS_DATA";

/// A place and the format of what lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// Compiled into the binary.
    Embedded,
    /// `train/<class>/*.JPEG` and `val/<class>/*.JPEG`.
    Folder(PathBuf),
    /// `train-*.parquet` and `validation-*.parquet` (or `test-*.parquet`), as on the Hugging Face Hub.
    Parquet(PathBuf),
    /// CIFAR's original files.
    Binary(PathBuf),
    /// MNIST's four files.
    Idx(PathBuf),
    /// Parquet shards in a repository of the Hugging Face Hub.
    Hub(HubSet),
}

const FORMATS: &str =
    "embedded, folder:PATH, parquet:PATH, binary:PATH, idx:PATH or hub:OWNER/NAME[@REVISION][/CONFIG]";

impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place: fn(PathBuf) -> Location = match text.split_once(':').map_or(text, |(format, _)| format) {
            "embedded" if !text.contains(':') => return Ok(Location::Embedded),
            "folder" => Location::Folder,
            "parquet" => Location::Parquet,
            "binary" => Location::Binary,
            "idx" => Location::Idx,
            "hub" => return text.parse().map(Location::Hub),
            _ => return Err(format!("data `{text}` is not {FORMATS}")),
        };
        match text.split_once(':') {
            Some((_, path)) if !path.is_empty() => Ok(place(PathBuf::from(path))),
            _ => Err(format!("data `{text}` names no path: it is not {FORMATS}")),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (format, path) = match self {
            Location::Embedded => return f.write_str("embedded"),
            Location::Hub(set) => return set.fmt(f),
            Location::Folder(path) => ("folder", path),
            Location::Parquet(path) => ("parquet", path),
            Location::Binary(path) => ("binary", path),
            Location::Idx(path) => ("idx", path),
        };
        write!(f, "{format}:{}", path.display())
    }
}

/// The value of `HARNESS_DATA`, if it is set and not empty.
pub fn root() -> Option<PathBuf> {
    std::env::var_os(ROOT).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from)
}

/// Where `dataset` lies: at `data` if a cell says so, in the binary, or in `root`.
///
/// Errors: `data` of another form; nothing said and nothing found.
pub fn locate(dataset: &DatasetSpec, data: Option<&str>, root: Option<&Path>) -> Result<Location> {
    let name = dataset.name;
    match (data, root) {
        (Some(data), _) => data.parse().map_err(Error::Usage),
        (None, _) if dataset.embedded.is_some() => Ok(Location::Embedded),
        (None, None) => Err(Error::Usage(format!(
            "where is {name}? set data = \"folder:PATH\" (or parquet:PATH, hub:OWNER/NAME, ...) under [base], or {ROOT} to a folder that \
             has a folder {name}"
        ))),
        (None, Some(root)) => {
            let folder = root.join(name);
            detect(&folder).ok_or_else(|| {
                let problem =
                    "found neither val/, validation-*.parquet, test-*.parquet, CIFAR's *.bin nor MNIST's files";
                Error::content(folder, format!("{problem} ({ROOT} points here for {name})"))
            })
        }
    }
}

/// The format of what lies in `folder`.
fn detect(folder: &Path) -> Option<Location> {
    let has = |name: &str| folder.join(name).exists();
    match () {
        () if shard_paths(folder, &TEST).is_ok() => Some(Location::Parquet(folder.to_path_buf())),
        () if has("val") => Some(Location::Folder(folder.to_path_buf())),
        () if has("test_batch.bin") || has("test.bin") => Some(Location::Binary(folder.to_path_buf())),
        () if has("t10k-images-idx3-ubyte") || has("t10k-images-idx3-ubyte.gz") => {
            Some(Location::Idx(folder.to_path_buf()))
        }
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::find;

    #[test]
    fn locations_come_back_from_their_text() {
        for text in ["embedded", "folder:/data/imagenet", "parquet:data", "binary:C:\\cifar", "idx:.", "hub:a/b@v1/c"] {
            assert_eq!(text.parse::<Location>().unwrap().to_string(), text);
        }
        for text in ["", "folder", "folder:", "zip:/data", "embedded:x", "/data/imagenet"] {
            assert!(text.parse::<Location>().unwrap_err().contains("folder:PATH"), "{text}");
        }
    }

    #[test]
    fn a_field_comes_first_then_what_is_compiled_in_then_the_root() {
        let (fashion, imagenet) = (find("fashion-mnist").unwrap(), find("imagenet").unwrap());
        let root = tempfile::tempdir().unwrap();
        let located = |dataset, data| locate(dataset, data, Some(root.path()));
        assert_eq!(located(fashion, Some("idx:here")).unwrap(), Location::Idx("here".into()));
        assert_eq!(located(fashion, None).unwrap(), Location::Embedded);
        let error = located(imagenet, None).unwrap_err().to_string();
        assert!(error.contains("imagenet: found neither val/"), "{error}");
        std::fs::create_dir_all(root.path().join("imagenet/val")).unwrap();
        assert_eq!(located(imagenet, None).unwrap(), Location::Folder(root.path().join("imagenet")));
        // A folder `val` may hold shards instead of classes.
        std::fs::write(root.path().join("imagenet/val/0000.parquet"), "").unwrap();
        assert_eq!(located(imagenet, None).unwrap(), Location::Parquet(root.path().join("imagenet")));
        let error = locate(imagenet, None, None).unwrap_err().to_string();
        assert!(error.contains("HARNESS_DATA"), "{error}");
    }
}

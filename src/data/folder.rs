//! A folder of images: `train/<class>/*` and `val/<class>/*`, classes numbered in the order of their names.
//!
//! A file that were left out without a word would make another test set. So a file in a class folder is an image, or one
//! of those that systems leave behind ([`is_litter`]), or an error.

use super::decode::{Format, LARGEST_IMAGE};
use super::item::{Content, Item};
use crate::disk::foreign::{open, read};
use crate::disk::sha256;
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Endings, in lower case, of files that are taken for images without a look at their first bytes: opening a million
/// files takes minutes.
const EXTENSIONS: [&str; 8] = ["bmp", "gif", "jpeg", "jpg", "png", "tif", "tiff", "webp"];

/// Files, in lower case, that Windows puts into folders of images.
const LITTER: [&str; 2] = ["desktop.ini", "thumbs.db"];

/// Image files of one split, sorted by class and name.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
    /// Path under `root` and class.
    files: Vec<(String, u32)>,
    pub sha256: String,
}

/// The class folders of `split`, sorted: position is class index.
///
/// Errors: no such folder, or no folder in it; an image beside the class folders.
pub(super) fn classes(split: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(split) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let problem = "there is no such folder; an image folder has train/<class>/*.JPEG and val/<class>/*.JPEG";
            return Err(Error::content(split, problem));
        }
        Err(error) => return Err(Error::io("cannot read", split)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("cannot read", split))?.path();
        if is_litter(&path) {
            continue;
        }
        // Links are followed.
        match std::fs::metadata(&path).map_err(Error::io("cannot read", &path))?.is_dir() {
            true => names.push(name_of(&path)?),
            false if has_image_extension(&path) => {
                return Err(Error::content(path, "an image beside the class folders: move it into one of them"));
            }
            false => {}
        }
    }
    names.sort_unstable();
    match names.is_empty() {
        true => Err(Error::content(split, "it holds no class folders")),
        false => Ok(names),
    }
}

impl Files {
    /// The images of `split` (`<root>/<split>/<class>/`) of these classes.
    ///
    /// The SHA-256 is of names and sizes, not of contents: reading all of ImageNet would take minutes.
    /// Errors: a class without a folder or without an image; a folder that is no class.
    pub fn open(root: &Path, split: &str, classes: &[String]) -> Result<Self> {
        let folder = root.join(split);
        let own = self::classes(&folder)?;
        if let Some(other) = own.iter().find(|name| !classes.contains(name)) {
            return Err(Error::content(folder.join(other), "the other split has no such class"));
        }
        let listed: Vec<Vec<(String, u64)>> =
            classes.par_iter().map(|class| images(&folder.join(class))).collect::<Result<_>>()?;
        let (mut files, mut listing) = (Vec::new(), String::new());
        for (label, (class, images)) in classes.iter().zip(listed).enumerate() {
            for (name, size) in images {
                let path = format!("{split}/{class}/{name}");
                listing.push_str(&format!("{path} {size}\n"));
                files.push((path, label as u32));
            }
        }
        Ok(Self { root: root.to_path_buf(), files, sha256: sha256(&[listing.as_bytes()]) })
    }

    pub fn len(&self) -> usize {
        self.files.len()
    }

    pub fn largest_label(&self) -> Option<u32> {
        self.files.last().map(|(_, label)| *label)
    }

    pub fn paths(&self) -> Vec<PathBuf> {
        self.files.iter().map(|(name, _)| self.root.join(name)).collect()
    }

    pub fn read(&self, indices: &[u32]) -> Result<Vec<Item>> {
        let read_one = |index: &u32| {
            let (name, label) = &self.files[*index as usize];
            let path = self.root.join(name);
            let content = Content::Encoded(read("cannot read", &path, LARGEST_IMAGE)?);
            Ok(Item { name: path.display().to_string(), label: *label, content })
        };
        indices.par_iter().map(read_one).collect()
    }
}

/// Names and sizes of the images of a class, sorted by name.
///
/// Errors: none; a folder, or a file that is no image.
fn images(class: &Path) -> Result<Vec<(String, u64)>> {
    let mut images = Vec::new();
    for entry in std::fs::read_dir(class).map_err(Error::io("cannot read", class))? {
        let path = entry.map_err(Error::io("cannot read", class))?.path();
        if is_litter(&path) {
            continue;
        }
        // Follows links, as reading does.
        let metadata = std::fs::metadata(&path).map_err(Error::io("cannot read", &path))?;
        if metadata.is_dir() {
            let problem = "a folder inside a class folder: images are read from the class folder itself, not from \
                           folders in it; move them up";
            return Err(Error::content(path, problem));
        }
        if !(metadata.is_file() && (has_image_extension(&path) || is_image(&path)?)) {
            let problem = format!("no image that is read here ({} are), and images alone belong here", Format::NAMES);
            return Err(Error::content(path, problem));
        }
        images.push((name_of(&path)?, metadata.len()));
    }
    images.sort_unstable();
    match images.is_empty() {
        true => Err(Error::content(class, format!("a class folder without images ({})", Format::NAMES))),
        false => Ok(images),
    }
}

fn has_image_extension(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    EXTENSIONS.contains(&extension.as_str())
}

/// Whether the file begins as an image does.
fn is_image(path: &Path) -> Result<bool> {
    let mut beginning = Vec::new();
    let file = open("cannot read", path)?;
    file.take(Format::TELLING as u64).read_to_end(&mut beginning).map_err(Error::io("cannot read", path))?;
    Ok(Format::of(&beginning).is_some())
}

/// Whether nobody means `path`: hidden files and folders (`.DS_Store`, `._image.jpg`), `Thumbs.db` and `desktop.ini`.
fn is_litter(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') || LITTER.contains(&name.to_ascii_lowercase().as_str())
}

/// The last part of `path`, which is hashed and therefore must be text.
fn name_of(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_string).ok_or_else(|| Error::content(path, "its name is not UTF-8"))
}

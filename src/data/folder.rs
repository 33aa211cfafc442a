//! A folder of images: `train/<class>/*` and `val/<class>/*`, classes numbered in the order of their names.

use super::source::{Content, Item};
use crate::assets::embedded::sha256;
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Names of files that are images, in lower case.
const EXTENSIONS: [&str; 3] = ["jpeg", "jpg", "png"];

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
/// Errors: no such folder, or no folder in it.
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
        let entry = entry.map_err(Error::io("cannot read", split))?;
        // Links to folders are followed.
        if entry.path().is_dir() && !is_hidden(&entry.file_name().to_string_lossy()) {
            names.push(name_of(&entry.path())?);
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
        let read = |index: &u32| {
            let (name, label) = &self.files[*index as usize];
            let path = self.root.join(name);
            let content = Content::Encoded(std::fs::read(&path).map_err(Error::io("cannot read", &path))?);
            Ok(Item { name: path.display().to_string(), label: *label, content })
        };
        indices.par_iter().map(read).collect()
    }
}

/// Names and sizes of the images of a class, sorted by name.
fn images(class: &Path) -> Result<Vec<(String, u64)>> {
    let mut images = Vec::new();
    for entry in std::fs::read_dir(class).map_err(Error::io("cannot read", class))? {
        let path = entry.map_err(Error::io("cannot read", class))?.path();
        let name = name_of(&path)?;
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        if EXTENSIONS.contains(&extension.as_str()) && !is_hidden(&name) {
            // Follows links, as reading does.
            images.push((name, std::fs::metadata(&path).map_err(Error::io("cannot read", &path))?.len()));
        }
    }
    images.sort_unstable();
    match images.is_empty() {
        true => Err(Error::content(class, format!("a class folder without images ({})", EXTENSIONS.join(", ")))),
        false => Ok(images),
    }
}

/// The last part of `path`, which is hashed and therefore must be text.
fn name_of(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_string).ok_or_else(|| Error::content(path, "its name is not UTF-8"))
}

fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}

//! Notes and tags that people give a run: lines of `notes.jsonl` in its folder, only ever appended.
//!
//! They are no part of the record or of the run's identity, and stay when the run is made again.

use super::NOTES;
use super::time::since_1970;
use crate::disk::foreign::{LARGEST_TEXT, read, read_text};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// What people said of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Annotations {
    pub tags: BTreeSet<String>,
    /// In the order in which they were written.
    pub notes: Vec<Note>,
    /// Why not all of them could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// Seconds since 1970 (UTC).
    pub at_unix_s: u64,
    pub text: String,
}

/// One line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    at_unix_s: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    add_tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    remove_tags: Vec<String>,
}

impl Annotations {
    /// What was said of the run in `folder`. A line that cannot be read is left out, and named in `problem`.
    pub fn read(folder: &Path) -> Self {
        let mut read = Self::default();
        let path = folder.join(NOTES);
        let text = match read_text("cannot read", &path) {
            Ok(text) => text,
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return read,
            Err(error) => {
                read.problem = Some(error.to_string());
                return read;
            }
        };
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            match serde_json::from_str::<Line>(line) {
                Ok(line) => read.apply(line),
                Err(error) => {
                    let problem = format!("{}, line {}: not a note or tag: {error}", path.display(), index + 1);
                    read.problem.get_or_insert(problem);
                }
            }
        }
        read
    }

    fn apply(&mut self, line: Line) {
        let Line { at_unix_s, note, add_tags, remove_tags } = line;
        self.notes.extend(note.map(|text| Note { at_unix_s, text }));
        self.tags.extend(add_tags);
        remove_tags.iter().for_each(|tag| {
            self.tags.remove(tag);
        });
    }

    /// Whether nobody said anything.
    pub fn is_empty(&self) -> bool {
        self.tags.is_empty() && self.notes.is_empty()
    }
}

/// Adds a note to the run in `folder`.
pub fn note(folder: &Path, text: &str) -> Result<()> {
    append(folder, Line { note: Some(text.to_string()), ..Line::now() })
}

/// Gives the run in `folder` the tags `add` and takes `remove` away.
pub fn tag(folder: &Path, add: &[String], remove: &[String]) -> Result<()> {
    append(folder, Line { add_tags: add.to_vec(), remove_tags: remove.to_vec(), ..Line::now() })
}

impl Line {
    fn now() -> Self {
        Self { at_unix_s: since_1970().as_secs(), note: None, add_tags: Vec::new(), remove_tags: Vec::new() }
    }
}

/// Appends in one write, so that two processes do not mix their lines.
fn append(folder: &Path, line: Line) -> Result<()> {
    let path = folder.join(NOTES);
    let mut text = serde_json::to_string(&line).map_err(|error| Error::content(&path, error.to_string()))?;
    text.push('\n');
    // What another process broke off in the middle must not swallow this line.
    let known = read("cannot read", &path, LARGEST_TEXT).unwrap_or_default();
    let is_torn = known.last().is_some_and(|last| *last != b'\n');
    if is_torn {
        text.insert(0, '\n');
    }
    let mut file =
        OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io("cannot write", &path))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(Error::io("cannot write", &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_come_and_go_and_notes_stay() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Annotations::read(folder.path()).is_empty());
        let tags = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        tag(folder.path(), &tags(&["paper", "draft"]), &[]).unwrap();
        note(folder.path(), "lr \"too\" high\nsecond line").unwrap();
        tag(folder.path(), &tags(&["v2"]), &tags(&["draft", "never-there"])).unwrap();
        let read = Annotations::read(folder.path());
        assert_eq!(read.tags.iter().map(String::as_str).collect::<Vec<_>>(), ["paper", "v2"]);
        assert_eq!(
            read.notes.iter().map(|note| note.text.as_str()).collect::<Vec<_>>(),
            ["lr \"too\" high\nsecond line"]
        );
        assert!(read.problem.is_none() && read.notes[0].at_unix_s > 1_700_000_000);
    }

    #[test]
    fn a_torn_line_is_named_and_costs_no_other() {
        let folder = tempfile::tempdir().unwrap();
        note(folder.path(), "first").unwrap();
        let path = folder.path().join(NOTES);
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + "{\"at_unix_s\": 1, \"no").unwrap();
        note(folder.path(), "last").unwrap();
        let read = Annotations::read(folder.path());
        assert_eq!(read.notes.iter().map(|note| note.text.as_str()).collect::<Vec<_>>(), ["first", "last"]);
        assert!(read.problem.unwrap().contains("notes.jsonl, line 2"));
    }
}

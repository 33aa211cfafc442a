//! Parquet shards as the Hugging Face Hub stores images: a column `image` (or `img`) of `{bytes, path}`, and a label.
//!
//! Read with the `parquet` crate's column readers: only the pages of the two columns that hold wanted rows are read, so
//! that a calibration sample out of ImageNet's 294 shards costs as much as its images. (`candle-datasets` reads whole
//! files to rows, keeps all levels in memory, and transposes them.)

use super::source::{Content, Item};
use crate::assets::embedded::sha256;
use crate::error::{Error, Result};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::serialized_reader::SerializedRowGroupReader;
use rayon::prelude::*;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const IMAGE_COLUMNS: [&str; 2] = ["image.bytes", "img.bytes"];

/// Beginnings of the names of a split's shards, the preferred first: `test` has no labels where there is a `validation`.
pub(super) const POOL: [&str; 1] = ["train"];
pub(super) const TEST: [&str; 3] = ["validation", "val", "test"];

/// The rows of all shards of one split, in the order of the shards' names.
#[derive(Debug)]
pub(super) struct Shards {
    groups: Vec<Group>,
    shards: Vec<Shard>,
    labels: Labels,
    largest_label: Option<u32>,
    pub sha256: String,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    metadata: ParquetMetaData,
    image: usize,
    label: usize,
}

/// One row group, and where its rows lie among all.
#[derive(Debug)]
struct Group {
    shard: usize,
    index: usize,
    rows: Range<usize>,
}

/// What labels may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Labels {
    /// Names of their column, the preferred first.
    pub columns: &'static [&'static str],
    /// Number of classes, where it is known.
    pub classes: Option<usize>,
}

impl Shards {
    /// The shards of the split called by one of `names` under `folder`, or under its `data/`.
    ///
    /// With `check`, all shards that their names promise must be there, and all labels are read and must be in range;
    /// without, a split may be some of its shards: the pool that a sample is drawn from.
    /// Errors: no shard; files that are not Parquet or lack the columns; labels out of range.
    pub fn open(folder: &Path, names: &[&str], labels: Labels, check: bool) -> Result<Self> {
        let paths = shard_paths(folder, names)?;
        if check {
            refuse_incomplete(&paths)?;
        }
        let shards: Vec<Shard> = paths.par_iter().map(|path| Shard::open(path, labels)).collect::<Result<_>>()?;
        let (mut groups, mut rows, mut listing) = (Vec::new(), 0, String::new());
        for (shard, (path, opened)) in paths.iter().zip(&shards).enumerate() {
            let size = std::fs::metadata(path).map_err(Error::io("cannot read", path))?.len();
            let name = path.file_name().unwrap_or_default();
            listing.push_str(&format!("{} {size}\n", name.display()));
            for (index, group) in opened.metadata.row_groups().iter().enumerate() {
                let next = rows + usize::try_from(group.num_rows()).unwrap_or(0);
                groups.push(Group { shard, index, rows: rows..next });
                rows = next;
            }
        }
        if rows == 0 {
            return Err(Error::content(&paths[0], "no rows"));
        }
        let sha256 = sha256(&[listing.as_bytes()]);
        let mut opened = Self { groups, shards, labels, largest_label: None, sha256 };
        if check {
            let read = |group: &Group| opened.labels_of(group, 0..group.rows.len());
            let all: Vec<Vec<u32>> = opened.groups.par_iter().map(read).collect::<Result<_>>()?;
            opened.largest_label = all.into_iter().flatten().max();
        }
        Ok(opened)
    }

    pub fn len(&self) -> usize {
        self.groups.last().map_or(0, |group| group.rows.end)
    }

    pub fn largest_label(&self) -> Option<u32> {
        self.largest_label
    }

    pub fn read(&self, indices: &[u32]) -> Result<Vec<Item>> {
        // Position in the answer and row, by row: a column is read forwards only.
        let mut wanted: Vec<(usize, usize)> = indices.iter().map(|index| *index as usize).enumerate().collect();
        wanted.sort_unstable_by_key(|(_, row)| *row);
        let of_groups: Vec<(&Group, &[(usize, usize)])> = self
            .groups
            .iter()
            .map(|group| {
                let [start, end] =
                    [group.rows.start, group.rows.end].map(|row| wanted.partition_point(|(_, other)| *other < row));
                (group, &wanted[start..end])
            })
            .filter(|(_, wanted)| !wanted.is_empty())
            .collect();
        let read = |(group, wanted): &(&Group, &[(usize, usize)])| {
            let items = self.items(group, wanted.iter().map(|(_, row)| row - group.rows.start).collect())?;
            Ok(items.into_iter().zip(wanted.iter()).map(|(item, (position, _))| (*position, item)).collect::<Vec<_>>())
        };
        let items: Vec<Vec<(usize, Item)>> = of_groups.par_iter().map(read).collect::<Result<_>>()?;
        let mut items: Vec<(usize, Item)> = items.into_iter().flatten().collect();
        items.sort_unstable_by_key(|(position, _)| *position);
        Ok(items.into_iter().map(|(_, item)| item).collect())
    }

    /// The images at `rows` (ascending) of a group.
    fn items(&self, group: &Group, rows: Vec<usize>) -> Result<Vec<Item>> {
        let shard = &self.shards[group.shard];
        let images = shard.column(group.index, shard.image, |column| match column {
            ColumnReader::ByteArrayColumnReader(column) => values(column, rows.iter().copied()),
            _ => Err(ParquetError::General("the image column holds no bytes".to_string())),
        })?;
        let first = group.rows.start - self.first_row(group.shard);
        let labels = self.labels_of(group, rows.iter().copied())?;
        let item = |((image, label), row): ((Option<parquet::data_type::ByteArray>, u32), &usize)| Item {
            name: format!("{}, row {}", shard.path.display(), first + row),
            label,
            // A row without an image is a file without content.
            content: Content::Encoded(image.map_or_else(Vec::new, |bytes| bytes.data().to_vec())),
        };
        Ok(images.into_iter().zip(labels).zip(&rows).map(item).collect())
    }

    /// The labels at `rows` (ascending) of a group.
    fn labels_of(&self, group: &Group, rows: impl Iterator<Item = usize> + Clone) -> Result<Vec<u32>> {
        let shard = &self.shards[group.shard];
        let labels = shard.column(group.index, shard.label, |column| {
            let labels: Vec<Option<i64>> = match column {
                ColumnReader::Int64ColumnReader(_) => {
                    values(get_typed_column_reader::<Int64Type>(column), rows.clone())?
                }
                _ => {
                    let labels = values(get_typed_column_reader::<Int32Type>(column), rows.clone())?;
                    labels.into_iter().map(|label| label.map(i64::from)).collect()
                }
            };
            Ok(labels)
        })?;
        let first = group.rows.start - self.first_row(group.shard);
        let last = self.labels.classes.unwrap_or(1 << 31) - 1;
        let in_range = |(label, row): (Option<i64>, usize)| {
            let known = label.and_then(|label| u32::try_from(label).ok()).filter(|label| *label as usize <= last);
            known.ok_or_else(|| {
                let label = label.map_or("no label".to_string(), |label| format!("label {label}"));
                Error::content(&shard.path, format!("row {} has {label}, which is not 0 to {last}", first + row))
            })
        };
        labels.into_iter().zip(rows).map(in_range).collect()
    }

    /// The first row of a shard among all.
    fn first_row(&self, shard: usize) -> usize {
        self.groups[self.groups.partition_point(|group| group.shard < shard)].rows.start
    }
}

impl Shard {
    fn open(path: &Path, labels: Labels) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("cannot read", path))?;
        let reader = SerializedFileReader::new(file).map_err(|error| broken(path, &error))?;
        let metadata = reader.metadata().clone();
        let schema = metadata.file_metadata().schema_descr();
        let columns: Vec<String> = schema.columns().iter().map(|column| column.path().string()).collect();
        let find = |what: &str, names: &[&str], types: &[parquet::basic::Type]| {
            let named = names.iter().find_map(|name| columns.iter().position(|column| column == name));
            let fits = |index: &usize| {
                let column = schema.column(*index);
                types.contains(&column.physical_type()) && column.max_rep_level() == 0
            };
            named.filter(fits).ok_or_else(|| {
                let problem =
                    format!("no column {} with {what}; its columns are {}", names.join(" or "), columns.join(", "));
                Error::content(path, problem)
            })
        };
        let image = find("image files (JPEG or PNG)", &IMAGE_COLUMNS, &[ByteArrayType::get_physical_type()])?;
        let integers = [Int32Type::get_physical_type(), Int64Type::get_physical_type()];
        let label = find("integers", labels.columns, &integers)?;
        Ok(Self { path: path.to_path_buf(), metadata, image, label })
    }

    /// `read` on a fresh reader of one column of a row group.
    fn column<T>(
        &self,
        group: usize,
        column: usize,
        read: impl Fn(ColumnReader) -> Result<T, ParquetError>,
    ) -> Result<T> {
        // A file of its own: its position is shared by everybody who reads it.
        let file = Arc::new(File::open(&self.path).map_err(Error::io("cannot read", &self.path))?);
        let (pages, properties) = (self.metadata.page_index_for_row_group(group), ReaderProperties::builder().build());
        let reader = SerializedRowGroupReader::new(file, self.metadata.row_group(group), pages, Arc::new(properties));
        let column = reader.and_then(|reader| reader.get_column_reader(column));
        column.and_then(read).map_err(|error| broken(&self.path, &error))
    }
}

/// The values at `rows` (ascending), `None` for null.
fn values<T: DataType>(
    mut column: ColumnReaderImpl<T>,
    rows: impl Iterator<Item = usize>,
) -> Result<Vec<Option<T::T>>, ParquetError> {
    let (mut read, mut next) = (Vec::new(), 0);
    for row in rows {
        let skipped = column.skip_records(row - next)?;
        let (mut levels, mut value) = (Vec::new(), Vec::new());
        let (records, ..) = column.read_records(1, Some(&mut levels), None, &mut value)?;
        if (skipped, records) != (row - next, 1) {
            return Err(ParquetError::EOF(format!("row {row} of a row group is missing")));
        }
        read.push(value.pop());
        next = row + 1;
    }
    Ok(read)
}

fn broken(path: &Path, error: &ParquetError) -> Error {
    Error::content(path, format!("not a complete Parquet file: {error}"))
}

/// The files `<name>-*.parquet`, `<name>.parquet` or `<name>/*.parquet`, sorted, of the first name that has any.
pub(super) fn shard_paths(folder: &Path, names: &[&str]) -> Result<Vec<PathBuf>> {
    for folder in [folder, &folder.join("data")] {
        for name in names {
            let mut paths = parquet_files(folder, |file| {
                file == format!("{name}.parquet") || file.starts_with(&format!("{name}-"))
            })?;
            paths.extend(parquet_files(&folder.join(name), |_| true)?);
            paths.sort_unstable();
            if !paths.is_empty() {
                return Ok(paths);
            }
        }
    }
    let wanted: Vec<String> = names.iter().map(|name| format!("{name}-*.parquet")).collect();
    Err(Error::content(folder, format!("it holds no {}", wanted.join(" or "))))
}

/// The Parquet files in `folder` with such a name; none if there is no folder.
fn parquet_files(folder: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("cannot read", folder))?.path();
        let is_parquet = path.extension().is_some_and(|extension| extension == "parquet");
        if is_parquet && path.file_name().and_then(|name| name.to_str()).is_some_and(&is_wanted) {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// Refuses `validation-00000-of-00014.parquet` without its 13 siblings: a part of a test split is another test split.
fn refuse_incomplete(paths: &[PathBuf]) -> Result<()> {
    let promised = |path: &PathBuf| path.file_stem()?.to_str()?.rsplit_once("-of-")?.1.parse::<usize>().ok();
    match paths.first().and_then(|path| Some((path, promised(path)?))) {
        Some((path, promised)) if promised != paths.len() => {
            Err(Error::content(path, format!("{} of {promised} shards are there: fetch the others", paths.len())))
        }
        _ => Ok(()),
    }
}

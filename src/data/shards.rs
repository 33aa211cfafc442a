//! Parquet shards as the Hugging Face Hub stores images: a column `image` (or `img`) of `{bytes, path}`, and a label.
//!
//! Read with the `parquet` crate's column readers: only the pages of the two columns that hold wanted rows are read, so
//! that a calibration sample out of ImageNet's 294 shards costs as much as its images. (`candle-datasets` reads whole
//! files to rows, keeps all levels in memory, and transposes them.)

use super::item::{Content, Item};
use super::shard_claims::{check_footer, check_pages};
use super::shard_names::{check_set, shard_paths};
use crate::disk::foreign::{guarded, open};
use crate::disk::sha256;
use crate::error::{Error, Result};
use parquet::basic::LogicalType;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::serialized_reader::SerializedRowGroupReader;
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Of `{bytes, path}`, or of bytes alone.
const IMAGE_COLUMNS: [&str; 4] = ["image.bytes", "img.bytes", "image", "img"];

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
    /// Names and types of its columns.
    columns: Vec<String>,
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
    /// Errors: no shard; names that are not those of one set; as of [`Self::of`].
    pub fn open(folder: &Path, names: &[&str], labels: Labels, check: bool) -> Result<Self> {
        let paths = shard_paths(folder, names)?;
        check_set(&paths, check)?;
        Self::of(&paths, labels, check)
    }

    /// The shards at `paths`, in this order; with `check`, all labels are read.
    ///
    /// The hash is of names and sizes. Errors: files that are not Parquet, lack the columns or have others than the first;
    /// labels out of range.
    pub fn of(paths: &[PathBuf], labels: Labels, check: bool) -> Result<Self> {
        let shards: Vec<Shard> = paths.par_iter().map(|path| Shard::open(path, labels)).collect::<Result<_>>()?;
        if let Some(other) = shards.iter().find(|shard| shard.columns != shards[0].columns) {
            let [own, first] = [other, &shards[0]].map(|shard| shard.columns.join(", "));
            let problem = format!("its columns are {own}; those of {} are {first}", shards[0].path.display());
            return Err(Error::content(&other.path, problem));
        }
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
            opened.largest_label = opened.classes()?.last().copied();
        }
        Ok(opened)
    }

    /// The labels that occur.
    pub fn classes(&self) -> Result<BTreeSet<u32>> {
        let read = |group: &Group| Ok(self.labels_of(group, 0..group.rows.len())?.into_iter().collect());
        let of_groups: Vec<BTreeSet<u32>> = self.groups.par_iter().map(read).collect::<Result<_>>()?;
        Ok(of_groups.into_iter().flatten().collect())
    }

    pub fn len(&self) -> usize {
        self.groups.last().map_or(0, |group| group.rows.end)
    }

    pub fn largest_label(&self) -> Option<u32> {
        self.largest_label
    }

    pub fn paths(&self) -> Vec<PathBuf> {
        self.shards.iter().map(|shard| shard.path.clone()).collect()
    }

    /// The column that labels are read from: another is another labelling of the same files.
    pub fn label_column(&self) -> &str {
        self.shards.first().map_or("", |shard| shard.columns[shard.label].as_str())
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
        let mut file = open("cannot read", path)?;
        check_footer(&mut file).map_err(|problem| broken(path, &problem))?;
        guarded(path.display(), || Self::of(path, file, labels))
    }

    fn of(path: &Path, file: File, labels: Labels) -> Result<Self> {
        let reader = SerializedFileReader::new(file).map_err(|error| broken(path, &error))?;
        let metadata = reader.metadata().clone();
        let schema = metadata.file_metadata().schema_descr();
        let names: Vec<String> = schema.columns().iter().map(|column| column.path().string()).collect();
        let types = schema.columns().iter().map(|column| match column.logical_type_ref() {
            Some(LogicalType::String) => "text".to_string(),
            _ => column.physical_type().to_string(),
        });
        let columns = names.iter().zip(types).map(|(name, holds)| format!("{name} ({holds})")).collect();
        let find = |what: &str, wanted: &[&str], types: &[parquet::basic::Type]| {
            let Some(index) = wanted.iter().find_map(|wanted| names.iter().position(|name| name == wanted)) else {
                let problem =
                    format!("no column {} with {what}; its columns are {}", wanted.join(" or "), names.join(", "));
                return Err(Error::content(path, problem));
            };
            let column = schema.column(index);
            let is_text = column.logical_type_ref() == Some(&LogicalType::String);
            match types.contains(&column.physical_type()) && column.max_rep_level() == 0 && !is_text {
                true => Ok(index),
                false => Err(Error::content(path, format!("column {} does not hold {what}", names[index]))),
            }
        };
        let image = find("image files", &IMAGE_COLUMNS, &[ByteArrayType::get_physical_type()])?;
        let integers = [Int32Type::get_physical_type(), Int64Type::get_physical_type()];
        let label = find("integers", labels.columns, &integers)?;
        Ok(Self { path: path.to_path_buf(), metadata, image, label, columns })
    }

    /// `read` on a fresh reader of one column of a row group.
    fn column<T>(
        &self,
        group: usize,
        column: usize,
        read: impl Fn(ColumnReader) -> Result<T, ParquetError>,
    ) -> Result<T> {
        // A file of its own: its position is shared by everybody who reads it.
        let mut file = open("cannot read", &self.path)?;
        let claims = check_pages(&mut file, self.metadata.row_group(group).column(column));
        claims.map_err(|problem| broken(&self.path, &problem))?;
        let file = Arc::new(file);
        let (pages, properties) = (self.metadata.page_index_for_row_group(group), ReaderProperties::builder().build());
        guarded(self.path.display(), || {
            let reader =
                SerializedRowGroupReader::new(file, self.metadata.row_group(group), pages, Arc::new(properties));
            let column = reader.and_then(|reader| reader.get_column_reader(column));
            column.and_then(&read).map_err(|error| broken(&self.path, &error))
        })
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

fn broken(path: &Path, error: &dyn Display) -> Error {
    Error::content(path, format!("not a complete Parquet file: {error}"))
}

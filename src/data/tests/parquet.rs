//! Parquet shards: those that pyarrow wrote, and broken ones.

use super::folders::png_of;
use super::*;
use ::parquet::column::writer::ColumnWriter;
use ::parquet::data_type::ByteArray;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

const CONFIG: &str = "{\"input_size\": [3, 4, 4], \"crop_pct\": 1.0, \"interpolation\": \"bilinear\"}";

fn load(dataset: &str, folder: &Path) -> Result<Data> {
    let data = format!("parquet:{}", folder.display());
    let request = Request { data: Some(&data), config: Some(CONFIG), ..Request::default() };
    find(dataset).unwrap().load(&request, &Device::Cpu)
}

/// The red level of each image over ten, which is its number in the shards of `scripts/make_parquet_golden.py`.
fn numbers(split: &Split) -> Vec<u32> {
    let reds = split.images.narrow(1, 0, 1).unwrap().flatten_from(1).unwrap().mean(1).unwrap();
    let number = |red: &f32| (255.0 * (0.485 + 0.229 * f64::from(*red)) / 10.0).round() as u32;
    reds.to_vec1::<f32>().unwrap().iter().map(number).collect()
}

#[test]
fn shards_of_pyarrow_are_read_in_any_order_across_groups_and_compressions() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/parquet"));
    let data = load("cifar-100", &folder).unwrap();
    assert_eq!((data.pool.len(), data.test.len()), (7, 3));
    let test = all(&data.test);
    assert_eq!((numbers(&test), test.labels), (vec![7, 8, 9], vec![1, 2, 0]));
    for seed in 0..4 {
        let sample = data.sample(7, seed).unwrap();
        let split = data.materialise(&sample).unwrap();
        assert_eq!(numbers(&split), sample.indices);
        assert_eq!(split.labels, sample.indices.iter().map(|index| index % 3).collect::<Vec<_>>());
    }
    // The fine label is not called `label`, so that nobody mistakes the coarse one for it.
    let error = load("image-folder", &folder).unwrap_err().to_string();
    assert!(error.contains("no column label") && error.contains("fine_label, coarse_label"), "{error}");
}

#[test]
fn other_types_are_read_and_a_missing_image_is_named() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/parquet/other"));
    let data = load("cifar-100", &folder).unwrap();
    let sample = data.sample(7, 1).unwrap();
    let split = data.materialise(&sample).unwrap();
    assert_eq!(numbers(&split), sample.indices);
    assert_eq!(split.labels, sample.indices.iter().map(|index| index % 3).collect::<Vec<_>>());
    assert_eq!(numbers(&data.test.first(2).unwrap()), [7, 8]);
    let error = data.test.first(3).unwrap_err().to_string();
    assert!(error.contains("validation-00000-of-00001.parquet, row 2: empty"), "{error}");
}

#[test]
fn rows_in_another_order_are_another_test_split() {
    let hash = |labels: &[Option<i64>]| {
        let written = Written::new();
        written.shard("validation-0", labels, true);
        let size = std::fs::metadata(written.path("validation-0")).unwrap().len();
        (size, written.load().unwrap().test.sha256)
    };
    let [one, two] = [[Some(0), Some(1)], [Some(1), Some(0)]].map(|labels| hash(&labels));
    assert_eq!((one.0, &one), (two.0, &hash(&[Some(0), Some(1)])));
    assert_ne!(one.1, two.1);
}

#[test]
fn shards_of_other_columns_are_refused() {
    let written = Written::new();
    let golden = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/parquet/other"));
    std::fs::copy(golden.join("train-00000-of-00001.parquet"), written.path("validation-1")).unwrap();
    let error = load("image-folder", written.0.path()).unwrap_err().to_string();
    assert!(error.contains("validation-1.parquet: no column label with integers"), "{error}");
    let schema = "message s { optional group image { optional binary bytes; } optional int32 label; }";
    written.with_schema("validation-1", schema, &[], true);
    let error = written.load().unwrap_err().to_string();
    for part in ["validation-1.parquet: its columns are image.bytes (BYTE_ARRAY), label (INT32)", "label (INT64)"] {
        assert!(error.contains(part), "{error}");
    }
    let schema = "message s { optional group image { optional binary bytes (STRING); } optional int64 label; }";
    written.with_schema("validation-1", schema, &[], true);
    let error = written.load().unwrap_err().to_string();
    assert!(error.contains("column image.bytes does not hold image files"), "{error}");
}

/// Shards with `label` and `image.bytes`, both of which may be null.
struct Written(TempDir);

impl Written {
    fn new() -> Self {
        let written = Self(tempfile::tempdir().unwrap());
        written.shard("train-0", &[Some(0), Some(1)], true);
        written.shard("validation-0", &[Some(0), Some(1)], true);
        written
    }

    fn shard(&self, name: &str, labels: &[Option<i64>], has_images: bool) {
        let schema = "message s { optional group image { optional binary bytes; } optional int64 label; }";
        self.with_schema(name, schema, labels, has_images);
    }

    fn with_schema(&self, name: &str, schema: &str, labels: &[Option<i64>], has_images: bool) {
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let file = std::fs::File::create(self.path(name)).unwrap();
        let mut writer =
            SerializedFileWriter::new(file, schema, Arc::new(WriterProperties::builder().build())).unwrap();
        let mut group = writer.next_row_group().unwrap();
        while let Some(mut column) = group.next_column().unwrap() {
            match column.untyped() {
                ColumnWriter::ByteArrayColumnWriter(images) => {
                    let values = vec![ByteArray::from(png_of([9; 3], (5, 5))); labels.len() * usize::from(has_images)];
                    let levels = vec![if has_images { 2 } else { 0 }; labels.len()];
                    images.write_batch(&values, Some(&levels), None).unwrap();
                }
                ColumnWriter::Int64ColumnWriter(column) => {
                    let values: Vec<i64> = labels.iter().copied().flatten().collect();
                    let levels: Vec<i16> = labels.iter().map(|label| i16::from(label.is_some())).collect();
                    column.write_batch(&values, Some(&levels), None).unwrap();
                }
                // Without rows.
                _ => assert!(labels.is_empty()),
            }
            column.close().unwrap();
        }
        group.close().unwrap();
        writer.close().unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(format!("{name}.parquet"))
    }

    fn load(&self) -> Result<Data> {
        load("cifar-10", self.0.path())
    }
}

#[test]
fn labels_out_of_range_or_missing_are_found_before_any_image() {
    let written = Written::new();
    written.load().unwrap();
    for (label, problem) in [(Some(10), "label 10"), (Some(-1), "label -1"), (None, "no label")] {
        written.shard("validation-0", &[Some(0), label], true);
        let error = written.load().unwrap_err().to_string();
        assert!(error.contains(&format!("validation-0.parquet: row 1 has {problem}, which is not 0 to 9")), "{error}");
    }
    // Nothing says how many classes a folder has but its labels.
    written.shard("validation-0", &[Some(0), Some(41)], true);
    let data = load("image-folder", written.0.path()).unwrap();
    data.check_fit("net", (3, 42)).unwrap();
    assert!(data.check_fit("net", (3, 41)).unwrap_err().to_string().contains("a label 41"));
}

#[test]
fn a_row_without_an_image_is_a_corrupt_image() {
    let written = Written::new();
    written.shard("validation-0", &[Some(0), Some(1)], false);
    let data = written.load().unwrap();
    let error = data.test.first(2).unwrap_err().to_string();
    assert!(error.contains("validation-0.parquet, row 0: empty"), "{error}");
}

#[test]
fn missing_shards_and_other_files_are_refused() {
    let written = Written::new();
    std::fs::rename(written.path("validation-0"), written.path("validation-00000-of-00002")).unwrap();
    let error = written.load().unwrap_err().to_string();
    assert!(error.contains("1 of 2 shards are there"), "{error}");
    std::fs::write(written.path("validation-00000-of-00002"), b"PAR1 not really PAR1").unwrap();
    std::fs::write(written.path("validation-00001-of-00002"), b"").unwrap();
    let error = written.load().unwrap_err().to_string();
    assert!(error.contains("validation-0000") && error.contains("not a complete Parquet file"), "{error}");
    for index in 0..2 {
        std::fs::remove_file(written.path(&format!("validation-0000{index}-of-00002"))).unwrap();
    }
    let error = written.load().unwrap_err().to_string();
    assert!(error.contains("holds no validation-*.parquet or val-*.parquet or test-*.parquet"), "{error}");
}

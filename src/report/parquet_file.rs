//! A data frame as a Parquet file, written with the `parquet` crate (polars is compiled without its own).

use crate::error::{Error, Result};
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::Type;
use polars::prelude::{Column, DataFrame, DataType as Values};
use std::sync::Arc;

/// `frame` as one row group of nullable columns, compressed with Snappy, which every reader knows.
///
/// Errors: a column of anything but text, `u64`, `i64`, `f64` and `bool`.
pub fn to_parquet(frame: &DataFrame) -> Result<Vec<u8>> {
    let fields = frame.columns().iter().map(|column| field(column).map(Arc::new)).collect::<Result<Vec<_>>>()?;
    write(frame, fields).map_err(|error| failed(&error))
}

fn write(frame: &DataFrame, fields: Vec<Arc<Type>>) -> parquet::errors::Result<Vec<u8>> {
    let schema = Arc::new(Type::group_type_builder("schema").with_fields(fields).build()?);
    let properties = Arc::new(WriterProperties::builder().set_compression(Compression::SNAPPY).build());
    let mut bytes = Vec::new();
    let mut file = SerializedFileWriter::new(&mut bytes, schema, properties)?;
    let mut group = file.next_row_group()?;
    for column in frame.columns() {
        let Some(mut writer) = group.next_column()? else { break };
        write_column(&mut writer, column)?;
        writer.close()?;
    }
    group.close()?;
    file.close()?;
    Ok(bytes)
}

/// The column's name, type and meaning in a file's schema.
fn field(column: &Column) -> Result<Type> {
    let (physical, meaning) = match column.dtype() {
        Values::String => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        Values::UInt64 => (Physical::INT64, Some(LogicalType::integer(64, false))),
        Values::Int64 => (Physical::INT64, None),
        Values::Float64 => (Physical::DOUBLE, None),
        Values::Boolean => (Physical::BOOLEAN, None),
        other => return Err(failed(&format!("column {} holds {other}", column.name()))),
    };
    Type::primitive_type_builder(column.name(), physical)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(meaning)
        .build()
        .map_err(|error| failed(&error))
}

fn write_column(writer: &mut SerializedColumnWriter, column: &Column) -> parquet::errors::Result<()> {
    let of_frame = |error: polars::prelude::PolarsError| ParquetError::General(error.to_string());
    match column.dtype() {
        Values::String => {
            let texts = column.str().map_err(of_frame)?;
            write_values::<ByteArrayType>(writer, texts.iter().map(|text| text.map(ByteArray::from)))
        }
        // The bits of an unsigned number; the schema says that they are.
        Values::UInt64 => {
            let numbers = column.u64().map_err(of_frame)?;
            write_values::<Int64Type>(writer, numbers.iter().map(|number| number.map(u64::cast_signed)))
        }
        Values::Int64 => write_values::<Int64Type>(writer, column.i64().map_err(of_frame)?.iter()),
        Values::Boolean => write_values::<BoolType>(writer, column.bool().map_err(of_frame)?.iter()),
        _ => write_values::<DoubleType>(writer, column.f64().map_err(of_frame)?.iter()),
    }
}

/// Values and nulls: a definition level per row, and the values that are there.
fn write_values<T: DataType>(
    writer: &mut SerializedColumnWriter,
    values: impl Iterator<Item = Option<T::T>>,
) -> parquet::errors::Result<()> {
    let values: Vec<Option<T::T>> = values.collect();
    let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    let known: Vec<T::T> = values.into_iter().flatten().collect();
    writer.typed::<T>().write_batch(&known, Some(&levels), None)?;
    Ok(())
}

fn failed(error: &dyn std::fmt::Display) -> Error {
    Error::Report(format!("cannot write a Parquet file: {error}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;
    use std::io::Write;

    /// The rows of a file, each with its columns by name.
    pub fn rows(bytes: &[u8]) -> Vec<Vec<(String, Field)>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let reader = SerializedFileReader::new(file).unwrap();
        reader.get_row_iter(None).unwrap().map(|row| row.unwrap().into_columns()).collect()
    }

    #[test]
    fn every_type_and_nulls_come_back() {
        let columns = vec![
            Column::new("text".into(), [Some("a, \"b\""), None]),
            Column::new("unsigned".into(), [u64::MAX, 0]),
            Column::new("signed".into(), [None, Some(-3i64)]),
            Column::new("share".into(), [Some(0.1f64), None]),
            Column::new("flag".into(), [Some(true), None]),
        ];
        let bytes = to_parquet(&DataFrame::new(2, columns).unwrap()).unwrap();
        let row = |values: [Field; 5]| {
            let names = ["text", "unsigned", "signed", "share", "flag"].map(String::from);
            names.into_iter().zip(values).collect::<Vec<_>>()
        };
        assert_eq!(
            rows(&bytes),
            [
                row([
                    Field::Str("a, \"b\"".into()),
                    Field::ULong(u64::MAX),
                    Field::Null,
                    Field::Double(0.1),
                    Field::Bool(true)
                ]),
                row([Field::Null, Field::ULong(0), Field::Long(-3), Field::Null, Field::Null]),
            ]
        );
    }

    #[test]
    fn a_frame_without_rows_is_a_file_without_rows() {
        let column = Column::new("n".into(), Vec::<u64>::new());
        assert!(rows(&to_parquet(&DataFrame::new(0, vec![column]).unwrap()).unwrap()).is_empty());
    }

    #[test]
    fn a_column_of_another_type_is_refused_by_name() {
        let column = Column::new("narrow".into(), [0.5f32]);
        let error = to_parquet(&DataFrame::new(1, vec![column]).unwrap()).unwrap_err().to_string();
        assert!(error.contains("column narrow holds f32"), "{error}");
    }
}

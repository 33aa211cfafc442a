//! Records as a data frame, one row per run.

use crate::error::{Error, Result};
use crate::experiment::facts::{FACTS, Unit};
use crate::store::record::Record;
use polars::prelude::*;

/// One row per record, in their order; what a failed run lacks is null. Accuracies are fractions.
pub fn frame(records: &[Record]) -> Result<DataFrame> {
    fn text<T: ToString>(records: &[Record], name: &str, f: impl Fn(&Record) -> T) -> Column {
        Column::new(name.into(), records.iter().map(|record| f(record).to_string()).collect::<Vec<_>>())
    }
    fn optional(records: &[Record], name: &str, f: impl Fn(&Record) -> Option<String>) -> Column {
        Column::new(name.into(), records.iter().map(f).collect::<Vec<_>>())
    }
    fn count(records: &[Record], name: &str, f: impl Fn(&Record) -> u64) -> Column {
        Column::new(name.into(), records.iter().map(f).collect::<Vec<_>>())
    }
    let r = records;
    let mut columns = vec![
        text(r, "run_id", |r| r.run_id.clone()),
        text(r, "experiment", |r| r.experiment.clone()),
        text(r, "arch", |r| r.cell.arch.clone()),
        text(r, "weights", |r| r.cell.weights.clone()),
        text(r, "dataset", |r| r.cell.dataset.clone()),
        text(r, "bits", |r| r.cell.bits),
        count(r, "w_bits", |r| u64::from(r.cell.bits.w)),
        count(r, "a_bits", |r| u64::from(r.cell.bits.a)),
        text(r, "method", |r| r.cell.method.clone()),
        optional(r, "variant", |r| r.cell.variant.clone()),
        text(r, "setting", |r| r.cell.setting),
        count(r, "calib_images", |r| r.cell.calib_images as u64),
        count(r, "iterations", |r| r.cell.recipe.iterations as u64),
        count(r, "seed", |r| r.cell.seed),
        text(r, "status", |r| r.status),
        optional(r, "error", |r| r.error.clone()),
    ];
    columns.extend(FACTS.iter().map(|fact| {
        let values = r.iter().map(|record| record.fact(fact));
        match fact.unit {
            Unit::Bytes => Column::new(fact.column.into(), values.map(|bytes| Some(bytes? as u64)).collect::<Vec<_>>()),
            _ => Column::new(fact.column.into(), values.collect::<Vec<_>>()),
        }
    }));
    columns.extend([
        text(r, "git_revision", |r| r.provenance.git_revision.clone()),
        text(r, "weights_sha256", |r| r.hashes.weights.clone()),
    ]);
    DataFrame::new(records.len(), columns).map_err(failed)
}

/// Comma-separated values with a header; nulls are empty.
pub fn to_csv(mut frame: DataFrame) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    CsvWriter::new(&mut bytes).finish(&mut frame).map_err(failed)?;
    Ok(bytes)
}

pub(super) fn failed(error: PolarsError) -> Error {
    Error::Report(format!("cannot make a data frame: {error}"))
}

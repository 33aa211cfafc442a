//! Published numbers in a declared table: below ours, by kind; and whole published tables for orientation.

use super::accuracy::{Block, blocks};
use super::beside::{Beside, beside, noise_note, overfitting};
use super::pivot::title;
use super::table::{Field, Group, Panel, Tables, note, published_field};
use crate::experiment::{Metric, TableSpec};
use crate::published::{Kind, Published};
use crate::store::record::Record;

/// Adds to `panels` what `spec` asks for of the networks and bits of `records`, under the table's columns (`values`), and
/// to `tables` its footnotes and the published table for orientation.
pub fn add(
    spec: &TableSpec,
    values: &[String],
    records: &[Record],
    published: &Published,
    panels: &mut Vec<Panel>,
    tables: &mut Tables,
) {
    let blocks = if spec.published.is_empty() { Vec::new() } else { blocks(records) };
    match spec.metric == Metric::GAP {
        true => panels.extend(gaps(spec, values, &blocks, published, &mut tables.footnotes)),
        false => {
            let lines: Vec<Beside> = blocks.iter().flat_map(|block| beside(block, published)).collect();
            let shown: Vec<&Beside> =
                lines.iter().filter(|line| line.kind.is_some_and(|kind| spec.published.contains(&kind))).collect();
            for kind in [Kind::Official, Kind::Rerun, Kind::Secondary] {
                let lines: Vec<&Beside> = shown.iter().copied().filter(|line| line.kind == Some(kind)).collect();
                if !lines.is_empty() {
                    panels.push(accuracies(spec, values, kind, &lines, &mut tables.footnotes));
                }
            }
            if !shown.is_empty() {
                tables.notes.push(
                    "Published: in brackets ours minus published; † where ours is not comparable; empty where nothing was \
                     published."
                        .to_string(),
                );
                tables.notes.extend(noise_note(&lines));
            }
        }
    }
    if let Some(name) = &spec.published_table {
        tables.groups.extend(whole(name, published));
    }
}

/// Places numbers in rows, in the order in which the rows are first met, under `values` of the columns.
fn placed(header: String, values: &[String], numbers: Vec<(Field, String, Field)>, titles: Vec<String>) -> Panel {
    let mut rows: Vec<Vec<Field>> = Vec::new();
    for (row, column, field) in numbers {
        let Some(column) = values.iter().position(|value| *value == column) else { continue };
        let position = rows.iter().position(|known| known[0] == row).unwrap_or_else(|| {
            rows.push([row].into_iter().chain(values.iter().map(|_| Field::default())).collect());
            rows.len() - 1
        });
        rows[position][column + 1] = field;
    }
    Panel { header: [header].into_iter().chain(titles).collect(), rows }
}

fn column_titles(spec: &TableSpec, values: &[String]) -> Vec<String> {
    values.iter().map(|value| title(&spec.columns, value)).collect()
}

/// What a row is called and in which column its number stands: the one of network and bits that is the column is no part
/// of the name.
fn place(spec: &TableSpec, arch: &str, bits: &str, method: &str) -> (String, String) {
    match spec.columns.as_str() {
        "arch" => (format!("{bits}, {method}"), arch.to_string()),
        _ => (format!("{}, {method}", title("arch", arch)), bits.to_string()),
    }
}

fn accuracies(
    spec: &TableSpec,
    values: &[String],
    kind: Kind,
    lines: &[&Beside],
    footnotes: &mut Vec<String>,
) -> Panel {
    let numbers = lines.iter().map(|line| {
        let (name, column) = place(spec, &line.arch, &line.bits.to_string(), &line.method);
        let notes = line.source.iter().map(|source| note(source.clone(), footnotes)).collect();
        let row = Field { text: format!("{name}, setting {}", line.setting), notes, ..Field::default() };
        (row, column, published_field(line, footnotes))
    });
    let numbers = numbers.collect();
    placed(format!("Published, {kind}"), values, numbers, column_titles(spec, values))
}

fn gaps(
    spec: &TableSpec,
    values: &[String],
    blocks: &[Block],
    published: &Published,
    footnotes: &mut Vec<String>,
) -> Option<Panel> {
    let mut numbers = Vec::new();
    for block in blocks {
        for gap in overfitting(block, published) {
            let (name, column) = place(spec, &block.arch, &gap.bits.to_string(), &gap.method);
            let notes = vec![note(gap.source.to_string(), footnotes)];
            let row = Field { text: name, notes, ..Field::default() };
            numbers.push((row, column, Field::text(format!("{:.2}", 100.0 * gap.published))));
        }
    }
    (!numbers.is_empty()).then(|| placed("Published gap".to_string(), values, numbers, column_titles(spec, values)))
}

/// The published table called `name`, as published: of its own network, on ImageNet.
fn whole(name: &str, published: &Published) -> Vec<Group> {
    let caption = |source: &str, arch: &str, bits: &dyn std::fmt::Display| {
        format!("For orientation, not for comparison: {source}; {arch} on ImageNet, {bits}, top-1 in percent.")
    };
    let percent = |top1: f64| Field::text(format!("{:.2}", 100.0 * top1));
    let ablations = published.ablations.iter().filter(|table| table.table == name).map(|table| {
        let rows = table.rows.iter().map(|(terms, top1)| vec![Field::text(terms.clone()), percent(*top1)]).collect();
        let panel = Panel { header: vec![table.table.clone(), table.bits.to_string()], rows };
        Group { caption: caption(&table.source, &table.arch, &table.bits), panels: vec![panel] }
    });
    let overfits = published.overfits.iter().filter(|_| name == crate::published::OVERFIT).map(|table| {
        let row = |(method, test, calib): &(String, f64, f64)| {
            vec![Field::text(title("method", method)), percent(*test), percent(*calib), percent(calib - test)]
        };
        let header = ["method", "test", "calibration set", "gap"].map(str::to_string).to_vec();
        let panel = Panel { header, rows: table.rows.iter().map(row).collect() };
        Group { caption: caption(&table.source, &table.arch, &table.bits), panels: vec![panel] }
    });
    ablations.chain(overfits).collect()
}

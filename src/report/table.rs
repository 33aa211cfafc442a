//! The tables of a report, without the marks of any format: what the renderers write.

use super::accuracy::{Block, Entry, Spread, Summary};
use super::beside::{Beside, beside, full_precision, noise_note};
use super::caption::{caption, departures_note, most_seeds, notes, unpaired_note};
use crate::published::{Kind, Published};
use crate::store::record::Record;
use serde::Serialize;

/// One field of a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Field {
    pub text: String,
    /// Whether it is the best of its column.
    pub best: bool,
    /// Number of seeds, where it is less than that of others.
    pub seeds: Option<usize>,
    /// Numbers of footnotes, from 1.
    pub notes: Vec<usize>,
}

impl Field {
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }
}

/// A table: a header, and rows as long as it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Panel {
    pub header: Vec<String>,
    pub rows: Vec<Vec<Field>>,
}

/// Tables of one block, under one caption.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    pub caption: String,
    pub panels: Vec<Panel>,
}

/// Everything that a report says in words and numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tables {
    pub groups: Vec<Group>,
    pub notes: Vec<String>,
    /// In the order of their numbers.
    pub footnotes: Vec<String>,
}

/// A quantity that is tabulated of each block.
struct Quantity {
    title: &'static str,
    of: fn(&Summary) -> Spread,
    /// Whether the largest value of a column is marked.
    best: bool,
}

const QUANTITIES: [Quantity; 3] = [
    Quantity { title: "Test", of: |summary| summary.test, best: true },
    Quantity { title: "Calibration set", of: |summary| summary.calib, best: false },
    Quantity { title: "Calibration minus test", of: |summary| summary.gap, best: false },
];

/// Said of entries without any run.
const NOT_STORED: &str = "no run is stored; `harness plan GRID` names what is left to run";

/// The tables of `blocks`, with published numbers after those of networks that have some.
pub fn tables(records: &[Record], blocks: &[Block], published: &Published) -> Tables {
    let mut tables = Tables { notes: notes(records, blocks), ..Tables::default() };
    let mut compared = Vec::new();
    for block in blocks {
        let mut panels: Vec<Panel> = QUANTITIES
            .iter()
            .map(|quantity| panel(block, quantity, most_seeds(blocks), &mut tables.footnotes))
            .collect();
        let lines = beside(block, published);
        for kind in [Kind::Official, Kind::Rerun, Kind::Secondary] {
            let lines: Vec<&Beside> = lines.iter().filter(|line| line.kind == Some(kind)).collect();
            if !lines.is_empty() {
                panels.push(published_panel(block, kind, &lines, &mut tables.footnotes));
            }
        }
        if !lines.is_empty() {
            let note = published_note(block, published);
            if !tables.notes.contains(&note) {
                tables.notes.push(note);
            }
        }
        compared.extend(lines);
        tables.groups.push(Group { caption: caption(block), panels });
    }
    tables.notes.extend(departures_note(records));
    tables.notes.extend(noise_note(&compared));
    tables.notes.extend(unpaired_note(records));
    tables
}

/// Mean and standard deviation of fractions, in percent.
pub fn percent(spread: Spread) -> String {
    match spread.std {
        None => format!("{:.2}", 100.0 * spread.mean),
        Some(std) => format!("{:.2} ± {:.2}", 100.0 * spread.mean, 100.0 * std),
    }
}

fn panel(block: &Block, quantity: &Quantity, seeds: usize, footnotes: &mut Vec<String>) -> Panel {
    let mut rows = Vec::new();
    if let (true, Some(fp)) = (quantity.best, block.fp_test_top1) {
        let values = block.bits.iter().map(|_| Field::text(format!("{:.2}", 100.0 * fp)));
        rows.push([Field::text("Full precision")].into_iter().chain(values).collect());
    }
    for row in &block.rows {
        let mut line = vec![Field::text(row.title())];
        for (column, entry) in row.entries.iter().enumerate() {
            let notes = failures(entry, footnotes);
            line.push(match &entry.summary {
                None => {
                    let missing = notes.is_empty().then(|| note(NOT_STORED.to_string(), footnotes));
                    let notes = notes.into_iter().chain(missing).collect();
                    Field { text: "–".to_string(), notes, ..Field::default() }
                }
                Some(summary) => Field {
                    text: percent((quantity.of)(summary)),
                    best: quantity.best
                        && block.rows.len() > 1
                        && block.is_best(row, column, |summary| (quantity.of)(summary).mean),
                    seeds: Some(summary.n).filter(|n| *n < seeds),
                    notes,
                },
            });
        }
        rows.push(line);
    }
    Panel { header: header(quantity.title.to_string(), block), rows }
}

fn header(title: String, block: &Block) -> Vec<String> {
    [title].into_iter().chain(block.bits.iter().map(ToString::to_string)).collect()
}

/// Footnotes that name the failed runs of an entry.
pub fn failures(entry: &Entry, footnotes: &mut Vec<String>) -> Vec<usize> {
    entry.failed.iter().map(|(id, error)| note(format!("{id} failed: {error}"), footnotes)).collect()
}

/// The number of the footnote `text`, which is added if it is new.
pub fn note(text: String, footnotes: &mut Vec<String>) -> usize {
    match footnotes.iter().position(|known| *known == text) {
        Some(known) => known + 1,
        None => {
            footnotes.push(text);
            footnotes.len()
        }
    }
}

/// Published numbers of one kind, a row per method, setting and source; what was not published is empty.
fn published_panel(block: &Block, kind: Kind, lines: &[&Beside], footnotes: &mut Vec<String>) -> Panel {
    let is_same_row = |a: &Beside, b: &Beside| (&a.method, a.setting, &a.source) == (&b.method, b.setting, &b.source);
    let mut firsts: Vec<&Beside> = Vec::new();
    for line in lines {
        if !firsts.iter().any(|first| is_same_row(first, line)) {
            firsts.push(line);
        }
    }
    let mut rows = Vec::new();
    for first in firsts {
        let setting = match first.setting == block.setting {
            true => String::new(),
            false => format!(", setting {}", first.setting),
        };
        let notes = first.source.iter().map(|source| note(source.clone(), footnotes)).collect();
        let mut row = vec![Field { text: format!("{}{setting}", first.method), notes, ..Field::default() }];
        for bits in &block.bits {
            let line = lines.iter().find(|line| line.bits == *bits && is_same_row(first, line));
            row.push(line.map_or_else(Field::default, |line| published_field(line, footnotes)));
        }
        rows.push(row);
    }
    Panel { header: header(format!("Published, {kind}"), block), rows }
}

pub(super) fn published_field(line: &Beside, footnotes: &mut Vec<String>) -> Field {
    let published = line.published.map_or(String::new(), |top1| format!("{:.2}", 100.0 * top1));
    match (&line.difference, &line.reason) {
        (Some(difference), _) => Field::text(format!("{published} ({:+.2})", 100.0 * difference)),
        (None, Some(reason)) => {
            let notes = vec![note(format!("not compared with ours: {reason}"), footnotes)];
            Field { text: format!("{published} †"), notes, ..Field::default() }
        }
        (None, None) => Field::text(published),
    }
}

/// How to read the published panels, and the published full-precision accuracies.
fn published_note(block: &Block, published: &Published) -> String {
    let sources = full_precision(block, published);
    let listed: Vec<String> = sources.iter().map(|(source, fp)| format!("{:.2} ({source})", 100.0 * fp)).collect();
    format!(
        "Published numbers of {}: in brackets ours minus published; † where ours is not comparable; empty where nothing \
         was published. Full precision there: {}.",
        block.arch,
        listed.join(", ")
    )
}

//! A filter expression: parsed, and tried on a cell and on a stored run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use metaaug::experiment::{Cell, Experiment, Filter, Options};
use metaaug::store::Stored;
use metaaug_fuzz::{Folder, own_panics_abort, write};
use std::cell::OnceCell;
use std::path::Path;

const GRID: &[u8] = b"name = \"x\"\n[base]\narch = \"resnet20\"\nmethod = \"qdrop\"\nbits = \"W2A2\"\ncalib-images = 32\n";
const RECORD: &[u8] = include_bytes!("../run/record.json");

thread_local! {
    static SUBJECTS: OnceCell<(Cell, Stored)> = const { OnceCell::new() };
}

fn subjects() -> (Cell, Stored) {
    let mut made = None;
    let make = |folder: &Path| {
        write(folder.join("grid.toml"), GRID);
        let grid = Experiment::read(&folder.join("grid.toml"), &Options::default()).expect("a right grid");
        let record = serde_json::from_slice(RECORD).expect("a record");
        made = Some((grid.cells[0].clone(), Stored::read("x", folder.to_path_buf(), record)));
    };
    Folder::with(make, |_| {});
    made.expect("the folder is filled once")
}

fuzz_target!(init: own_panics_abort(), |bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(filter) = Filter::parse(text) else { return };
    SUBJECTS.with(|subjects_once| {
        let (cell, stored) = subjects_once.get_or_init(subjects);
        drop((filter.matches(cell), filter.matches(stored)));
        drop(filter.select_possible(vec![cell.clone()]).and_then(|cells| filter.select(cells)));
    });
});

//! A shard of test images beside shards of training images that are right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use metaaug_fuzz::{Folder, load_all, own_panics_abort, write};
use std::path::Path;

const TRAIN: &[u8] = include_bytes!("../../tests/golden/parquet/train-00004-of-00005.parquet");

fn fill(folder: &Path) {
    write(folder.join("train-00000-of-00001.parquet"), TRAIN);
}

fuzz_target!(init: own_panics_abort(), |bytes: &[u8]| {
    Folder::with(fill, |folder| {
        write(folder.join("validation-00000-of-00001.parquet"), bytes);
        load_all("cifar-100", &format!("parquet:{}", folder.display()));
    });
});

//! The first binary file of CIFAR-10 or CIFAR-100: the bytes as they are, or at the beginning of a file of the right length, whose images have
//! one class each.
#![no_main]

use libfuzzer_sys::fuzz_target;
use metaaug_fuzz::{Folder, load_all, own_panics_abort, write};
use std::path::Path;

const LENGTH_10: u64 = 10_000 * 3073;
const LENGTH_100: u64 = 10_000 * 3074;

/// The five other files of CIFAR-10, with nothing but zeros.
fn fill(folder: &Path) {
    let others = (2..=5).map(|batch| format!("data_batch_{batch}.bin")).chain(["test_batch.bin".to_string()]);
    others.for_each(|name| set_len(folder, &name, LENGTH_10));
}

fn set_len(folder: &Path, name: &str, length: u64) {
    let file = std::fs::File::options().create(true).truncate(false).write(true).open(folder.join(name));
    file.and_then(|file| file.set_len(length)).expect("the folder can be written");
}

fuzz_target!(init: own_panics_abort(), |bytes: &[u8]| {
    let Some((which, file)) = bytes.split_first() else { return };
    Folder::with(fill, |folder| {
        let data = format!("binary:{}", folder.display());
        // CIFAR-100's training images would be 150 MB for each input: its test images come first here.
        let (set, name, length) = match which & 1 {
            0 => ("cifar-10", "data_batch_1.bin", LENGTH_10),
            _ => ("cifar-100", "train.bin", LENGTH_100),
        };
        write(folder.join(name), file);
        if which & 2 != 0 {
            set_len(folder, name, length);
        }
        load_all(set, &data);
        std::fs::remove_file(folder.join(name)).ok();
    });
});

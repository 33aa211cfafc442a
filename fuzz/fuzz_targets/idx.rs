//! An IDX file, plain or compressed, in the place of one of four; the first byte says which.
#![no_main]

use libfuzzer_sys::fuzz_target;
use metaaug_fuzz::{Folder, idx, load_all, own_panics_abort, write};
use std::path::Path;

const NAMES: [(&str, &[u32]); 4] = [
    ("train-images-idx3-ubyte", &[3, 28, 28]),
    ("train-labels-idx1-ubyte", &[3]),
    ("t10k-images-idx3-ubyte", &[2, 28, 28]),
    ("t10k-labels-idx1-ubyte", &[2]),
];

fn fill(folder: &Path) {
    NAMES.iter().for_each(|(name, extents)| write(folder.join(name), &idx(extents)));
}

fuzz_target!(init: own_panics_abort(), |bytes: &[u8]| {
    let Some((which, file)) = bytes.split_first() else { return };
    Folder::with(fill, |folder| {
        let (name, extents) = NAMES[usize::from(which % 4)];
        let (plain, zipped) = (folder.join(name), folder.join(format!("{name}.gz")));
        let is_zipped = which & 4 != 0;
        if is_zipped {
            std::fs::remove_file(&plain).ok();
        }
        write(if is_zipped { zipped.clone() } else { plain.clone() }, file);
        load_all("mnist", &format!("idx:{}", folder.display()));
        std::fs::remove_file(zipped).ok();
        write(plain, &idx(extents));
    });
});

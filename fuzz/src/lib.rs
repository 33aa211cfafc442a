//! What the targets share: a folder for the files that readers take by path, and which panics are findings.
//!
//! In production whatever panics while a file is read is caught and becomes an error that names the file. What panics in a dependency is
//! said once and otherwise taken as that; what panics in our own sources, or outside the part that is guarded, is a finding.

use candle_core::Device;
use metaaug::data::{self, Request};
use metaaug::hub::Hub;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::PanicHookInfo;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// For the `init` of a target: keeps the panics of dependencies from ending the process where production catches them.
pub fn own_panics_abort() {
    static SEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    // In the place of libFuzzer's, which aborts at each.
    std::panic::set_hook(Box::new(|panic: &PanicHookInfo| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let is_of_dependency = place.contains("/registry/src/") || place.starts_with("/rustc/");
        let is_new = SEEN.lock().map_or(true, |mut seen| seen.insert(place));
        if is_new || !is_of_dependency {
            eprintln!("PANIC: {panic}");
        }
        if !is_of_dependency {
            std::process::abort();
        }
    }));
}

/// A folder in memory for as long as the process lives.
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// What `then` makes of the folder of this thread, which is filled by `fill` when it is first asked for.
    pub fn with(fill: impl FnOnce(&Path), then: impl FnOnce(&Path)) {
        thread_local! {
            static FOLDER: RefCell<Option<Folder>> = const { RefCell::new(None) };
        }
        FOLDER.with_borrow_mut(|folder| {
            let folder = folder.get_or_insert_with(|| {
                let memory = Path::new("/dev/shm");
                let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
                let made = made.expect("a folder for temporary files");
                fill(made.path());
                Folder(made)
            });
            then(folder.0.path());
        });
    }
}

pub fn write(path: PathBuf, content: &[u8]) {
    std::fs::write(path, content).expect("the folder can be written");
}

/// Loads the data set and looks at all of its images, as cells do.
pub fn load_all(dataset: &str, data: &str) {
    let config = "{\"input_size\": [3, 4, 4], \"crop_pct\": 1.0, \"interpolation\": \"bilinear\"}";
    let config = (dataset != "mnist").then_some(config);
    let request = Request { data: Some(data), config, ..Request::default() };
    let dataset = data::find(dataset).expect("a known data set");
    if let Ok(data) = dataset.load(&request, &Device::Cpu) {
        drop(data.test.first(data.test.len().min(64)));
        drop(data.calibration(data.pool.len().min(64), 1));
    }
}

/// Loads the weights of `resnet20` that `file` is, and builds the network of them.
pub fn load_weights(file: &[u8], name: &str, tables: &[&str]) {
    let arch = ptq::arch::find("resnet20").expect("a known architecture");
    Folder::with(
        |_| {},
        |folder| {
            let path = folder.join(name);
            write(path.clone(), file);
            for table in tables {
                let spec = format!("file:{}{table}", path.display());
                let loaded =
                    metaaug::assets::checkpoint::load_weights(&spec, arch, "fashion-mnist", &Device::Cpu, &Hub::silent());
                if let Ok(checkpoint) = loaded {
                    drop(ptq::arch::load(arch, checkpoint.tensors, &checkpoint.source, &Device::Cpu));
                }
            }
        },
    );
}

/// An IDX file of levels or labels 0 to 9 in turn.
pub fn idx(extents: &[u32]) -> Vec<u8> {
    let header = [0, 0, 8, extents.len() as u8].into_iter().chain(extents.iter().flat_map(|n| n.to_be_bytes()));
    header.chain((0..extents.iter().product::<u32>()).map(|at| (at % 10) as u8)).collect()
}

//! A file that a run, or the work on runs, leaves in a folder of results; the first byte says which one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use metaaug::disk::cache::Cache;
use metaaug::launch::Job;
use metaaug::slurm::Submission;
use metaaug::store::{Annotations, Pictures, Predictions, Run, Store, read_layers, read_log, read_traces, scan_all};
use metaaug_fuzz::{Folder, own_panics_abort, write};
use std::path::Path;

const RECORD: &[u8] = include_bytes!("../run/record.json");
const TRACE: &[u8] = include_bytes!("../run/trace.json");
const PREDICTIONS: &[u8] = include_bytes!("../run/predictions.safetensors");
/// The run's files by the byte that chooses them.
const OF_RUN: [(u8, &str, Option<&[u8]>); 7] = [
    (b'r', "record.json", Some(RECORD)),
    (b't', "trace.json", Some(TRACE)),
    (b'p', "predictions.safetensors", Some(PREDICTIONS)),
    (b'n', "notes.jsonl", None),
    (b'l', "layers.json", None),
    (b'i', "pictures.safetensors", None),
    (b'g', "log.txt", None),
];

fn id() -> String {
    let record: serde_json::Value = serde_json::from_slice(RECORD).expect("a record");
    record["run_id"].as_str().expect("an id").to_string()
}

fn fill(results: &Path) {
    let run = results.join("x/runs").join(id());
    for folder in [&run, &results.join("x/runs/.live"), &results.join("x/runs/.claims"), &results.join("x/runs/.tracking")] {
        std::fs::create_dir_all(folder).expect("the folder can be written");
    }
    for (_, name, content) in OF_RUN {
        content.into_iter().for_each(|content| write(run.join(name), content));
    }
}

fuzz_target!(init: own_panics_abort(), |bytes: &[u8]| {
    let Some((which, file)) = bytes.split_first() else { return };
    Folder::with(fill, |results| {
        let (store, id) = (Store::new(results, "x"), id());
        let folder = store.run_folder(&id);
        let path = results.join("other.json");
        match which {
            b'j' => {
                write(path.clone(), file);
                drop(Job::read(&path));
            }
            b's' => {
                write(path.clone(), file);
                if let Ok(submission) = Submission::read(&path) {
                    drop((submission.jobs(), submission.named_jobs(), submission.state(&id, &store)));
                }
            }
            b'v' => {
                let _lock = store.lock();
                write(results.join("x/runs/.live/state.json"), file);
                drop(store.live());
            }
            b'o' => {
                write(results.join("x/runs/.tracking/id"), file);
                drop(store.ledger().id());
            }
            b'c' => {
                write(results.join("x/runs/.claims").join(format!("{id}.claim")), file);
                drop(store.maker(&id));
            }
            b'k' => {
                let cache = Cache::new(results.join("cache"));
                cache.put("a", b"content");
                let entry = std::fs::read_dir(results.join("cache")).into_iter().flatten().flatten().next();
                entry.into_iter().for_each(|entry| write(entry.path(), file));
                drop(cache.get("a"));
            }
            which => {
                let chosen = OF_RUN.iter().find(|(byte, ..)| byte == which).unwrap_or(&OF_RUN[usize::from(which % 7)]);
                let (_, name, original) = *chosen;
                write(folder.join(name), file);
                drop((scan_all(results), Run::read(&folder), Annotations::read(&folder), read_traces(&folder)));
                drop((Predictions::read(&folder), Pictures::read(&folder), read_layers(&folder), read_log(&folder)));
                match original {
                    Some(original) => write(folder.join(name), original),
                    None => drop(std::fs::remove_file(folder.join(name))),
                }
            }
        }
    });
});

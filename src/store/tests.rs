use super::*;
use record::Status;

/// Of another cell for each name.
fn record(name: &str) -> Record {
    let seed =
        ["one", "two", "cut", "newer", "moved", "good", "altered"].iter().position(|known| *known == name).unwrap();
    Record::sample("", "qdrop", "W2A4", seed as u64).storable()
}

fn id(name: &str) -> String {
    record(name).run_id
}

fn predictions() -> Predictions {
    Predictions {
        test: vec![1, 2],
        calib: vec![3],
        test_labels: vec![1, 0],
        calib_labels: vec![3],
        calib_indices: vec![7],
    }
}

#[test]
fn runs_come_back_as_they_were_stored() {
    let results = tempfile::tempdir().unwrap();
    let store = Store::new(results.path(), "test");
    assert!(store.scan().unwrap().records.is_empty());
    let _lock = store.lock().unwrap();
    store
        .write_run(&record("one"), "a = 1", &Artefacts { predictions: Some(predictions()), ..Artefacts::default() })
        .unwrap();
    store.write_run(&record("two").failed("why"), "a = 2", &Artefacts::default()).unwrap();
    store
        .write_run(&record("two"), "a = 2", &Artefacts { predictions: Some(predictions()), ..Artefacts::default() })
        .unwrap();
    let scan = store.scan().unwrap();
    assert_eq!(
        scan.records.iter().map(|record| (record.run_id.as_str(), record.status)).collect::<Vec<_>>(),
        [(id("one").as_str(), Status::Done), (&id("two"), Status::Done)]
    );
    assert!(scan.broken.is_empty(), "{:?}", scan.broken);
    assert_eq!(Predictions::read(&store.run_folder(&id("two"))).unwrap(), predictions());
    assert!(read_traces(&store.run_folder(&id("two"))).unwrap().is_empty());
    let run = Run::read(&store.run_folder(&id("two"))).unwrap();
    assert_eq!((run.record, run.artefacts.predictions, run.artefacts.log), (record("two"), Some(predictions()), None));
    // Nothing temporary is left.
    assert_eq!(std::fs::read_dir(&store.runs).unwrap().count(), 3);
}

#[test]
fn broken_and_newer_records_are_named_and_skipped() {
    let results = tempfile::tempdir().unwrap();
    let store = Store::new(results.path(), "test");
    let _lock = store.lock().unwrap();
    for name in ["cut", "newer", "moved", "good", "altered"] {
        store.write_run(&record(name), "", &Artefacts::default()).unwrap();
    }
    let path = |name: &str| store.run_folder(&id(name)).join(RECORD);
    let text = std::fs::read_to_string(path("cut")).unwrap();
    std::fs::write(path("cut"), &text[..text.len() / 2]).unwrap();
    std::fs::write(path("newer"), text.replace("\"format\": 2", "\"format\": 999")).unwrap();
    std::fs::rename(store.run_folder(&id("moved")), store.run_folder("renamed")).unwrap();
    let text = std::fs::read_to_string(path("altered")).unwrap();
    std::fs::write(path("altered"), text.replace("\"test_top1\": 0.8", "\"test_top1\": 9.93")).unwrap();
    std::fs::create_dir(store.run_folder("empty")).unwrap();
    let scan = store.scan().unwrap();
    assert_eq!(scan.records.len(), 1);
    let broken: Vec<String> = scan.broken.iter().map(|(path, why)| format!("{} {why}", path.display())).collect();
    for (part, text) in [
        (id("cut").as_str(), "not a complete record"),
        (&id("newer"), "format 999"),
        ("renamed", &format!("of run {}", id("moved"))),
        ("empty", "cannot read"),
        (&id("altered"), "record.json: metrics.test_top1 is 9.93"),
    ] {
        assert!(broken.iter().any(|broken| broken.contains(part) && broken.contains(text)), "{part}: {broken:?}");
    }
}

#[test]
fn a_second_process_is_kept_out() {
    let results = tempfile::tempdir().unwrap();
    let store = Store::new(results.path(), "test");
    let lock = store.lock().unwrap();
    assert!(store.lock().unwrap_err().to_string().contains("another harness"));
    drop(lock);
    store.lock().unwrap();
}

#[test]
fn results_that_cannot_be_written_are_one_error_with_the_path() {
    let results = tempfile::tempdir().unwrap();
    let file = results.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Store::new(&file, "test").lock().unwrap_err().to_string();
    assert!(error.contains("cannot make folder") && error.contains("file/test/runs"), "{error}");
}

#[test]
fn notes_and_tags_stay_when_a_run_is_made_again() {
    let results = tempfile::tempdir().unwrap();
    let store = Store::new(results.path(), "test");
    let _lock = store.lock().unwrap();
    let write = |record: &Record| store.write_run(record, "", &Artefacts::default()).unwrap();
    write(&record("one").failed("why"));
    annotations::tag(&store.run_folder(&id("one")), &["paper".to_string()], &[]).unwrap();
    annotations::note(&store.run_folder(&id("one")), "try again").unwrap();
    write(&record("one"));
    let annotations = Annotations::read(&store.run_folder(&id("one")));
    assert!(annotations.tags.contains("paper") && annotations.notes[0].text == "try again");
    assert_eq!(store.scan().unwrap().records, [record("one")]);
}

#[test]
fn whether_another_process_writes_is_seen_without_a_trace() {
    let results = tempfile::tempdir().unwrap();
    let store = Store::new(results.path(), "test");
    assert!(!store.is_locked() && !store.folder().exists());
    let lock = store.lock().unwrap();
    assert!(store.is_locked());
    drop(lock);
    assert!(!store.is_locked());
}

#[test]
fn a_run_travels_as_json() {
    let x = Tensor::new(&[[[[0.5f32, -1.25e-7]]]], &Device::Cpu).unwrap();
    let pictures = Some(Pictures { t_x: x.affine(2.0, 0.0).unwrap(), x });
    let artefacts = Artefacts { predictions: Some(predictions()), pictures, ..Artefacts::default() };
    let run = Run { record: record("one"), artefacts };
    let back: Run = serde_json::from_str(&serde_json::to_string(&run).unwrap()).unwrap();
    let values =
        |run: &Run| run.artefacts.pictures.as_ref().unwrap().t_x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!((values(&back), &back.record), (values(&run), &run.record));
    assert_eq!(back.artefacts.predictions, run.artefacts.predictions);
}

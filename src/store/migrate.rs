//! Records of older formats, brought to the newest one as they are read; files are left as they are.

use super::record::{FORMAT, Record};
use serde::Deserialize;
use serde_json::Value;

/// One step from each format to the next; the first is from 1 to 2.
const STEPS: [fn(&mut Value); FORMAT as usize - 1] = [name_processor];

/// Format 2 names the processor, of which older records know nothing.
fn name_processor(record: &mut Value) {
    if let Some(provenance) = record.get_mut("provenance").and_then(Value::as_object_mut) {
        provenance.insert("processor".to_string(), Value::Null);
    }
}

/// The record in `json`, of whatever format. Errors: what is wrong with it, as text.
pub fn read(json: &[u8]) -> Result<Record, String> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    match serde_json::from_slice::<Record>(json) {
        Ok(record) if record.format == FORMAT => return Ok(record),
        _ => (),
    }
    let broken = |error: serde_json::Error| format!("not a complete record: {error}");
    let Version { format } = serde_json::from_slice(json).map_err(broken)?;
    if format > FORMAT {
        return Err(format!("record format {format}, but this harness knows {FORMAT}: use a newer harness"));
    }
    let done = (format as usize).checked_sub(1).ok_or("record format 0 has never been written")?;
    let mut record: Value = serde_json::from_slice(json).map_err(broken)?;
    STEPS.iter().skip(done).for_each(|step| step(&mut record));
    record["format"] = FORMAT.into();
    Record::deserialize(record).map_err(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the first format had it.
    fn first_format() -> Value {
        let mut record = serde_json::to_value(Record::sample("x", "qdrop", "W2A2", 3)).unwrap();
        record["format"] = 1.into();
        record["provenance"].as_object_mut().unwrap().remove("processor");
        record
    }

    fn bytes(record: &Value) -> Vec<u8> {
        serde_json::to_vec(record).unwrap()
    }

    #[test]
    fn a_record_of_the_first_format_is_read_as_one_of_the_newest() {
        let mut expected = Record::sample("x", "qdrop", "W2A2", 3);
        expected.provenance.processor = None;
        assert_eq!(read(&bytes(&first_format())).unwrap(), expected);
    }

    #[test]
    fn what_is_no_record_is_told_from_what_is_newer() {
        let edited = |edit: fn(&mut Value)| {
            let mut record = first_format();
            edit(&mut record);
            read(&bytes(&record)).unwrap_err()
        };
        let newer = edited(|record| record["format"] = 99.into());
        assert!(newer.contains("record format 99") && newer.contains("use a newer harness"), "{newer}");
        assert!(edited(|record| record["format"] = 0.into()).contains("format 0"));
        assert!(edited(|record| record["cell"]["bits"] = "W9".into()).contains("not a complete record"));
        assert!(edited(|record| record["cell"]["recipe"] = Value::Null).contains("not a complete record"));
        assert!(edited(|record| *record = Value::Null).contains("not a complete record"));
        assert!(edited(|record| record["provenance"] = 3.into()).contains("not a complete record"));
    }
}

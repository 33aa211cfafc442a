//! What a run was made of, by name: that in which two runs can differ beside their measures.

use super::collection::Stored;
use crate::experiment::filter::Subject;

/// What is compared beside the fields of a cell, the hashes of its inputs and the measures.
pub const SAID_OF_RUNS: [&str; 6] = ["status", "revision", "error", "device", "processor", "git"];

impl Stored {
    /// Everything but the measures, by name: the fields of the cell, [`SAID_OF_RUNS`], the hashes of the inputs.
    pub fn configuration(&self) -> Vec<(String, String)> {
        let record = &self.record;
        let mut fields: Vec<(String, String)> = record.cell.fields().into_iter().collect();
        let said = |name: &&str| Some((name.to_string(), self.values(name)?.first()?.clone()));
        fields.extend(SAID_OF_RUNS.iter().filter_map(said));
        let hashes = &record.hashes;
        for (name, hash) in
            [("weights", &hashes.weights), ("calibration images", &hashes.calib), ("test images", &hashes.test)]
        {
            fields.push((format!("SHA-256 of {name}"), format!("{hash:.16}")));
        }
        fields
    }
}

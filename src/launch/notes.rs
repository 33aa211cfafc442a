//! What a run keeps of its events: its log and the traces of its losses.

use super::log::CellLog;
use crate::store::record::Record;
use crate::store::{Artefacts, Run};
use ptq::recon::event::Event;
use ptq::recon::trace::Traces;

/// Follows the events of one run.
pub struct Notes {
    log: CellLog,
    traces: Traces,
}

impl Notes {
    pub fn start(run_id: &str) -> Self {
        Self { log: CellLog::start(run_id), traces: Traces::default() }
    }

    /// Takes notice of an event.
    pub fn note(&self, event: &Event) {
        self.log.note(event);
        self.traces.note(event);
    }

    /// The run that ended so, and left `artefacts` beside what was noted.
    pub fn run(self, record: Record, artefacts: Artefacts) -> Run {
        let log = Some(self.log.finish(&record));
        Run { artefacts: Artefacts { traces: self.traces.finish(), log, ..artefacts }, record }
    }
}

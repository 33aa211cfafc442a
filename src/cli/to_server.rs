//! Stored runs to an MLflow server, for `export`.

use crate::error::Result;
use crate::export::Exported;
use crate::export::mlflow::server::{Server, identity};
use crate::export::mlflow::{Credentials, Failure, Scope, Written};
use crate::http::Address;
use crate::store::{Ledger, Store, Stored};
use crate::track::now_ms;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Before a server that may answer the next time is asked again.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];

/// Sends runs of any number of experiments.
pub struct ToServer {
    server: Server,
    /// How it is shown.
    address: String,
    /// By experiment.
    folders: BTreeMap<String, Folder>,
    refused: usize,
}

/// The runs of an experiment.
struct Folder {
    store: Store,
    ledger: Ledger,
    id: String,
}

impl ToServer {
    /// For the runs `stored` in the folder `results`; the server is not asked yet.
    pub fn new(address: Address, stored: &[Stored], results: &Path) -> Result<Self> {
        let shown = address.to_string();
        let server = Server::new(address, Credentials::from_env())?;
        let mut folders = BTreeMap::new();
        for experiment in stored.iter().map(|stored| &stored.experiment) {
            if !folders.contains_key(experiment) {
                let store = Store::new(results, experiment);
                let ledger = store.ledger();
                folders.insert(experiment.clone(), Folder { id: ledger.id()?, store, ledger });
            }
        }
        Ok(Self { server, address: shown, folders, refused: 0 })
    }

    /// What became of `run`; `None`: the server refuses it, which is said, and may take others.
    ///
    /// Errors: a server that takes nothing.
    pub fn send(&mut self, run: &Exported) -> Result<Option<Written>> {
        let (run_id, server) = (&run.stored.record.run_id, &mut self.server);
        let Some(Folder { ledger, id, .. }) = self.folders.get(&run.stored.experiment) else { return Ok(None) };
        match patiently(|| server.send(run, &identity(id, run_id), None)) {
            Ok(written) => {
                ledger.settle(run_id, &self.address);
                Ok(Some(written))
            }
            Err(failure) if failure.scope() == Scope::Run => {
                tell!("warning: skipping {run_id}: {}", server.error(&failure));
                self.refused += 1;
                Ok(None)
            }
            Err(failure) => Err(server.error(&failure)),
        }
    }

    /// Says on the server of runs of these experiments that nobody makes any more that they were killed; how many runs were refused, and
    /// the server's address.
    pub fn finish(mut self) -> Result<(usize, String)> {
        for (experiment, Folder { store, ledger, id }) in &self.folders {
            // Runs that are being made have no record either.
            if store.is_locked() {
                continue;
            }
            for run_id in ledger.owed(&self.address)?.into_iter().filter(|run_id| store.record(run_id).is_none()) {
                let server = &mut self.server;
                let killed = patiently(|| server.kill_forsaken(experiment, &identity(id, &run_id), now_ms()));
                killed.map_err(|failure| server.error(&failure))?;
                ledger.settle(&run_id, &self.address);
            }
        }
        if let Some(what) = self.server.not_sent() {
            tell!("note: MLflow at {} {what}", self.address);
        }
        Ok((self.refused, self.address))
    }
}

/// Tries again what may succeed in a moment.
fn patiently<T>(mut send: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    for pause in PAUSES {
        match send() {
            Err(failure) if failure.scope() == Scope::Moment => std::thread::sleep(pause),
            sent => return sent,
        }
    }
    send()
}

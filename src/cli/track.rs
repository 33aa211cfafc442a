//! Where `run` sends what it makes, and what it says of that.

use super::progress::Progress;
use crate::error::{Error, Result};
use crate::experiment::Experiment;
use crate::export::mlflow::Credentials;
use crate::export::mlflow::server::Server;
use crate::http::Address;
use crate::track::Tracked;
use std::path::Path;
use std::sync::Arc;

/// Where MLflow's own client looks.
pub const VARIABLE: &str = "MLFLOW_TRACKING_URI";

#[derive(clap::Args)]
pub struct TrackArgs {
    /// Tell the MLflow server at this address of each run while it is made: params, metrics with steps, artefacts, status [default: that of
    /// MLFLOW_TRACKING_URI, then that of `[track]` in the grid]. A server that is slow or gone neither slows nor fails a run; `harness export
    /// --mlflow URL` sends what it missed. MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, go with it.
    #[arg(long, value_name = "URL", num_args = 0..=1, require_equals = true)]
    track: Option<Option<String>>,
    /// Tell no server, though the grid has `[track]`.
    #[arg(long, conflicts_with = "track")]
    no_track: bool,
}

impl TrackArgs {
    /// The server that is to be told, if there is to be one; it is not asked yet.
    ///
    /// Errors: nobody says where it is; no address; credentials that cannot be sent.
    pub fn server(&self, experiment: &Experiment) -> Result<Option<Server>> {
        if self.no_track || (self.track.is_none() && experiment.track.is_none()) {
            return Ok(None);
        }
        let address = match self.track.as_ref().and_then(Option::as_ref) {
            Some(text) => Some(parse("--track", text)?),
            None => match std::env::var(VARIABLE).ok().filter(|text| !text.trim().is_empty()) {
                Some(text) => Some(parse(VARIABLE, &text)?),
                None => experiment.track.as_ref().and_then(|track| track.mlflow.clone()),
            },
        };
        let address = address.ok_or_else(|| {
            Error::Usage(format!(
                "where is the MLflow server? say so with --track=URL, {VARIABLE}, or `mlflow = \"URL\"` under [track] of the grid"
            ))
        })?;
        Server::new(address, Credentials::from_env()).map(Some)
    }
}

/// The address that `source` gives.
pub fn parse(source: &str, text: &str) -> Result<Address> {
    text.parse().map_err(|error| Error::Usage(format!("{source}: {error}")))
}

/// Says why something did not arrive, and what then.
pub fn warner(progress: Arc<Progress>, server: &Server, grid: &Path) -> Box<dyn Fn(String) + Send> {
    let command = command(&server.address().to_string(), grid);
    Box::new(move |problem| {
        progress.warn(&format!("{problem}; the grid goes on, and `{command}` sends what is missing"))
    })
}

/// Says what was sent.
pub fn say_tracked(tracked: &Tracked, server: &str, grid: &Path, quiet: bool) {
    let Tracked { sent, left, is_warned, not_sent } = tracked;
    let command = command(server, grid);
    if let (Some(what), false) = (not_sent, quiet) {
        tell!("note: MLflow at {server} {what}");
    }
    match left {
        0 if quiet || *sent == 0 => {}
        0 => say!("MLflow: {sent} runs sent to {server}"),
        // Once is enough.
        _ if *is_warned && quiet => {}
        _ if *is_warned => say!("MLflow: {sent} runs sent to {server}, {left} left: `{command}` sends them"),
        _ => tell!("warning: MLflow at {server} is slow: {sent} runs sent, {left} left; `{command}` sends them"),
    }
}

fn command(server: &str, grid: &Path) -> String {
    format!("harness export {} --mlflow {server}", grid.display())
}

//! How often a run leaves what it goes on from.

use crate::launch::Checkpoints;
use std::path::PathBuf;
use std::time::Duration;

#[derive(clap::Args)]
pub struct CheckpointArgs {
    /// How much work in the middle of a unit may be lost when a cell is killed, such as 30s or 5m. What a unit has come to is kept as often as
    /// that; what whole units have come to is kept in any case.
    #[arg(long, value_name = "TIME", default_value = "1m", env = "HARNESS_CHECKPOINT_EVERY", value_parser = humantime::parse_duration)]
    checkpoint_every: Duration,
}

impl CheckpointArgs {
    pub fn in_folder(&self, folder: PathBuf) -> Checkpoints {
        Checkpoints { folder, every: self.checkpoint_every }
    }
}

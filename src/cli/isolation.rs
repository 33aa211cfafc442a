//! Whether cells get processes of their own, and what becomes of those that die.

use super::bytes;
use candle_core::Device;
use std::time::Duration;

/// How often a cell whose process was killed is tried again, if nobody says.
const RETRIES: u32 = 1;

#[derive(clap::Args)]
pub struct IsolationArgs {
    /// Give each cell a process of its own, with the same results: one that dies, of whatever, is a failed cell, and the others go on.
    /// [default: if several cells run at the same time, but not if these share a GPU]
    #[arg(long, conflicts_with = "profile")]
    isolate: bool,
    /// Run all cells in this process: those of one GPU compute beside each other, and none waits for a process to start.
    #[arg(long, conflicts_with_all = ["isolate", "retries", "timeout", "cell_memory"])]
    no_isolate: bool,
    /// How often a cell is tried again, in a process of its own, whose process was killed or had no memory left, from where that was, after
    /// 1, 2, 4 ... seconds; where memory was too small with half of the --memory and smaller batches of evaluation. [default: 1]
    #[arg(long, value_name = "N", conflicts_with = "profile")]
    retries: Option<u32>,
    /// How long a cell may take, in a process of its own, such as 90m or 2h; one that takes longer fails, and goes on from there next time.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, conflicts_with = "profile")]
    pub timeout: Option<Duration>,
    /// How much memory a cell gets, in a process of its own, such as 8GiB: one that asks for more fails, and the others go on. What lies on a GPU
    /// does not count.
    #[arg(long, value_name = "SIZE", value_parser = bytes::parse, conflicts_with = "profile")]
    pub cell_memory: Option<u64>,
}

impl IsolationArgs {
    /// Whether the cells that run at the same time on `devices`, so many of them, each get a process.
    pub fn isolates(&self, (devices, count): (&[Device], usize), is_profiled: bool) -> bool {
        let is_asked = self.isolate || self.retries.is_some() || self.timeout.is_some() || self.cell_memory.is_some();
        // Processes take turns on a GPU, where streams of one compute beside each other; and each has half a gigabyte there.
        let shares_gpu = devices.iter().any(|device| !device.is_cpu()) && count > devices.len();
        is_asked || (count > 1 && !shares_gpu && !self.no_isolate && !is_profiled)
    }

    pub fn retries(&self) -> u32 {
        self.retries.unwrap_or(RETRIES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        isolation: IsolationArgs,
        #[arg(long)]
        profile: bool,
    }

    #[test]
    fn several_cells_at_once_get_processes_unless_somebody_says_otherwise() {
        let isolates = |args: &[&str], count: usize| {
            let Command { isolation, profile } = Command::try_parse_from([&["run"], args].concat()).unwrap();
            isolation.isolates((&[Device::Cpu], count), profile)
        };
        assert_eq!([isolates(&[], 1), isolates(&[], 2), isolates(&["--isolate"], 1)], [false, true, true]);
        assert_eq!([isolates(&["--no-isolate"], 2), isolates(&["--profile"], 2)], [false, false]);
        for asks in [["--timeout", "1h"], ["--retries", "0"], ["--cell-memory", "1GiB"]] {
            assert!(isolates(&asks, 1), "{asks:?}");
            let both = [&["run", "--no-isolate"][..], &asks].concat();
            assert!(Command::try_parse_from(both).is_err(), "{asks:?}");
        }
    }
}

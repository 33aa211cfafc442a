//! Time and memory of a run.

use crate::store::record::Cost;
use cpu_time::ProcessTime;
use std::time::Instant;

/// Measures from its creation on.
pub struct Stopwatch {
    wall: Instant,
    cpu: ProcessTime,
}

impl Stopwatch {
    pub fn start() -> Self {
        // Linux: 5 resets the peak of the resident memory. Elsewhere, and without the right to, the peak is the process's.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        Self { wall: Instant::now(), cpu: ProcessTime::now() }
    }

    pub fn cost(&self) -> Cost {
        Cost {
            wall_s: self.wall.elapsed().as_secs_f64(),
            cpu_s: self.cpu.elapsed().as_secs_f64(),
            peak_memory_bytes: peak_memory_bytes(),
        }
    }
}

/// `VmHWM` of Linux; `None` elsewhere.
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

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

/// Half of the memory that programs could still get (`MemAvailable` of Linux); no limit where the system does not tell.
pub fn sensible_memory_bytes() -> u64 {
    kibibytes("/proc/meminfo", "MemAvailable:").map_or(u64::MAX, |bytes| bytes / 2)
}

/// `VmHWM` of Linux; `None` elsewhere.
fn peak_memory_bytes() -> Option<u64> {
    kibibytes("/proc/self/status", "VmHWM:")
}

/// Bytes of the line of `file` that begins with `field` and goes on with a number of kibibytes.
fn kibibytes(file: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

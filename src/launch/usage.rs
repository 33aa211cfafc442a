//! Time and memory of a run.

use crate::allocator;
use crate::store::record::Cost;
use candle_core::Device;
use cpu_time::{ProcessTime, ThreadTime};
use std::time::{Duration, Instant};

/// Measures from its creation on.
pub struct Stopwatch {
    wall: Instant,
    cpu: Cpu,
}

/// Processor time spent before.
enum Cpu {
    /// By the process.
    Process(ProcessTime),
    /// By the threads that compute here.
    Threads(Duration),
}

impl Stopwatch {
    /// Counts the CPU time of the whole process, and its largest memory from now on.
    pub fn start() -> Self {
        // What an earlier computation freed is not this one's.
        allocator::hand_back();
        // Linux: 5 resets the peak of the resident memory. Elsewhere, and without the right to, the peak is the process's.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        Self { wall: Instant::now(), cpu: Cpu::Process(ProcessTime::now()) }
    }

    /// For a computation beside others in this process, by threads of its own: those of the rayon pool that this thread belongs
    /// to. Nobody can tell whose the process's memory is.
    pub fn beside_others() -> Self {
        Self { wall: Instant::now(), cpu: Cpu::Threads(threads_time()) }
    }

    /// What was used since the start.
    pub fn cost(&self) -> Cost {
        Cost {
            wall_s: self.wall.elapsed().as_secs_f64(),
            cpu_s: match &self.cpu {
                Cpu::Process(before) => before.elapsed(),
                Cpu::Threads(before) => threads_time().saturating_sub(*before),
            }
            .as_secs_f64(),
            peak_memory_bytes: match self.cpu {
                Cpu::Process(_) => peak_memory_bytes(),
                Cpu::Threads(_) => None,
            },
        }
    }
}

/// Processor time of all threads of the current pool, since they began.
fn threads_time() -> Duration {
    rayon::broadcast(|_| ThreadTime::now().as_duration()).into_iter().sum()
}

/// Half of the memory that programs could still get (`MemAvailable` of Linux); no limit where the system does not tell.
pub fn sensible_memory_bytes() -> u64 {
    kibibytes("/proc/meminfo", "MemAvailable:").map_or(u64::MAX, |bytes| bytes / 2)
}

/// How many bytes of activations may lie on `device`: half of what is free there.
pub fn sensible_bytes_on(device: &Device) -> u64 {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(cuda) => ptq::ops::cuda::free_bytes(cuda).map_or(u64::MAX, |bytes| bytes / 2),
        _ => sensible_memory_bytes(),
    }
}

/// `VmHWM` of Linux; `None` elsewhere.
fn peak_memory_bytes() -> Option<u64> {
    kibibytes("/proc/self/status", "VmHWM:")
}

/// What children took, of which nothing is known but what the system tells.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Used {
    pub cpu_s: f64,
    pub peak_bytes: Option<u64>,
}

impl Used {
    /// Takes notice of what child `process` has taken, beside what those `before` it did; whether there is nothing more to see, since it has ended.
    pub fn look(&mut self, process: u32, before: Used) -> bool {
        if let Some(peak) = kibibytes(&format!("/proc/{process}/status"), "VmHWM:") {
            self.peak_bytes = self.peak_bytes.max(Some(peak));
        }
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // After the name, which may contain anything.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<u64>().ok());
        let (Some(user), Some(system)) = (ticks(USER_TIME), ticks(SYSTEM_TIME)) else { return true };
        self.cpu_s = before.cpu_s + (user + system) as f64 / TICKS_PER_S;
        fields[0] == "Z"
    }
}

/// Fields of `/proc/PID/stat`, counted from the state.
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;
/// Linux's `USER_HZ`, whatever the machine.
const TICKS_PER_S: f64 = 100.0;

/// Bytes of the line of `file` that begins with `field` and goes on with a number of kibibytes.
fn kibibytes(file: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

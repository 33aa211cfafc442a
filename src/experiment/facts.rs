//! What is measured of a run: a row per number, from which filters, lists, data frames, tables, figures and exports have it.

use serde::{Deserialize, Serialize};

/// What was measured; accuracies are fractions, not percent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Full-precision top-1 on the test set.
    pub fp_test_top1: f64,
    /// Quantized top-1 on the test set.
    pub test_top1: f64,
    /// Quantized top-1 on the calibration images.
    pub calib_top1: f64,
    pub test_images: usize,
    /// Test images left out because they cannot be decoded.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped_images: usize,
    /// Unreadable training images that others took the place of in the calibration sample.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped_calib_images: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// What a run cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    pub wall_s: f64,
    /// Processor time over all threads.
    pub cpu_s: f64,
    /// Peak resident memory of the process during the run, where the system tells.
    pub peak_memory_bytes: Option<u64>,
}

/// In what a number is stored, and how it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Shown in percent.
    Fraction,
    Seconds,
    /// Shown in MiB.
    Bytes,
}

impl Unit {
    /// From the stored unit to that in which it is shown.
    pub fn scale(self) -> f64 {
        match self {
            Unit::Fraction => 100.0,
            Unit::Seconds => 1.0,
            Unit::Bytes => 1.0 / f64::from(1 << 20),
        }
    }

    /// As it is shown.
    pub fn symbol(self) -> &'static str {
        match self {
            Unit::Fraction => "%",
            Unit::Seconds => "s",
            Unit::Bytes => "MiB",
        }
    }
}

/// A number that is measured of a run.
#[derive(Debug)]
pub struct Fact {
    /// As filters, `list --columns` and grid files name it.
    pub name: &'static str,
    /// As data frames and exports name it, after the record's fields.
    pub column: &'static str,
    pub unit: Unit,
    /// With the unit in which it is shown, as an axis is labelled.
    pub title: &'static str,
    /// Above a table of it.
    pub caption: &'static str,
    /// For help texts.
    pub about: &'static str,
    /// In the stored unit; a failed run has no metrics.
    pub value: fn(Option<&Metrics>, &Cost) -> Option<f64>,
}

pub const FULL_PRECISION: Fact = Fact {
    name: "full-precision",
    column: "fp_test_top1",
    unit: Unit::Fraction,
    title: "full-precision top-1 (%)",
    caption: "Full-precision test top-1 in percent.",
    about: "top-1 of the network before it was quantized",
    value: |metrics, _| Some(metrics?.fp_test_top1),
};

pub const TEST: Fact = Fact {
    name: "test",
    column: "test_top1",
    unit: Unit::Fraction,
    title: "test top-1 (%)",
    caption: "Test top-1 in percent.",
    about: "top-1 on the test images",
    value: |metrics, _| Some(metrics?.test_top1),
};

pub const CALIB: Fact = Fact {
    name: "calib",
    column: "calib_top1",
    unit: Unit::Fraction,
    title: "top-1 on the calibration images (%)",
    caption: "Top-1 on the calibration images in percent.",
    about: "top-1 on the calibration images",
    value: |metrics, _| Some(metrics?.calib_top1),
};

pub const GAP: Fact = Fact {
    name: "gap",
    column: "gap",
    unit: Unit::Fraction,
    title: "calibration minus test top-1 (points)",
    caption: "Top-1 on the calibration images minus test top-1, in points.",
    about: "calib minus test",
    value: |metrics, _| metrics.map(|metrics| metrics.calib_top1 - metrics.test_top1),
};

pub const WALL: Fact = Fact {
    name: "wall",
    column: "wall_s",
    unit: Unit::Seconds,
    title: "wall time (s)",
    caption: "Wall time per run in seconds.",
    about: "seconds that it took",
    value: |_, cost| Some(cost.wall_s),
};

/// Every number, in the order of a data frame's columns.
pub const FACTS: &[Fact] = &[
    FULL_PRECISION,
    TEST,
    CALIB,
    GAP,
    WALL,
    Fact {
        name: "cpu",
        column: "cpu_s",
        unit: Unit::Seconds,
        title: "processor time (s)",
        caption: "Processor time per run over all threads, in seconds.",
        about: "processor seconds over all threads",
        value: |_, cost| Some(cost.cpu_s),
    },
    Fact {
        name: "memory",
        column: "peak_memory_bytes",
        unit: Unit::Bytes,
        title: "peak memory (MiB)",
        caption: "Peak memory per run in MiB.",
        about: "peak memory in bytes",
        value: |_, cost| cost.peak_memory_bytes.map(|bytes| bytes as f64),
    },
];

/// The fact called `name`.
pub fn find(name: &str) -> Option<&'static Fact> {
    FACTS.iter().find(|fact| fact.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_is_of_a_finished_run_and_those_of_metrics_are_not_of_a_failed_one() {
        let metrics = Metrics {
            fp_test_top1: 0.9,
            test_top1: 0.75,
            calib_top1: 0.875,
            test_images: 8,
            skipped_images: 0,
            skipped_calib_images: 0,
        };
        let cost = Cost { wall_s: 1.0, cpu_s: 2.0, peak_memory_bytes: Some(1 << 20) };
        let values = |metrics| FACTS.iter().map(|fact| (fact.value)(metrics, &cost)).collect::<Vec<_>>();
        let costs = [Some(1.0), Some(2.0), Some(f64::from(1 << 20))];
        assert_eq!(values(Some(&metrics)), [&[0.9, 0.75, 0.875, 0.125].map(Some)[..], &costs].concat());
        assert_eq!(values(None), [&[None; 4][..], &costs].concat());
        assert_eq!(find("memory").map(|fact| fact.unit.scale() * f64::from(1 << 20)), Some(1.0));
    }
}

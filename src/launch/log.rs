//! The log of one cell: what happened when, kept beside its record.

use crate::store::record::Record;
use ptq::recon::event::Event;
use std::fmt::Write;
use std::sync::Mutex;
use std::time::Instant;

/// Collects lines while a cell runs.
pub struct CellLog {
    start: Instant,
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    text: String,
    /// Phase of the step before; empty where a unit or the evaluation has just begun.
    phase: String,
    /// Number of images of the evaluation that is going on; 0 where there is none.
    evaluating: usize,
}

impl CellLog {
    pub fn start(id: &str) -> Self {
        let log = Self { start: Instant::now(), lines: Mutex::default() };
        log.with(|lines, at| line(lines, at, format_args!("{id}")));
        log
    }

    /// Units, the first and last step of their phases, and evaluations each leave a line.
    pub fn note(&self, event: &Event) {
        self.with(|lines, at| match event {
            Event::Unit { index, count, name } => {
                (lines.phase, lines.evaluating) = (String::new(), 0);
                line(lines, at, format_args!("unit {}/{count} {name}", index + 1));
            }
            Event::Step { phase, iteration, iterations, loss } => {
                lines.evaluating = 0;
                if lines.phase != *phase || *iteration == 1 || iteration == iterations {
                    lines.phase.clone_from(phase);
                    line(lines, at, format_args!("  {phase} {iteration}/{iterations}, loss {loss:.6}"));
                }
            }
            Event::Halved { images } => {
                line(lines, at, format_args!("out of memory: {images} images at a time from here on"));
            }
            Event::Skipped { problem } => line(lines, at, format_args!("skipped: {problem}")),
            Event::Evaluated { of, .. } => {
                if lines.evaluating != *of {
                    (lines.phase, lines.evaluating) = (String::new(), *of);
                    line(lines, at, format_args!("evaluation of {of} images"));
                }
            }
            Event::PhaseBegun { .. } | Event::Point(_) | Event::PhaseEnded { .. } => {}
        });
    }

    /// The whole log of the run whose `record` is about to be stored.
    pub fn finish(self, record: &Record) -> String {
        self.with(|lines, at| match (&record.metrics, &record.error) {
            (Some(metrics), _) => line(
                lines,
                at,
                format_args!(
                    "done: test {:.2} %, calibration {:.2} %",
                    100.0 * metrics.test_top1,
                    100.0 * metrics.calib_top1
                ),
            ),
            (None, error) => {
                line(lines, at, format_args!("failed: {}", error.as_deref().unwrap_or("no reason known")));
            }
        });
        self.lines.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).text
    }

    fn with(&self, write: impl FnOnce(&mut Lines, f64)) {
        // A panic of a cell is caught further up, and its log goes on.
        let mut lines = self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        write(&mut lines, self.start.elapsed().as_secs_f64());
    }
}

fn line(lines: &mut Lines, at: f64, text: std::fmt::Arguments) {
    // Writing to a string cannot fail.
    let _ = writeln!(lines.text, "{at:9.1} s  {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_leave_their_ends_and_evaluations_their_beginning() {
        let record = Record::sample("id", "qdrop", "W2A4", 0).failed("diverged");
        let log = CellLog::start("id");
        log.note(&Event::Unit { index: 0, count: 2, name: "stem".into() });
        (1..=10).for_each(|iteration| {
            log.note(&Event::Step { phase: "weights".into(), iteration, iterations: 10, loss: iteration as f64 });
        });
        [10, 20].iter().for_each(|images| log.note(&Event::Evaluated { images: *images, of: 20 }));
        log.note(&Event::Evaluated { images: 10, of: 40 });
        let text = log.finish(&record);
        let said: Vec<&str> = text.lines().map(|line| line.split_once("s  ").unwrap().1).collect();
        let expected = [
            "id",
            "unit 1/2 stem",
            "  weights 1/10, loss 1.000000",
            "  weights 10/10, loss 10.000000",
            "evaluation of 20 images",
            "evaluation of 40 images",
            "failed: diverged",
        ];
        assert_eq!(said, expected);
    }
}

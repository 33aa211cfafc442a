//! Progress on the terminal: a bar for the grid and one for each cell that runs; plain lines where there is no terminal.

use crate::diagnostic::printable;
use crate::launch::{Event, What};
use crate::store::record::Record;
use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use ptq::recon::event::Event as Step;
use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Shows events of a grid.
pub struct Progress {
    bars: MultiProgress,
    grid: ProgressBar,
    /// Cells to run.
    pending: usize,
    /// Whether finished cells are lines of their own instead of bars.
    plain: bool,
    quiet: bool,
    cells: Mutex<Cells>,
}

#[derive(Default)]
struct Cells {
    begun: usize,
    /// Those that run, by run id.
    running: HashMap<String, CellBar>,
}

/// The bar of a cell.
struct CellBar {
    bar: ProgressBar,
    /// What its texts begin with: nothing, or the cell's id where several run at the same time.
    label: String,
    unit: String,
    phase: String,
    phase_start: bool,
}

impl Progress {
    /// For `pending` cells, with `stored` ones already there.
    pub fn new(pending: usize, stored: usize, quiet: bool) -> Self {
        let plain = !std::io::stderr().is_terminal();
        let target = if quiet || plain { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(5) };
        let bars = MultiProgress::with_draw_target(target);
        let grid = style("cells {pos}/{len} {bar:30} {elapsed_precise}{left}  {msg}").with_key("left", time_left);
        let grid = bars.add(ProgressBar::new(pending as u64).with_style(grid));
        // The clock of a grid goes on between the events of its cells.
        grid.enable_steady_tick(Duration::from_millis(500));
        if !quiet && stored > 0 {
            tell!("{stored} cells are stored already, {pending} to run");
        }
        Self { bars, grid, pending, plain, quiet, cells: Mutex::default() }
    }

    pub fn show(&self, Event { run_id, what }: &Event) {
        match what {
            What::Started => self.begin(run_id),
            What::Progress(Step::Skipped { problem }) => self.line(format!("skipped: {problem}")),
            What::Progress(Step::Halved { images }) => {
                self.line(format!("{run_id}: out of memory, {images} images at a time from here on"));
            }
            What::Progress(step) => {
                if let Some(cell) = self.cells().running.get_mut(run_id) {
                    cell.show(step);
                }
            }
            What::Elsewhere { host, process } => {
                self.line(format!("{run_id}: process {process} on {host} has it; waiting for that"));
            }
            What::Finished(record) => {
                if let Some(cell) = self.cells().running.remove(run_id) {
                    self.bars.remove(&cell.bar);
                }
                self.grid.inc(1);
                self.line(finished(record));
            }
        }
    }

    fn begin(&self, run_id: &str) {
        let mut cells = self.cells();
        cells.begun += 1;
        self.grid.set_message(printable(run_id).into_owned());
        if self.plain {
            self.line(format!("[{}/{}] {run_id}", cells.begun, self.pending));
        }
        let bar = self.bars.add(ProgressBar::new(0).with_style(style(CELL)));
        let unit = String::new();
        let cell = CellBar { bar, label: String::new(), unit, phase: String::new(), phase_start: true };
        cells.running.insert(run_id.to_string(), cell);
        if cells.running.len() > 1 {
            cells.running.iter_mut().for_each(|(run_id, cell)| cell.label = format!("{}, ", printable(run_id)));
        }
    }

    /// What a panicking thread left in it is still a state.
    fn cells(&self) -> MutexGuard<'_, Cells> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, text: String) {
        if self.quiet {
            return;
        }
        if self.plain {
            tell!("{text}");
        } else {
            // Lost only if the terminal is gone.
            let _ = self.bars.println(printable(&text));
        }
    }

    /// What `--quiet` does not hide.
    pub fn warn(&self, text: &str) {
        if self.quiet || self.plain {
            return tell!("warning: {text}");
        }
        self.line(format!("warning: {text}"));
    }

    pub fn finish(&self) {
        self.cells().running.drain().for_each(|(_, cell)| cell.bar.finish_and_clear());
        self.grid.finish_and_clear();
    }
}

/// The bar of a cell.
const CELL: &str = "  {msg:44} {bar:30} {pos}/{len} {eta} left  {prefix}";

impl CellBar {
    fn show(&mut self, step: &Step) {
        let (bar, label) = (&self.bar, &self.label);
        match step {
            Step::Unit { index, count, name } => {
                self.unit = format!("unit {}/{count} {name}", index + 1);
                self.phase_start = true;
                bar.set_message(format!("{label}{}", self.unit));
            }
            Step::Step { phase, iteration, iterations, loss } => {
                if self.phase_start || self.phase != *phase || *iteration == 1 {
                    self.phase.clone_from(phase);
                    self.phase_start = false;
                    bar.reset();
                    bar.set_length(*iterations as u64);
                    bar.set_message(format!("{label}{}, {phase}", self.unit));
                }
                bar.set_prefix(format!("loss {loss:.4}"));
                bar.set_position(*iteration as u64);
            }
            Step::Evaluated { images, of } => {
                bar.set_length(*of as u64);
                bar.set_position(*images as u64);
                bar.set_message(format!("{label}evaluation"));
                bar.set_prefix("");
            }
            Step::PhaseBegun { .. }
            | Step::Point(_)
            | Step::PhaseEnded { .. }
            | Step::Halved { .. }
            | Step::Skipped { .. } => {}
        }
    }
}

/// The templates are constants of this file: a wrong one shows as the default style.
pub(super) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Nothing is known of the time left before the first cell is finished.
fn time_left(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    if state.pos() > 0 {
        // A terminal that takes no more text has no use for the rest either.
        let _ = write!(out, ", {} left", HumanDuration(state.eta()));
    }
}

fn finished(record: &Record) -> String {
    match (&record.metrics, &record.error) {
        (Some(metrics), _) => format!(
            "{}: test {:.2} %, calibration {:.2} %, full precision {:.2} %, {:.0} s",
            record.run_id,
            100.0 * metrics.test_top1,
            100.0 * metrics.calib_top1,
            100.0 * metrics.fp_test_top1,
            record.cost.wall_s
        ),
        (None, error) => format!("{}: failed: {}", record.run_id, error.as_deref().unwrap_or("no reason stored")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_that_run_at_the_same_time_have_a_bar_each() {
        let progress = Progress::new(3, 0, true);
        let tell = |run_id: &str, what| progress.show(&Event { run_id: run_id.into(), what });
        let step = |phase: &str, iteration| {
            What::Progress(Step::Step { phase: phase.into(), iteration, iterations: 9, loss: 0.5 })
        };
        let shown = |run_id: &str| {
            let cells = progress.cells();
            cells.running.get(run_id).map(|cell| (cell.bar.message(), cell.bar.position()))
        };
        tell("a", What::Started);
        tell("a", step("weights", 1));
        assert_eq!(shown("a"), Some((", weights".into(), 1)));
        tell("b", What::Started);
        let unit = Step::Unit { index: 1, count: 7, name: "layer1.0".into() };
        tell("b", What::Progress(unit));
        tell("b", step("meta", 4));
        tell("a", step("activations", 7));
        assert_eq!(shown("a"), Some(("a, , activations".into(), 7)));
        assert_eq!(shown("b"), Some(("b, unit 2/7 layer1.0, meta".into(), 4)));
        tell("a", What::Finished(Box::new(Record::sample("a", "rtn", "W2A2", 0))));
        assert_eq!((shown("a"), shown("b").is_some(), progress.grid.position()), (None, true, 1));
    }
}

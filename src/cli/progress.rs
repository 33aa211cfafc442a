//! Progress on the terminal: a bar for the grid and one for the cell; plain lines where there is no terminal.

use crate::launch::GridEvent;
use crate::store::record::Record;
use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use ptq::recon::event::Event;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::Duration;

/// Shows events of a grid.
pub struct Progress {
    bars: MultiProgress,
    grid: ProgressBar,
    cell: ProgressBar,
    /// Whether finished cells are lines of their own instead of bars.
    plain: bool,
    quiet: bool,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    unit: String,
    phase: &'static str,
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
        let cell =
            bars.add(ProgressBar::new(0).with_style(style("  {msg:44} {bar:30} {pos}/{len} {eta} left  {prefix}")));
        if !quiet && stored > 0 {
            eprintln!("{stored} cells are stored already, {pending} to run");
        }
        Self { bars, grid, cell, plain, quiet, current: Mutex::default() }
    }

    pub fn show(&self, event: &GridEvent) {
        match event {
            GridEvent::Started { position, count, id } => {
                self.grid.set_message(id.to_string());
                if self.plain {
                    self.line(format!("[{}/{count}] {id}", position + 1));
                }
            }
            GridEvent::Cell(event) => self.show_cell(event),
            GridEvent::Finished { record } => {
                self.grid.inc(1);
                self.line(finished(record));
            }
        }
    }

    fn show_cell(&self, event: &Event) {
        let Ok(mut current) = self.current.lock() else { return };
        match *event {
            Event::Unit { index, count, name } => {
                current.unit = format!("unit {}/{count} {name}", index + 1);
                current.phase_start = true;
                self.cell.set_message(current.unit.clone());
            }
            Event::Step { phase, iteration, iterations, loss } => {
                if current.phase_start || current.phase != phase || iteration == 1 {
                    (current.phase, current.phase_start) = (phase, false);
                    self.cell.reset();
                    self.cell.set_length(iterations as u64);
                    self.cell.set_message(format!("{}, {phase}", current.unit));
                }
                self.cell.set_prefix(format!("loss {loss:.4}"));
                self.cell.set_position(iteration as u64);
            }
            Event::Halved { images } => {
                self.line(format!("out of memory: {images} images at a time from here on"));
            }
            Event::Skipped { problem } => self.line(format!("skipped: {problem}")),
            Event::Evaluated { images, of } => {
                self.cell.set_length(of as u64);
                self.cell.set_position(images as u64);
                self.cell.set_message("evaluation");
                self.cell.set_prefix("");
            }
        }
    }

    fn line(&self, text: String) {
        if self.quiet {
            return;
        }
        if self.plain {
            eprintln!("{text}");
        } else {
            // Lost only if the terminal is gone.
            let _ = self.bars.println(text);
        }
    }

    pub fn finish(&self) {
        self.cell.finish_and_clear();
        self.grid.finish_and_clear();
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

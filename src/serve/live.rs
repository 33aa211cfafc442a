//! The state of a running grid as pages show it.

use crate::report::details::path;
use crate::report::digits::significant;
use crate::store::live::{Current, Live, LiveUnit};
use crate::store::since_1970;
use serde::Serialize;

/// What `live.html` shows.
#[derive(Serialize)]
pub struct Shown {
    pending: usize,
    finished: usize,
    failed: usize,
    stored: usize,
    process: u32,
    elapsed: String,
    /// Unknown before the first cell is finished.
    left: Option<String>,
    running: Vec<Run>,
}

/// A cell that is running.
#[derive(Serialize)]
struct Run {
    id: String,
    elapsed: String,
    doing: String,
    units: Vec<Unit>,
}

#[derive(Serialize)]
struct Unit {
    name: String,
    phase: String,
    iteration: usize,
    iterations: usize,
    first: String,
    last: String,
    path: String,
}

impl Shown {
    pub fn new(live: &Live) -> Self {
        Self::at(live, since_1970().as_secs())
    }

    fn at(live: &Live, now_unix_s: u64) -> Self {
        let since = |unix_s: u64| now_unix_s.saturating_sub(unix_s);
        let finished = live.done + live.failed;
        // Of all that are running together, whose time passes at once.
        let running_s: u64 = live.running().map(|current| since(current.started_unix_s)).sum();
        let at_once = live.running().count().max(1) as u64;
        let elapsed_s = since(live.started_unix_s);
        let left = (finished > 0).then(|| {
            // Cells take about as long as those before them.
            let per_cell = (at_once * elapsed_s).saturating_sub(running_s) as f64 / finished as f64;
            let left = (per_cell * live.pending.saturating_sub(finished) as f64) as u64;
            left.saturating_sub(running_s) / at_once
        });
        Self {
            pending: live.pending,
            finished,
            failed: live.failed,
            stored: live.stored,
            process: live.process,
            elapsed: duration(elapsed_s),
            left: left.map(duration),
            running: live
                .running()
                .map(|current| Run {
                    id: current.run_id.clone(),
                    elapsed: duration(since(current.started_unix_s)),
                    doing: doing(current),
                    units: current.units.iter().map(unit).collect(),
                })
                .collect(),
        }
    }
}

fn doing(current: &Current) -> String {
    match (current.evaluated, current.units.last()) {
        (Some((images, of)), _) => format!("evaluation, {images} of {of} images"),
        (None, Some(unit)) => {
            let phase = if unit.phase.is_empty() { String::new() } else { format!(", {}", unit.phase) };
            let step = if unit.iterations == 0 {
                String::new()
            } else {
                format!(" {} of {}, loss {}", unit.iteration, unit.iterations, loss(unit.loss))
            };
            format!("unit {} of {}, {}{phase}{step}", unit.index + 1, current.unit_count, unit.name)
        }
        (None, None) => "preparing".to_string(),
    }
}

fn unit(unit: &LiveUnit) -> Unit {
    let (iterations, losses): (Vec<usize>, Vec<f64>) =
        unit.curve.iter().map(|(iteration, loss)| (*iteration, loss.unwrap_or(f64::NAN))).unzip();
    Unit {
        name: unit.name.clone(),
        phase: unit.phase.clone(),
        iteration: unit.iteration,
        iterations: unit.iterations,
        first: loss(unit.first_loss),
        last: loss(unit.loss),
        path: path(&iterations, &losses),
    }
}

fn loss(loss: Option<f64>) -> String {
    loss.map_or("–".to_string(), significant)
}

/// `45 s`, `12 min`, `3 h 5 min`.
fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_follows_from_finished_cells() {
        let unit = LiveUnit {
            index: 2,
            name: "layer1.0".into(),
            phase: "weights".into(),
            iteration: 3,
            iterations: 9,
            first_loss: Some(1.5),
            loss: None,
            curve: vec![(1, Some(1.5)), (3, None)],
        };
        let current =
            Current { run_id: "a".into(), started_unix_s: 1200, units: vec![unit], unit_count: 7, evaluated: None };
        let mut live = Live {
            format: 1,
            process: 1,
            started_unix_s: 1000,
            updated_unix_s: 1250,
            stored: 0,
            pending: 6,
            done: 1,
            failed: 1,
            current: Some(current.clone()),
            beside: Vec::new(),
        };
        let shown = Shown::at(&live, 1250);
        // Two cells in 200 s: four more take 400 s, of which 50 s are over.
        assert_eq!((shown.elapsed.as_str(), shown.left.as_deref()), ("4 min", Some("5 min")));
        assert_eq!(shown.running[0].doing, "unit 3 of 7, layer1.0, weights 3 of 9, loss –");
        // Two at a time did 430 s of work for two cells: four more take 860 s, of which 70 s are over, at two a time.
        live.beside = vec![Current { run_id: "b".into(), started_unix_s: 1230, ..current }];
        let shown = Shown::at(&live, 1250);
        assert_eq!((shown.left.as_deref(), shown.running[1].elapsed.as_str()), (Some("6 min"), "20 s"));
        live.beside.clear();
        (live.done, live.failed) = (0, 0);
        assert_eq!(Shown::at(&live, 900).left, None);
        assert_eq!([119, 120, 11_100].map(duration), ["119 s", "2 min", "3 h 5 min"]);
    }
}

//! Where the time of a run goes: spans of the computation, summed by phase and by operation, and in a trace for viewers.
//!
//! On GPUs also how many kernels each phase launches: small networks wait for launches, not for arithmetic.
//!
//! The code marks phases with `tracing::info_span!`, parts of a step with `trace_span!`, and so does every operation of
//! [`ptq::ops`]. Unless a [`Profile`] was started nobody listens, and a span costs one load of an atomic.

use crate::disk::atomic;
use crate::error::{Error, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::json;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Level, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

/// Spans of other crates are not ours to sum.
const OWN: [&str; 2] = [env!("CARGO_CRATE_NAME"), "ptq"];
/// Spans in here are operations; all others are phases and parts of steps, which contain them.
const OPERATIONS: &str = "ptq::ops";
/// Operations and parts of steps that the trace keeps after each beginning of a phase, some ten steps of a unit: all of
/// them would be gigabytes per night.
const DETAILS_PER_PHASE: usize = 500;
/// The same in the whole trace, some 20 MB.
const DETAILS: usize = 200_000;

/// A profile of the whole process, being made.
pub struct Profile(Arc<Mutex<Sums>>);

impl Profile {
    /// Begins to listen; `on_gpu`: whether kernels are launched. Errors: a second profile in this process.
    pub fn start(on_gpu: bool) -> Result<Self> {
        let (listener, sums) = Listener::new();
        if on_gpu {
            lock(&sums).launches = Some(count_launches());
        }
        tracing::subscriber::set_global_default(Registry::default().with(listener))
            .map_err(|_| Error::Usage("a process makes one profile at most".to_string()))?;
        Ok(Self(sums))
    }

    /// Writes what was heard so far to `path` as a trace in Chrome's format, which `https://ui.perfetto.dev` and
    /// `chrome://tracing` open.
    pub fn write_trace(&self, path: &Path) -> Result<()> {
        let text = lock(&self.0).trace().to_string();
        atomic::write(path, text.as_bytes())
    }

    /// Tables of the time per phase and per operation.
    pub fn summary(&self) -> String {
        lock(&self.0).to_string()
    }
}

/// Hears of every span.
struct Listener {
    sums: Arc<Mutex<Sums>>,
    started: Instant,
}

/// What is known so far.
#[derive(Default)]
struct Sums {
    /// A tree, parents before children.
    phases: Vec<OfPhase>,
    operations: BTreeMap<&'static str, Total>,
    spans: Vec<Traced>,
    /// How many more details are kept before the next phase.
    details_left: usize,
    details: usize,
    /// Whether launches of kernels are counted, or why not; `None` where there are none.
    launches: Option<Result<(), &'static str>>,
}

struct OfPhase {
    name: String,
    parent: Option<usize>,
    total: Total,
}

#[derive(Clone, Copy, Default)]
struct Total {
    times: u64,
    time: Duration,
    /// Kernels launched meanwhile.
    launches: u64,
}

impl Total {
    fn add(&mut self, time: Duration, launches: u64) {
        self.times += 1;
        self.time += time;
        self.launches += launches;
    }
}

/// A finished span in the trace.
struct Traced {
    name: Cow<'static, str>,
    thread: u64,
    began: Duration,
    time: Duration,
}

/// What a span remembers of itself.
struct Place {
    kind: Kind,
    /// Its name in the trace.
    shown: Cow<'static, str>,
    is_traced: bool,
    /// When, and after how many launches of its thread.
    entered: Option<(Instant, u64)>,
}

#[derive(Clone, Copy)]
enum Kind {
    /// Of this index.
    Phase(usize),
    Operation(&'static str),
}

/// The fields of a span that name it.
#[derive(Default)]
struct Names {
    /// Tells spans of one kind apart in the trace; they are summed together.
    name: Option<String>,
    /// Takes the place of the span's own name.
    phase: Option<String>,
}

impl Visit for Names {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "name" => self.name = Some(value.to_string()),
            "phase" => self.phase = Some(value.to_string()),
            _ => (),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

impl Listener {
    fn new() -> (Self, Arc<Mutex<Sums>>) {
        let sums: Arc<Mutex<Sums>> = Arc::default();
        (Self { sums: sums.clone(), started: Instant::now() }, sums)
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Listener {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let metadata = attributes.metadata();
        let Some(span) =
            context.span(id).filter(|_| metadata.target().split("::").next().is_some_and(|name| OWN.contains(&name)))
        else {
            return;
        };
        let mut sums = lock(&self.sums);
        let is_traced = sums.keeps(*metadata.level() == Level::TRACE);
        let place = if metadata.target().starts_with(OPERATIONS) {
            let name = metadata.name();
            Place { kind: Kind::Operation(name), shown: name.into(), is_traced, entered: None }
        } else {
            let mut names = Names::default();
            attributes.record(&mut names);
            let mut above = span.scope().skip(1);
            let parent = above.find_map(|span| match span.extensions().get::<Place>()?.kind {
                Kind::Phase(index) => Some(index),
                Kind::Operation(_) => None,
            });
            let own = names.phase.map_or(Cow::Borrowed(metadata.name()), Cow::Owned);
            let phase = sums.phase(parent, &own);
            Place { kind: Kind::Phase(phase), shown: names.name.map_or(own, Cow::Owned), is_traced, entered: None }
        };
        drop(sums);
        span.extensions_mut().insert(place);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(place) = span.extensions_mut().get_mut::<Place>()
        {
            place.entered = Some((Instant::now(), launches()));
        }
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut extensions = span.extensions_mut();
        let Some(place) = extensions.get_mut::<Place>() else { return };
        let Some((entered, launched)) = place.entered.take() else { return };
        let (time, launched) = (entered.elapsed(), launches().saturating_sub(launched));
        let mut sums = lock(&self.sums);
        match place.kind {
            Kind::Phase(index) => sums.phases[index].total.add(time, launched),
            Kind::Operation(name) => sums.operations.entry(name).or_default().add(time, launched),
        }
        if place.is_traced {
            let (name, began) = (place.shown.clone(), entered.duration_since(self.started));
            sums.spans.push(Traced { name, thread: thread_number(), began, time });
        }
    }
}

impl Sums {
    /// Whether the trace keeps a span that begins now.
    fn keeps(&mut self, is_detail: bool) -> bool {
        if !is_detail {
            self.details_left = DETAILS_PER_PHASE.min(DETAILS - self.details);
            return true;
        }
        let keeps = self.details_left > 0;
        if keeps {
            self.details_left -= 1;
            self.details += 1;
        }
        keeps
    }

    /// The phase called `name` below `parent`.
    fn phase(&mut self, parent: Option<usize>, name: &str) -> usize {
        let known = self.phases.iter().position(|phase| phase.parent == parent && phase.name == name);
        known.unwrap_or_else(|| {
            self.phases.push(OfPhase { name: name.to_string(), parent, total: Total::default() });
            self.phases.len() - 1
        })
    }

    /// See "Trace Event Format": complete events (`X`), times in microseconds.
    fn trace(&self) -> serde_json::Value {
        let microseconds = |time: Duration| time.as_nanos() as f64 / 1e3;
        let spans = self.spans.iter().map(|span| {
            json!({
                "ph": "X", "pid": 1, "tid": span.thread, "name": span.name,
                "ts": microseconds(span.began), "dur": microseconds(span.time),
            })
        });
        json!({ "displayTimeUnit": "ms", "traceEvents": spans.collect::<Vec<_>>() })
    }

    /// The phases below `parent` with their depths, in the order in which they first began.
    fn below(&self, parent: Option<usize>, depth: usize, into: &mut Vec<(usize, usize)>) {
        for (index, _) in self.phases.iter().enumerate().filter(|(_, phase)| phase.parent == parent) {
            into.push((depth, index));
            self.below(Some(index), depth + 1, into);
        }
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roots = self.phases.iter().filter(|phase| phase.parent.is_none());
        let all: Duration = roots.map(|phase| phase.total.time).sum();
        let counts = matches!(self.launches, Some(Ok(())));
        let row = |name: String, total: Option<&Total>, time: Duration| {
            let share = 100.0 * time.as_secs_f64() / all.as_secs_f64().max(f64::MIN_POSITIVE);
            let mut row = vec![name, total.map_or(String::new(), |total| total.times.to_string())];
            row.extend([format!("{:.3}", time.as_secs_f64()), format!("{share:.1}")]);
            if counts {
                let each = |total: &Total| format!("{:.1}", total.launches as f64 / total.times.max(1) as f64);
                row.push(total.map_or(String::new(), each));
            }
            row
        };
        let header = |first| {
            let mut header = vec![first, "times", "seconds", "%"];
            header.extend(counts.then_some("kernels each time"));
            header
        };
        let mut order = Vec::new();
        self.below(None, 0, &mut order);
        let phases = order.into_iter().map(|(depth, index)| {
            let OfPhase { name, total, .. } = &self.phases[index];
            row(format!("{:1$}{name}", "", 2 * depth), Some(total), total.time)
        });
        writeln!(f, "{}", table(header("phase"), phases))?;
        let mut operations: Vec<(&&str, &Total)> = self.operations.iter().collect();
        operations.sort_by_key(|(_, total)| std::cmp::Reverse(total.time));
        let in_operations: Duration = operations.iter().map(|(_, total)| total.time).sum();
        let rest = "all else: Candle's own operations, copies, files".to_string();
        let rest = row(rest, None, all.saturating_sub(in_operations));
        let operations = operations.iter().map(|(name, total)| row(name.to_string(), Some(total), total.time));
        write!(f, "{}", table(header("operation"), operations.chain([rest])))?;
        match self.launches {
            Some(Err(problem)) => write!(f, "\nkernels are not counted: {problem}"),
            _ => Ok(()),
        }
    }
}

fn table(header: Vec<&str>, rows: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header).add_rows(rows);
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

/// Begins to count launches of kernels. Errors: why they cannot be counted.
fn count_launches() -> Result<(), &'static str> {
    #[cfg(feature = "cuda")]
    return ptq::ops::cuda::count_launches();
    #[cfg(not(feature = "cuda"))]
    Err("this build knows no GPUs")
}

/// Kernels that this thread has had launched so far.
fn launches() -> u64 {
    #[cfg(feature = "cuda")]
    return ptq::ops::cuda::launches();
    #[cfg(not(feature = "cuda"))]
    0
}

/// A small number for the current thread.
fn thread_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local!(static NUMBER: u64 = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.with(|number| *number)
}

/// What a panicking thread left are still sums.
fn lock(sums: &Mutex<Sums>) -> MutexGuard<'_, Sums> {
    sums.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::{info_span, trace_span};

    #[test]
    fn spans_are_summed_by_place_and_traced_by_name() {
        let (listener, sums) = Listener::new();
        tracing::subscriber::with_default(Registry::default().with(listener), || {
            let _cell = info_span!("cell", name = %"resnet20-w2a2").entered();
            for unit in ["stem", "layer1.0"] {
                let _unit = info_span!("unit", name = unit).entered();
                let _train = info_span!("train", phase = "weights").entered();
                for _ in 0..DETAILS_PER_PHASE {
                    trace_span!("forward").in_scope(|| {
                        trace_span!(target: "ptq::ops::relu", "relu").in_scope(std::thread::yield_now);
                    });
                }
                info_span!(target: "hyper::client", "other").in_scope(|| ());
            }
        });
        let sums = lock(&sums);
        let phases: Vec<_> = sums.phases.iter().map(|p| (p.name.as_str(), p.parent, p.total.times)).collect();
        let steps = 2 * DETAILS_PER_PHASE as u64;
        assert_eq!(
            phases,
            [("cell", None, 1), ("unit", Some(0), 2), ("weights", Some(1), 2), ("forward", Some(2), steps)]
        );
        assert_eq!(sums.operations["relu"].times, steps);
        assert!(sums.operations["relu"].time <= sums.phases[3].total.time);
        let trace = sums.trace();
        let named = |name: &str| trace["traceEvents"].as_array().unwrap().iter().filter(|e| e["name"] == name).count();
        assert_eq!(["resnet20-w2a2", "stem", "layer1.0", "weights", "other"].map(named), [1, 1, 1, 2, 0]);
        assert_eq!(named("forward") + named("relu"), 2 * DETAILS_PER_PHASE);
        let text = sums.to_string();
        assert!(text.contains("\n     weights") && text.contains("relu") && text.contains("all else"), "{text}");
        assert!(!text.contains("kernels"), "{text}");
    }

    #[test]
    fn kernels_are_those_of_one_time() {
        let mut sums = Sums { launches: Some(Ok(())), ..Sums::default() };
        let step = sums.phase(None, "step");
        for launches in [30, 34] {
            sums.phases[step].total.add(Duration::from_secs(1), launches);
        }
        sums.operations.entry("relu").or_default().add(Duration::from_secs(1), 3);
        let text = sums.to_string();
        let row = |name: &str| text.lines().find(|line| line.contains(name)).unwrap().split_whitespace().last();
        assert_eq!((row("step"), row("relu"), row("phase")), (Some("32.0"), Some("3.0"), Some("time")), "{text}");
        let uncounted = Sums { launches: Some(Err("nobody tells")), ..sums }.to_string();
        assert!(uncounted.ends_with("\nkernels are not counted: nobody tells"), "{uncounted}");
        assert!(!uncounted.contains("32.0"), "{uncounted}");
    }

    #[test]
    fn the_trace_stays_bounded() {
        let mut sums = Sums::default();
        let mut kept = 0;
        for _ in 0..2 * DETAILS / DETAILS_PER_PHASE {
            assert!(sums.keeps(false));
            kept += (0..2 * DETAILS_PER_PHASE).filter(|_| sums.keeps(true)).count();
        }
        assert_eq!(kept, DETAILS);
    }
}

//! Where all processes are, and what may happen next.

mod replay;

pub use replay::Replay;

use super::RUN;
use crate::error::Result;
use crate::store::claims::{Asked, Dead, Owner, release};
use replay::{Answer, Content, Name, Step};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// The name of the record among what a machine remembers.
const RECORD: &str = "record";

/// Where a process is in `launch::grid`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum At {
    /// `Grid::claim`: `is_over`, `ask`, `is_over_now`; `true` where `Grid::keep` calls it.
    Look(bool),
    Ask(bool),
    LookAgain(bool),
    /// The launcher.
    Make,
    /// `Grid::keep`: `write_run`, then `release`.
    Store,
    Release,
    /// On to other runs, and then gone.
    Over,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Life {
    Running,
    /// For long enough to count as dead.
    Still,
    /// Goes on, and has not beaten yet.
    Waking,
    /// Ended by itself.
    Gone,
    Dead,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Process {
    at: At,
    life: Life,
    /// Of the call that it is in.
    answers: Vec<Answer>,
    /// Of its claims, when that began.
    count: u64,
    /// Names that its machine may still believe not to be there.
    absent: BTreeSet<Name>,
}

/// What may still go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Faults {
    pub deaths: u8,
    pub stops: u8,
    pub memories: u8,
    pub lost_replies: u8,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct State {
    files: BTreeMap<Name, Content>,
    stored: u8,
    processes: Vec<Process>,
    faults: Faults,
}

/// What made a state of another: of which process.
#[derive(Clone, Copy)]
pub struct Turn {
    process: u8,
    pub kind: Kind,
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.process, self.kind)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Step(At),
    Stops,
    Wakes,
    Dies,
}

impl Kind {
    /// Whether it is one that processes get to by themselves.
    pub fn is_own(self) -> bool {
        matches!(self, Kind::Step(_) | Kind::Wakes)
    }
}

pub type Ask = fn(&Replay, (&Owner, &AtomicU64), &str, Dead) -> Result<Asked>;

/// What is tried: the protocol as it is, unless it is one that must be found out.
#[derive(Clone, Copy)]
pub struct Protocol {
    pub ask: Ask,
    /// A `link` that does what a write or a rename does.
    pub overwrites: bool,
    /// Looking anew that does nothing.
    pub remembers: bool,
}

impl Process {
    fn new() -> Self {
        Self { at: At::Look(false), life: Life::Running, answers: Vec::new(), count: 0, absent: BTreeSet::new() }
    }

    fn is_about_to_store(&self) -> bool {
        matches!(self.at, At::LookAgain(true) | At::Store)
    }

    fn is_there(&self) -> bool {
        !matches!(self.life, Life::Gone | Life::Dead)
    }

    /// Whether it may stand still.
    fn may_stop(&self) -> bool {
        !self.is_about_to_store() && self.at != At::Release
    }

    fn to(mut self, at: At) -> Self {
        (self.at, self.answers) = (at, Vec::new());
        self
    }
}

fn me(index: usize) -> Owner {
    Owner { owner: format!("p{index}"), host: String::new(), boot: String::new(), process: 0, claim: 0 }
}

/// Whether two processes are on one machine.
fn are_together(one: usize, other: usize) -> bool {
    one.min(other) >= 1
}

impl State {
    pub fn new(processes: usize, faults: Faults) -> Self {
        Self { files: BTreeMap::new(), stored: 0, processes: vec![Process::new(); processes], faults }
    }

    /// The same after process 0 has got the run, alone, and is making it.
    pub fn after_first_claim(mut self, protocol: Protocol) -> Self {
        while self.processes[0].at != At::Make {
            self = self.steps(0, protocol).remove(0);
        }
        self
    }

    fn with(&self, index: usize, process: Process) -> Self {
        let mut state = self.clone();
        state.processes[index] = process;
        state
    }

    /// What process `index` may have done after its next step, whoever else waits; nothing if it has none.
    fn steps(&self, index: usize, protocol: Protocol) -> Vec<State> {
        let process = &self.processes[index];
        let to = |at| self.with(index, process.clone().to(at));
        match (process.life, process.at) {
            (Life::Gone | Life::Dead | Life::Still, _) => Vec::new(),
            // It beats after this step at the latest; until then others may still take it for dead.
            (Life::Waking, _) => {
                self.with(index, Process { life: Life::Running, ..process.clone() }).steps(index, protocol)
            }
            (_, At::Over) => vec![self.with(index, Process { life: Life::Gone, ..process.clone() })],
            (_, At::Look(again)) => self.look(index, At::Ask(again)),
            (_, At::LookAgain(again)) => {
                let after = if again { At::Store } else { At::Make };
                let mut anew = process.clone();
                if !protocol.remembers {
                    anew.absent.remove(RECORD);
                }
                let looked = self.with(index, anew).look(index, after);
                // A run that is over is given back.
                let given_back = |mut state: State| {
                    if state.processes[index].at == At::Over {
                        state.processes[index].at = At::Release;
                    }
                    state
                };
                looked.into_iter().map(given_back).collect()
            }
            // Whoever stores meanwhile is faster.
            (_, At::Make) if self.processes.iter().any(|other| other.is_there() && other.is_about_to_store()) => {
                Vec::new()
            }
            (_, At::Make) => vec![to(At::Look(true))],
            (_, At::Store) => vec![State { stored: self.stored + 1, ..to(At::Release) }],
            (_, At::Ask(_) | At::Release) => self.call(index, protocol),
        }
    }

    /// The look whether the run is over.
    fn look(&self, index: usize, otherwise: At) -> Vec<State> {
        let process = &self.processes[index];
        let mut absent = process.clone().to(otherwise);
        absent.absent.insert(RECORD.into());
        let mut all = Vec::new();
        if self.stored > 0 {
            let mut seen = process.clone().to(At::Over);
            seen.absent.remove(RECORD);
            all.push(self.with(index, seen));
        }
        if self.stored == 0 {
            all.push(self.with(index, absent));
        } else if process.absent.contains(RECORD) && self.faults.memories > 0 {
            let mut state = self.with(index, absent);
            state.faults.memories -= 1;
            all.push(state);
        }
        all
    }

    /// The next step of the real code that process `index` is in.
    fn call(&self, index: usize, protocol: Protocol) -> Vec<State> {
        let (_, step) = self.processes[index].advanced(index, protocol);
        let answered = step.map_or(Vec::new(), |step| self.answered(index, step, protocol));
        // Where that was the last one, the process is beyond the call. Nobody else notices that it looks anew.
        let advanced = |mut state: State| {
            loop {
                let (process, step) = state.processes[index].advanced(index, protocol);
                state.processes[index] = process;
                let Some(step @ Step::LookAnew) = step else { break };
                state = state.answered(index, step, protocol).remove(0);
            }
            if state.faults.memories == 0 {
                state.processes.iter_mut().for_each(|process| process.absent.clear());
            }
            state
        };
        answered.into_iter().map(advanced).collect()
    }

    /// `step`, with all that may come of it.
    fn answered(&self, index: usize, step: Step, protocol: Protocol) -> Vec<State> {
        let mut all = Vec::new();
        let mut add = |mut state: State, answer: Answer| {
            state.processes[index].answers.push(answer);
            all.push(state);
        };
        let mut state = self.clone();
        let absent = &mut state.processes[index].absent;
        match step {
            Step::Read(name) => match self.files.get(&name) {
                None => {
                    absent.insert(name);
                    add(state, Answer::Read(None));
                }
                Some(content) => {
                    if absent.remove(&name) && self.faults.memories > 0 {
                        let mut wrong = self.clone();
                        wrong.faults.memories -= 1;
                        add(wrong, Answer::Read(None));
                    }
                    add(state, Answer::Read(Some(content.clone())));
                }
            },
            Step::Link(name, content) => {
                forget(absent, protocol);
                if self.files.contains_key(&name) && !protocol.overwrites {
                    add(state, Answer::Is(false));
                } else {
                    state.files.insert(name, content);
                    if self.faults.lost_replies > 0 {
                        let mut lost = state.clone();
                        lost.faults.lost_replies -= 1;
                        add(lost, Answer::Is(false));
                    }
                    add(state, Answer::Is(true));
                }
            }
            Step::Remove(name) => {
                state.files.remove(&name);
                add(state, Answer::Done);
            }
            Step::LookAnew => {
                forget(absent, protocol);
                add(state, Answer::Done);
            }
            Step::IsDead(owner) => {
                let whose = (0..self.processes.len()).find(|other| me(*other).owner == *owner).unwrap();
                let life = self.processes[whose].life;
                let seems = match are_together(index, whose) {
                    true => !self.processes[whose].is_there(),
                    false => life != Life::Running,
                };
                add(state, Answer::Is(seems));
            }
        }
        all
    }

    /// All that may happen next, with what it is.
    pub fn turns(&self, protocol: Protocol) -> Vec<(State, Turn)> {
        let mut all = Vec::new();
        for (index, process) in self.processes.iter().enumerate() {
            let mut add = |state: State, kind: Kind| all.push((state, Turn { process: index as u8, kind }));
            for state in self.steps(index, protocol) {
                add(state, Kind::Step(process.at));
            }
            let mut becomes = |life, kind: Kind, fault: fn(&mut Faults) -> Option<&mut u8>| {
                let mut state = self.with(index, Process { life, ..process.clone() });
                match fault(&mut state.faults) {
                    Some(0) => {}
                    left => {
                        left.into_iter().for_each(|left| *left -= 1);
                        add(state, kind);
                    }
                }
            };
            if process.life == Life::Still {
                becomes(Life::Waking, Kind::Wakes, |_| None);
            }
            if process.at != At::Over && process.is_there() {
                becomes(Life::Dead, Kind::Dies, |faults| Some(&mut faults.deaths));
                if process.life == Life::Running && process.may_stop() {
                    becomes(Life::Still, Kind::Stops, |faults| Some(&mut faults.stops));
                }
            }
        }
        all
    }

    pub fn problem(&self) -> Option<&'static str> {
        if self.stored > 1 {
            return Some("stored twice");
        }
        if self.stored == 0 && self.processes.iter().any(|process| process.at == At::Over) {
            return Some("taken for over and not stored");
        }
        let about = self.processes.iter().filter(|process| process.is_there() && process.is_about_to_store());
        (about.count() > 1).then_some("two are about to store")
    }

    /// Whether nobody has anything left to do.
    pub fn is_ended(&self) -> bool {
        !self.processes.iter().any(Process::is_there)
    }
}

/// What the server's answer to a change tells a machine of the folder.
fn forget(absent: &mut BTreeSet<Name>, protocol: Protocol) {
    if !protocol.remembers {
        absent.retain(|name| **name == *RECORD);
    }
}

impl Process {
    /// The process after the call that it is in, if that needs no answer any more, and the question that it has otherwise.
    fn advanced(&self, index: usize, protocol: Protocol) -> (Process, Option<Step>) {
        let files = Replay { answers: &self.answers, given: Cell::new(0), next: RefCell::new(None) };
        let count = AtomicU64::new(self.count);
        let next = match self.at {
            At::Release => release(&files, &me(index), RUN).ok().map(|()| At::Over),
            At::Ask(again) => {
                let dead = if again { Dead::Remain } else { Dead::AreSucceeded };
                (protocol.ask)(&files, (&me(index), &count), RUN, dead).ok().map(|asked| match asked {
                    Asked::Granted => At::LookAgain(again),
                    Asked::Owned(_) => At::Look(false),
                })
            }
            _ => None,
        };
        match files.next.into_inner() {
            Some(step) => (self.clone(), Some(step)),
            None => {
                let process = next.map_or(self.clone(), |at| self.clone().to(at));
                (Process { count: count.load(Ordering::Relaxed), ..process }, None)
            }
        }
    }
}

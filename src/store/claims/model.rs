//! Every order in which processes can take the steps of the protocol, tried out.
//!
//! The code that asks and releases is the real one, behind [`Files`]: to find out what a process does next it is called with the answers that it
//! has had so far, and the first question beyond them is its next step. What `launch::grid` does around it is [`At`]: the look whether the run is
//! over and the claim of `claim`, the making, the same again and the storing of `keep`. Between two steps of one process any of the others may take
//! any number; any may die, or stand still until it counts as dead and go on; a machine may remember that a name is not there ([`Files::read`]), and the
//! reply to a `link` may be lost. Processes 0 and 1 are on machines of their own, 2 is on that of 1, where its death shows at once and nothing else does.
//!
//! In no order are two about to store the run, or is it stored twice; and from wherever it may have got, those that live can end it.

use super::files::Files;
use super::{Asked, Dead, Owner, ask, chain, first, release};
use crate::error::{Error, Result};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

const RUN: &str = "run";
/// The name of the record among what a machine remembers.
const RECORD: &str = "record";

type Name = Rc<str>;
type Content = Rc<[u8]>;

/// A step on the files, as the protocol asks for it.
#[derive(Clone)]
enum Step {
    Read(Name),
    Link(Name, Content),
    Remove(Name),
    LookAnew,
    IsDead(Name),
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Answer {
    Read(Option<Content>),
    Is(bool),
    Done,
}

/// Gives the answers that there are, and keeps the question after them.
struct Replay<'a> {
    answers: &'a [Answer],
    given: Cell<usize>,
    next: RefCell<Option<Step>>,
}

impl Replay<'_> {
    fn answer(&self, step: Step) -> Result<Answer> {
        let given = self.given.get();
        if let (Some(answer), None) = (self.answers.get(given), &*self.next.borrow()) {
            self.given.set(given + 1);
            return Ok(answer.clone());
        }
        self.next.borrow_mut().get_or_insert(step);
        Err(Error::Usage("not answered yet".into()))
    }

    fn is(&self, step: Step) -> Result<bool> {
        Ok(self.answer(step)? == Answer::Is(true))
    }
}

impl Files for Replay<'_> {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match self.answer(Step::Read(name.into()))? {
            Answer::Read(content) => Ok(content.map(|content| content.to_vec())),
            _ => panic!("an answer to another question"),
        }
    }

    fn link(&self, name: &str, content: &[u8]) -> Result<bool> {
        self.is(Step::Link(name.into(), content.into()))
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.answer(Step::Remove(name.into())).map(drop)
    }

    fn look_anew(&self) -> Result<()> {
        self.answer(Step::LookAnew).map(drop)
    }

    fn is_dead(&self, owner: &Owner) -> Result<bool> {
        self.is(Step::IsDead(owner.owner.as_str().into()))
    }
}

/// Where a process is in `launch::grid`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum At {
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
enum Life {
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
struct Process {
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
struct Faults {
    deaths: u8,
    stops: u8,
    memories: u8,
    lost_replies: u8,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    files: BTreeMap<Name, Content>,
    stored: u8,
    processes: Vec<Process>,
    faults: Faults,
}

/// What made a state of another: of which process.
#[derive(Clone, Copy)]
struct Turn {
    process: u8,
    kind: Kind,
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.process, self.kind)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Step(At),
    Stops,
    Wakes,
    Dies,
}

impl Kind {
    /// Whether it is one that processes get to by themselves.
    fn is_own(self) -> bool {
        matches!(self, Kind::Step(_) | Kind::Wakes)
    }
}

type Ask = fn(&Replay, (&Owner, &AtomicU64), &str, Dead) -> Result<Asked>;

/// What is tried: the protocol as it is, unless it is one that must be found out.
#[derive(Clone, Copy)]
struct Protocol {
    ask: Ask,
    /// A `link` that does what a write or a rename does.
    overwrites: bool,
    /// Looking anew that does nothing.
    remembers: bool,
}

const REAL: Protocol = Protocol { ask: ask_as_it_is, overwrites: false, remembers: false };

fn ask_as_it_is(files: &Replay, me: (&Owner, &AtomicU64), run_id: &str, dead: Dead) -> Result<Asked> {
    ask(files, me, run_id, dead)
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
    fn new(processes: usize, faults: Faults) -> Self {
        Self { files: BTreeMap::new(), stored: 0, processes: vec![Process::new(); processes], faults }
    }

    /// The same after process 0 has got the run, alone, and is making it.
    fn after_first_claim(mut self) -> Self {
        while self.processes[0].at != At::Make {
            self = self.steps(0, REAL).remove(0);
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
    fn turns(&self, protocol: Protocol) -> Vec<(State, Turn)> {
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

    fn problem(&self) -> Option<&'static str> {
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
    fn is_ended(&self) -> bool {
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

/// How many states there are, those after fewer turns first. Errors: what is wrong with one of them, and how it came to that.
fn explore(start: State, protocol: Protocol) -> Result<usize, String> {
    let hash = |state: &State| {
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        hasher.finish()
    };
    let mut known = HashMap::from([(hash(&start), 0u32)]);
    // Of each state: that which it was first made of, and those from which living processes get to it by themselves.
    let (mut made, mut before) = (vec![None], vec![Vec::new()]);
    let (mut ended, mut left) = (Vec::new(), VecDeque::from([(start, 0u32)]));
    while let Some((state, number)) = left.pop_front() {
        if let Some(problem) = state.problem() {
            return Err(format!("{problem}: {:?}", way(&made, number)));
        }
        if state.is_ended() {
            ended.push(number);
        }
        for (next, turn) in state.turns(protocol) {
            let number_of_next = *known.entry(hash(&next)).or_insert_with(|| {
                let new = made.len() as u32;
                made.push(Some((number, turn)));
                before.push(Vec::new());
                left.push_back((next, new));
                new
            });
            if turn.kind.is_own() {
                before[number_of_next as usize].push(number);
            }
        }
    }
    let mut ends = vec![false; before.len()];
    while let Some(number) = ended.pop() {
        if !std::mem::replace(&mut ends[number as usize], true) {
            ended.extend(&before[number as usize]);
        }
    }
    match ends.iter().position(|ends| !ends) {
        Some(number) => Err(format!("no way to an end: {:?}", way(&made, number as u32))),
        None => Ok(before.len()),
    }
}

/// The turns from the start to state `number`.
fn way(made: &[Option<(u32, Turn)>], number: u32) -> Vec<Turn> {
    let mut turns: Vec<Turn> =
        std::iter::successors(made[number as usize], |(from, _)| made[*from as usize]).map(|(_, turn)| turn).collect();
    turns.reverse();
    turns
}

fn faults(deaths: u8, stops: u8, memories: u8, lost_replies: u8) -> Faults {
    Faults { deaths, stops, memories, lost_replies }
}

#[test]
fn in_no_order_do_two_end_one_run_or_is_it_lost() {
    let mut all = 0;
    for start in [
        State::new(2, faults(1, 0, 0, 0)),
        State::new(2, faults(0, 1, 1, 1)),
        State::new(2, faults(0, 2, 0, 0)).after_first_claim(),
        State::new(2, faults(1, 1, 1, 0)).after_first_claim(),
        State::new(3, faults(1, 0, 0, 0)).after_first_claim(),
        State::new(3, faults(0, 1, 0, 0)).after_first_claim(),
    ] {
        all += explore(start, REAL).unwrap();
    }
    // Fewer would be a model in which nothing happens.
    assert!(all > 100_000, "{all} states");
}

/// As it was: a process that finds its own claim takes it for the last one.
fn ask_before(files: &Replay, (me, count): (&Owner, &AtomicU64), run_id: &str, dead: Dead) -> Result<Asked> {
    match chain(files, run_id)?.iter().any(|(_, owner)| owner.is_same_process(me)) {
        true => Ok(Asked::Granted),
        false => ask(files, (me, count), run_id, dead),
    }
}

/// Whoever stores may succeed a dead owner, as whoever begins.
fn ask_alike(files: &Replay, me: (&Owner, &AtomicU64), run_id: &str, _dead: Dead) -> Result<Asked> {
    ask(files, me, run_id, Dead::AreSucceeded)
}

/// Takes a dead owner's claim away, to make the first one anew.
fn ask_by_removing(files: &Replay, (me, count): (&Owner, &AtomicU64), run_id: &str, _dead: Dead) -> Result<Asked> {
    loop {
        match chain(files, run_id)?.pop() {
            Some((_, last)) if last.is_same_process(me) => return Ok(Asked::Granted),
            Some((_, last)) if !files.is_dead(&last)? => return Ok(Asked::Owned(last)),
            Some((place, _)) => files.remove(&place)?,
            None => {}
        }
        let claim = Owner { claim: count.fetch_add(1, Ordering::Relaxed), ..me.clone() };
        files.link(&first(run_id), &serde_json::to_vec(&claim).unwrap())?;
    }
}

#[test]
fn what_is_wrong_with_other_protocols_is_found() {
    let two = |stops, memories| State::new(2, faults(0, stops, memories, 0));
    for (name, protocol, start) in [
        ("a claim that is written over", Protocol { overwrites: true, ..REAL }, two(0, 0)),
        ("memories that are trusted", Protocol { remembers: true, ..REAL }, two(1, 2).after_first_claim()),
        ("one's own claim, taken for the last", Protocol { ask: ask_before, ..REAL }, two(1, 0).after_first_claim()),
        (
            "a successor that stores what it made before",
            Protocol { ask: ask_alike, ..REAL },
            two(2, 0).after_first_claim(),
        ),
        (
            "taking over by removing",
            Protocol { ask: ask_by_removing, ..REAL },
            State::new(3, faults(1, 0, 0, 0)).after_first_claim(),
        ),
    ] {
        let found = explore(start, protocol);
        assert!(found.is_err_and(|problem| problem.starts_with("two are about to store")), "{name}");
    }
}

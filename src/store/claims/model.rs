//! Every order in which processes can take the steps of the protocol, tried out.
//!
//! The code that asks and releases is the real one, behind [`Files`]: to find out what a process does next it is called with the answers that it
//! has had so far, and the first question beyond them is its next step. What `launch::grid` does around it is `state::At`: the look whether the run is
//! over and the claim of `claim`, the making, the same again and the storing of `keep`. Between two steps of one process any of the others may take
//! any number; any may die, or stand still until it counts as dead and go on; a machine may remember that a name is not there ([`Files::read`]), and the
//! reply to a `link` may be lost. Processes 0 and 1 are on machines of their own, 2 is on that of 1, where its death shows at once and nothing else does.
//!
//! In no order are two about to store the run, or is it stored twice; and from wherever it may have got, those that live can end it.

mod state;

use super::files::Files;
use super::{Asked, Dead, Owner, ask, chain, first};
use crate::error::Result;
use state::{Faults, Protocol, Replay, State, Turn};
use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

const RUN: &str = "run";

const REAL: Protocol = Protocol { ask: ask_as_it_is, overwrites: false, remembers: false };

fn ask_as_it_is(files: &Replay, me: (&Owner, &AtomicU64), run_id: &str, dead: Dead) -> Result<Asked> {
    ask(files, me, run_id, dead)
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
        State::new(2, faults(0, 2, 0, 0)).after_first_claim(REAL),
        State::new(2, faults(1, 1, 1, 0)).after_first_claim(REAL),
        State::new(3, faults(1, 0, 0, 0)).after_first_claim(REAL),
        State::new(3, faults(0, 1, 0, 0)).after_first_claim(REAL),
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
        ("memories that are trusted", Protocol { remembers: true, ..REAL }, two(1, 2).after_first_claim(REAL)),
        (
            "one's own claim, taken for the last",
            Protocol { ask: ask_before, ..REAL },
            two(1, 0).after_first_claim(REAL),
        ),
        (
            "a successor that stores what it made before",
            Protocol { ask: ask_alike, ..REAL },
            two(2, 0).after_first_claim(REAL),
        ),
        (
            "taking over by removing",
            Protocol { ask: ask_by_removing, ..REAL },
            State::new(3, faults(1, 0, 0, 0)).after_first_claim(REAL),
        ),
    ] {
        let found = explore(start, protocol);
        assert!(found.is_err_and(|problem| problem.starts_with("two are about to store")), "{name}");
    }
}

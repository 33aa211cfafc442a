//! The files as a process sees them that has had some answers: the first question beyond them is its next step.

use crate::error::{Error, Result};
use crate::store::claims::Owner;
use crate::store::claims::files::Files;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

pub type Name = Rc<str>;
pub type Content = Rc<[u8]>;

/// A step on the files, as the protocol asks for it.
#[derive(Clone)]
pub enum Step {
    Read(Name),
    Link(Name, Content),
    Remove(Name),
    LookAnew,
    IsDead(Name),
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Answer {
    Read(Option<Content>),
    Is(bool),
    Done,
}

/// Gives the answers that there are, and keeps the question after them.
pub struct Replay<'a> {
    pub answers: &'a [Answer],
    pub given: Cell<usize>,
    pub next: RefCell<Option<Step>>,
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

//! Revisions of everything that computes a cell: the method's, and those of the modules that the cell uses.

use super::cell::Cell;
use crate::data;
use ptq::methods;
use ptq::revisions::{Module, used};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The revisions that a result was, or would be, computed with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revisions {
    /// Of the method; 0 if there is none of that name.
    pub method: u32,
    /// Of the modules that the cell uses, by name. One that is not named is at revision 1: so are all in runs from before
    /// modules had revisions.
    pub modules: BTreeMap<String, u32>,
}

/// A revision in which two results differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// `the method`, or a module.
    pub of: String,
    pub then: u32,
    pub now: u32,
}

impl Revisions {
    /// Those of this harness.
    pub fn of(cell: &Cell) -> Self {
        let modules = used(&cell.recipe, !cell.augment.is_empty(), cell.transform.is_some()).chain([data::MODULE]);
        Self {
            method: methods::find(&cell.method).map_or(0, |method| method.revision),
            modules: modules.map(|module| (module.name.to_string(), module.revision)).collect(),
        }
    }

    /// The modules that are not at their first revision, which is nothing to identify a run by.
    pub fn raised(&self) -> impl Iterator<Item = (&str, u32)> {
        self.modules.iter().filter(|(_, revision)| **revision != 1).map(|(name, revision)| (name.as_str(), *revision))
    }

    /// In what `now` differs from these.
    pub fn differences(&self, now: &Self) -> Vec<Difference> {
        let revision = |revisions: &Self, name: &str| revisions.modules.get(name).copied().unwrap_or(1);
        let names: BTreeSet<&str> = self.modules.keys().chain(now.modules.keys()).map(String::as_str).collect();
        let of_modules = names.into_iter().map(|name| (name, revision(self, name), revision(now, name)));
        std::iter::once(("the method", self.method, now.method))
            .chain(of_modules)
            .filter(|(_, then, now)| then != now)
            .map(|(of, then, now)| Difference { of: of.to_string(), then, now })
            .collect()
    }
}

impl fmt::Display for Revisions {
    /// `2`, of the method, or `2, ops 3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.method)?;
        self.raised().try_for_each(|(name, revision)| write!(f, ", {name} {revision}"))
    }
}

/// What the key of a remembered result says of the modules that compute it: a line for each that is not at its first revision.
pub fn in_key(modules: &[Module]) -> String {
    let raised = modules.iter().filter(|module| module.revision != 1);
    raised.map(|module| format!("{} {}\n", module.name, module.revision)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::Record;
    use ptq::revisions::{META, OPS};

    fn revisions(method: u32, modules: &[(&str, u32)]) -> Revisions {
        Revisions { method, modules: modules.iter().map(|(name, revision)| (name.to_string(), *revision)).collect() }
    }

    #[test]
    fn a_cell_names_what_it_uses() {
        let of = |method: &str| {
            let revisions = Revisions::of(&Record::sample("x", method, "W2A2", 0).cell);
            revisions.modules.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(of("rtn"), ["data", "ops", "quant"]);
        assert_eq!(of("qdrop"), ["data", "ops", "quant", "recon"]);
    }

    #[test]
    fn a_module_that_is_not_named_is_at_its_first_revision() {
        let old = revisions(2, &[]);
        assert_eq!(old.differences(&revisions(2, &[("ops", 1), ("recon", 1)])), []);
        let differences = old.differences(&revisions(3, &[("ops", 1), ("recon", 4)]));
        let expected = [("the method", 2, 3), ("recon", 1, 4)];
        assert_eq!(differences, expected.map(|(of, then, now)| Difference { of: of.to_string(), then, now }));
        assert_eq!(revisions(2, &[("gone", 3)]).differences(&old)[0].now, 1);
        assert_eq!(revisions(2, &[("ops", 1), ("recon", 4)]).to_string(), "2, recon 4");
    }

    #[test]
    fn keys_say_what_is_raised() {
        assert_eq!(in_key(&[OPS, Module { revision: 3, ..META }]), "meta 3\n");
    }
}

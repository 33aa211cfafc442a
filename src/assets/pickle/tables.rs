//! The tables of tensors in what a checkpoint's pickle describes, and which of them is meant.
//!
//! A *table* is a dictionary with tensors under names. It is a table of *weights* if one of these names is `weight` or ends with
//! `.weight`: accuracies, images' means and what a scaler keeps are none. Nothing is looked for under `optimizer` or other
//! names that begin with `optim`.

use super::machine::{Id, Object, Pickle};
use super::tensor::Described;
use std::collections::{HashMap, HashSet, VecDeque};

/// Where training scripts put weights. A table under one of these counts even if nothing in it is called `weight`.
pub(super) const KNOWN: [&str; 6] = ["state_dict", "model", "model_state_dict", "ema", "state_dict_ema", "model_ema"];
/// The name of a file that is a table itself, without a dictionary around it.
const WHOLE: &str = ".";
/// How many dictionaries may be around a table.
const DEPTH: usize = 4;
/// Bytes of the longest name of a tensor. Names are copied too, as often as they are used.
const LONGEST_NAME: usize = 1 << 10;
/// Tables that an error lists.
const LISTED: usize = 8;

/// A dictionary with tensors.
pub(super) struct Table {
    /// The keys that lead to it, with `/` between them; [`WHOLE`] for none.
    pub name: String,
    pub tensors: HashMap<String, Described>,
}

impl Table {
    fn holds_weights(&self) -> bool {
        self.tensors.keys().any(|name| name == "weight" || name.ends_with(".weight"))
    }

    fn is_known(&self) -> bool {
        self.name.rsplit('/').next().is_some_and(|key| KNOWN.contains(&key))
    }
}

/// The table called `wanted` (or the only one under that name), or the only table of weights; `spec` is how the file is
/// named in a grid, for messages.
///
/// Errors: no tensors; several tables and none wanted; none of that name.
pub(super) fn chosen(pickle: &Pickle, wanted: Option<&str>, spec: &str) -> Result<Table, String> {
    let all = tables(pickle);
    if all.is_empty() {
        let known = KNOWN.join(", ");
        return Err(format!("holds no tensors, neither itself nor in a dictionary under a name such as {known}"));
    }
    let candidates: Vec<Table> = match wanted {
        Some(wanted) => {
            let wanted = wanted.trim_matches('/');
            match all.iter().position(|table| table.name == wanted) {
                Some(position) => all.into_iter().skip(position).take(1).collect(),
                None => {
                    let listed = listing(&all);
                    let inside =
                        |table: &Table| table.name.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('/'));
                    let found: Vec<Table> = all.into_iter().filter(inside).collect();
                    if found.is_empty() {
                        return Err(format!("has no table of tensors {wanted:?}; it has {listed}"));
                    }
                    found
                }
            }
        }
        None => of_weights(all),
    };
    <[Table; 1]>::try_from(candidates).map(|[table]| table).map_err(|candidates| {
        format!(
            "holds several tables of weights: {}; name the one that is meant behind the path, for example \
             weights = \"{spec}#{}\"",
            listing(&candidates),
            candidates[0].name
        )
    })
}

/// Those that may be meant where none is named: tables of weights, else those under known names, else all.
fn of_weights(tables: Vec<Table>) -> Vec<Table> {
    let (weights, others): (Vec<Table>, Vec<Table>) = tables.into_iter().partition(Table::holds_weights);
    if !weights.is_empty() {
        return weights;
    }
    let (known, others): (Vec<Table>, Vec<Table>) = others.into_iter().partition(Table::is_known);
    if known.is_empty() { others } else { known }
}

fn listing(tables: &[Table]) -> String {
    let listed: Vec<String> =
        tables.iter().take(LISTED).map(|table| format!("{} ({} tensors)", table.name, table.tensors.len())).collect();
    let rest = tables.len() - listed.len();
    listed.join(", ") + &if rest > 0 { format!(" and {rest} more") } else { String::new() }
}

/// All tables, the outer ones first. One that is stored under two names is found under the first.
fn tables(pickle: &Pickle) -> Vec<Table> {
    let mut found = Vec::new();
    let mut seen = HashSet::from([pickle.root]);
    let mut waiting: VecDeque<(Id, Vec<&str>)> = VecDeque::from([(pickle.root, Vec::new())]);
    while let Some((id, keys)) = waiting.pop_front() {
        let Object::Dict(entries) = pickle.get(id) else { continue };
        let mut tensors = HashMap::new();
        for (key, value) in entries {
            let Object::Text(key) = pickle.get(*key) else { continue };
            if key.len() > LONGEST_NAME {
                continue;
            }
            match pickle.get(*value) {
                Object::Dict(_) if keys.len() < DEPTH && !key.starts_with("optim") && seen.insert(*value) => {
                    waiting.push_back((*value, keys.iter().copied().chain([key.as_str()]).collect()));
                }
                // As in Python, the last of a name counts.
                _ => tensors.extend(Described::of(pickle, *value).map(|tensor| (key.clone(), tensor))),
            }
        }
        if !tensors.is_empty() {
            let name = if keys.is_empty() { WHOLE.to_string() } else { keys.join("/") };
            found.push(Table { name, tensors });
        }
    }
    found
}

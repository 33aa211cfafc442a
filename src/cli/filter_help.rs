//! The filter language, as `harness help list` describes it.

use crate::experiment::filter::run_predicates;

const LANGUAGE: &str = "\
Filters:
  arch(resnet*) & bits(w2a2 | w2a4) & not status(failed)

  method(qdrop | genie-*)       either value; * is any characters, capitals do not count
  method(=genie-m)              exactly this text
  run(/-s[0-4]-/)               a regular expression
  seed(>=1)  test(<80%)         numbers; fractions also as percent
  started(>=2026-11-20)         times (UTC), or the beginning of one
  tag(*)  not tag(*)            has any; has none
  & | ! ( )  and  or  not       all() and none() select everything and nothing
  error(\"*(NaN)*\")              quotes around a value with one of ( ) | & , in it

  Fields of a cell: arch, weights, dataset, bits, method, variant, setting, calib-images, seed, augment, recipe.KEY, transform.KEY, meta.KEY, terms.KEY, as `harness show` prints
  them.
  Of a run:
";

/// The language and what filters know of runs.
pub fn filter_help() -> String {
    run_predicates().fold(LANGUAGE.to_string(), |text, (name, _, about)| text + &format!("    {name:15} {about}\n"))
}

//! Whether a record can be true: one that was changed by hand, or damaged so that it can still be read, stands in no table.
//!
//! This is asked of every record at every scan, so it looks at nothing but the record, for about 20 microseconds. Whether its accuracies are those of the
//! predictions beside it takes a file more for each run: `show`, `verify` and `compare` ask that of the runs that they are about
//! ([`Record::check_predictions`](super::record::Record::check_predictions)).

use super::Predictions;
use super::record::{Metrics, Record, Status};
use crate::experiment::RunId;

/// Largest distance of an accuracy, times the number of images, from a whole number.
const ROUNDING: f64 = 1e-3;

/// Errors: a key, what it says, and what was to be expected.
pub(super) fn check(record: &Record) -> Result<(), String> {
    check_identity(record)?;
    match (record.status, &record.metrics, &record.error) {
        (Status::Done, Some(metrics), None) => check_metrics(metrics)?,
        (Status::Failed, None, Some(_)) => {}
        (status, metrics, error) => {
            let has = |is_there: bool| if is_there { "there" } else { "null" };
            return Err(format!(
                "status is {status}, metrics are {} and error is {}: a run has metrics if it is done, else an error",
                has(metrics.is_some()),
                has(error.is_some())
            ));
        }
    }
    for (key, seconds) in [("cost.wall_s", record.cost.wall_s), ("cost.cpu_s", record.cost.cpu_s)] {
        if !(seconds.is_finite() && seconds >= 0.0) {
            return Err(format!("{key} is {seconds}, expected seconds from 0 on"));
        }
    }
    Ok(())
}

/// Errors: an id that is not that of what the record says.
fn check_identity(record: &Record) -> Result<(), String> {
    let id = RunId::new(&record.cell, &record.hashes, &record.made_with()).to_string();
    let is_own = match record.status {
        Status::Done => id == record.run_id,
        // The inputs that it found may be others than those that gave it its id, which is why it failed.
        Status::Failed => {
            let rest = record.run_id.strip_prefix(&record.cell.slug()).and_then(|rest| rest.strip_prefix('-'));
            rest.is_some_and(|hash| !hash.contains('-'))
        }
    };
    match is_own {
        true => Ok(()),
        false => Err(format!(
            "run_id is {}, but cell, hashes and revisions make {id}: one of them was changed",
            record.run_id
        )),
    }
}

fn check_metrics(metrics: &Metrics) -> Result<(), String> {
    for (key, fraction) in
        [("fp_test_top1", metrics.fp_test_top1), ("test_top1", metrics.test_top1), ("calib_top1", metrics.calib_top1)]
    {
        if !(0.0..=1.0).contains(&fraction) {
            return Err(format!("metrics.{key} is {fraction}, expected a fraction from 0 to 1"));
        }
    }
    let right = metrics.test_top1 * metrics.test_images as f64;
    match metrics.test_images > 0 && (right - right.round()).abs() <= ROUNDING {
        true => Ok(()),
        false => Err(format!(
            "metrics.test_top1 is {}, expected a fraction of metrics.test_images, which is {}",
            metrics.test_top1, metrics.test_images
        )),
    }
}

impl Record {
    /// Errors: accuracies that are not those of `predictions`, which lie beside the record.
    pub fn check_predictions(&self, predictions: &Predictions) -> Result<(), String> {
        let Some(metrics) = &self.metrics else { return Ok(()) };
        for (key, recorded, predicted, labels) in [
            ("test_top1", metrics.test_top1, &predictions.test, &predictions.test_labels),
            ("calib_top1", metrics.calib_top1, &predictions.calib, &predictions.calib_labels),
        ] {
            let right = predicted.iter().zip(labels).filter(|(class, label)| class == label).count();
            let share = right as f64 / labels.len() as f64;
            if predicted.len() != labels.len() || (share - recorded).abs() > 1e-9 {
                return Err(format!(
                    "metrics.{key} is {recorded}, but {right} of {} predictions, for {} labels, are right, which is {share}",
                    predicted.len(),
                    labels.len()
                ));
            }
        }
        match metrics.test_images == predictions.test.len() {
            true => Ok(()),
            false => Err(format!(
                "metrics.test_images is {}, but there are {} predictions",
                metrics.test_images,
                predictions.test.len()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(edit: impl Fn(&mut Record)) -> String {
        let mut record = Record::sample("", "qdrop", "W2A4", 1).storable();
        check(&record).unwrap();
        edit(&mut record);
        check(&record).err().unwrap_or_default()
    }

    fn with_metrics(edit: impl Fn(&mut Metrics)) -> String {
        problem(|record| edit(record.metrics.as_mut().unwrap()))
    }

    #[test]
    fn what_cannot_be_true_is_named() {
        for (problem, parts) in [
            (
                problem(|record| record.cell.seed = 7),
                ["run_id is resnet20-w2a4-qdrop-s1-", "make resnet20-w2a4-qdrop-s7-"],
            ),
            (problem(|record| record.cell.recipe.iterations += 1), ["run_id is resnet20", "was changed"]),
            (problem(|record| record.hashes.weights = "bb".into()), ["run_id is resnet20", "was changed"]),
            (problem(|record| record.method_revision = 9), ["run_id is resnet20", "was changed"]),
            (
                problem(|record| record.metrics = None),
                ["status is done, metrics are null", "has metrics if it is done"],
            ),
            (problem(|record| record.error = Some("why".into())), ["error is there", "else an error"]),
            (problem(|record| record.cost.wall_s = -1.0), ["cost.wall_s is -1", "seconds from 0 on"]),
            (problem(|record| record.cost.cpu_s = f64::INFINITY), ["cost.cpu_s is inf", "seconds from 0 on"]),
            (with_metrics(|metrics| metrics.test_top1 = 9.93), ["metrics.test_top1 is 9.93", "a fraction from 0 to 1"]),
            (with_metrics(|metrics| metrics.calib_top1 = -0.1), ["metrics.calib_top1 is -0.1", "from 0 to 1"]),
            (with_metrics(|metrics| metrics.fp_test_top1 = f64::NAN), ["metrics.fp_test_top1 is NaN", "from 0 to 1"]),
            (with_metrics(|metrics| metrics.test_images = 0), ["metrics.test_top1 is 0.8", "test_images, which is 0"]),
            (with_metrics(|metrics| metrics.test_images = 9), ["metrics.test_top1 is 0.8", "test_images, which is 9"]),
        ] {
            assert!(parts.iter().all(|part| problem.contains(part)), "{parts:?}: {problem}");
        }
    }

    #[test]
    fn a_failed_run_need_not_be_of_the_inputs_that_named_it() {
        let mut record = Record::sample("", "qdrop", "W2A4", 1).storable().failed("the weights changed");
        record.hashes.weights = "bb".into();
        check(&record).unwrap();
        record.cell.seed = 11;
        assert!(check(&record).unwrap_err().contains("make resnet20-w2a4-qdrop-s11"));
        record.status = Status::Done;
        assert!(check(&record).is_err());
    }

    #[test]
    fn accuracies_must_be_those_of_the_predictions() {
        let record = Record::sample("", "qdrop", "W2A4", 1).with_top1(0.5, 1.0);
        let mut metrics = record.metrics.clone().unwrap();
        metrics.test_images = 2;
        let record = Record { metrics: Some(metrics), ..record };
        let predictions = Predictions {
            test: vec![1, 2],
            calib: vec![3],
            test_labels: vec![1, 0],
            calib_labels: vec![3],
            calib_indices: vec![7],
        };
        record.check_predictions(&predictions).unwrap();
        let error = record.check_predictions(&Predictions { test: vec![1, 0], ..predictions.clone() }).unwrap_err();
        assert!(error.contains("metrics.test_top1 is 0.5, but 2 of 2 predictions"), "{error}");
        let error = record.check_predictions(&Predictions { calib: vec![], ..predictions }).unwrap_err();
        assert!(error.contains("metrics.calib_top1 is 1, but 0 of 0 predictions, for 1 labels"), "{error}");
    }
}

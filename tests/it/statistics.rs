//! The statistics of comparisons, against scipy and statsmodels (`scripts/make_statistics_golden.py`).

use metaaug::report::statistics::{RESAMPLES, bootstrap_interval, holm, mcnemar, quantile, sign_flip};
use ptq::rng::Stream;
use serde_json::Value;

fn golden(name: &str) -> Value {
    let text = include_str!("../golden/statistics.json");
    serde_json::from_str::<Value>(text).unwrap()[name].take()
}

fn list(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn differences(case: &Value) -> Vec<i32> {
    list(&case["differences"]).into_iter().map(|value| value as i32).collect()
}

#[track_caller]
fn assert_close(ours: f64, theirs: f64) {
    assert!((ours - theirs).abs() <= 1e-9 * theirs.abs(), "{ours} is not {theirs}");
}

#[test]
fn mcnemar_is_statsmodels() {
    for case in golden("mcnemar").as_array().unwrap() {
        let [b, c] = ["b", "c"].map(|key| case[key].as_u64().unwrap() as usize);
        let p = mcnemar(b, c);
        assert_close(p, case["p"].as_f64().unwrap());
        assert_eq!(p, mcnemar(c, b));
        // One seed is the case in which an image cannot differ by more than 1.
        let signs: Vec<i32> = [1].repeat(b).into_iter().chain([-1].repeat(c)).chain([0; 7]).collect();
        assert_eq!(sign_flip(&signs), p);
    }
}

#[test]
fn sign_flips_are_those_gone_through_one_by_one() {
    for case in golden("sign_flip").as_array().unwrap() {
        assert_close(sign_flip(&differences(case)), case["p"].as_f64().unwrap());
    }
    assert_eq!((sign_flip(&[]), sign_flip(&[0, 0])), (1.0, 1.0));
}

#[test]
fn one_image_predicted_often_is_not_many_images() {
    // The same ten images are right with the first method alone in each of ten seeds: no more evidence than in one.
    assert_eq!(sign_flip(&[10; 10]), mcnemar(10, 0));
    assert!(mcnemar(100, 0) < 1e-20);
}

#[test]
fn bootstrap_intervals_are_scipys_up_to_the_noise_of_resampling() {
    for case in golden("bootstrap").as_array().unwrap() {
        let (differences, seeds) = (differences(case), case["seeds"].as_u64().unwrap() as usize);
        let stream = Stream::new(0).named("test");
        let (low, high) = bootstrap_interval(&differences, seeds, RESAMPLES, 0.95, stream);
        // The 2.5 % quantile of 10,000 normal values has a standard error of 0.027 standard deviations.
        let bound = 4.0 * 0.027 * case["se"].as_f64().unwrap();
        for (ours, theirs) in [(low, &case["low"]), (high, &case["high"])] {
            assert!((ours - theirs.as_f64().unwrap()).abs() < bound, "{ours} is not {theirs} ({bound})");
        }
        assert_eq!(bootstrap_interval(&differences, seeds, RESAMPLES, 0.95, stream), (low, high));
    }
    assert_eq!(bootstrap_interval(&[], 1, 10, 0.95, Stream::new(0)), (0.0, 0.0));
}

#[test]
fn quantiles_are_numpys() {
    let golden = golden("quantile");
    for case in golden["of"].as_array().unwrap() {
        let ours = quantile(&list(&golden["values"]), case["q"].as_f64().unwrap());
        assert_close(ours, case["value"].as_f64().unwrap());
    }
    assert!(quantile(&[], 0.5).is_nan());
}

#[test]
fn holm_is_statsmodels() {
    for case in golden("holm").as_array().unwrap() {
        for (ours, theirs) in holm(&list(&case["p"])).into_iter().zip(list(&case["adjusted"])) {
            assert_close(ours, theirs);
        }
    }
    assert!(holm(&[]).is_empty());
}

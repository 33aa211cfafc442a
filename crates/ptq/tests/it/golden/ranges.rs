//! Searched ranges: scales to 1e-6 relative, zero points exactly.

use super::{Golden, assert_close};
use ptq::quant::range_search::{search_act, search_weight};
use ptq::recipe::RangeSearch;

#[test]
fn weight_ranges() {
    let golden = Golden::open("weight_scale");
    let searches = [
        (RangeSearch::Genie, "genie", "delta"),
        (RangeSearch::Brecq, "brecq", "delta"),
        (RangeSearch::MinMax, "brecqmax", "delta"),
        (RangeSearch::Qdrop, "qdrop", "scale"),
        (RangeSearch::Qdrop, "pdquant", "delta"),
    ];
    for (layer, tensor) in [("conv", "w"), ("fc", "w_fc")] {
        let weight = golden.tensor(tensor);
        for bits in [2, 3, 4, 8] {
            for (search, code, scale_name) in searches {
                if golden.find(&format!("{code}_{layer}_b{bits}_{scale_name}")).is_none() {
                    assert_eq!((code, layer), ("brecqmax", "fc"));
                    continue;
                }
                let ranges = search_weight(&golden.values(tensor), weight.dim(0).unwrap(), search, bits).unwrap();
                let scales: Vec<f32> = ranges.iter().map(|range| range.scale).collect();
                let zero_points: Vec<f32> = ranges.iter().map(|range| range.zero_point).collect();
                let what = format!("{code} {layer} {bits} bits");
                assert_close(&what, &scales, &golden.values(&format!("{code}_{layer}_b{bits}_{scale_name}")), 1e-6);
                assert_eq!(zero_points, golden.values(&format!("{code}_{layer}_b{bits}_zp")), "{what}");
            }
        }
    }
}

#[test]
fn activation_ranges() {
    let golden = Golden::open("act_scale");
    for kind in ["pos", "signed", "relu6"] {
        let x = golden.tensor(&format!("x_{kind}"));
        for bits in [2, 3, 4, 8] {
            let genie = search_act(&x, RangeSearch::Genie, bits).unwrap();
            assert_close("genie", &[genie.scale], &golden.values(&format!("genie_{kind}_b{bits}_scale")), 1e-6);
            let expected_zero = if kind == "signed" { f32::powi(2.0, bits as i32 - 1) } else { 0.0 };
            assert_eq!(genie.zero_point, expected_zero);
            for (search, code) in
                [(RangeSearch::Brecq, "brecq"), (RangeSearch::Qdrop, "qdrop"), (RangeSearch::Qdrop, "pdquant")]
            {
                let range = search_act(&x, search, bits).unwrap();
                let expected = golden.values(&format!("{code}_{kind}_b{bits}"));
                let what = format!("{code} {kind} {bits} bits: {range:?} {expected:?}");
                assert_close(&what, &[range.scale], &expected[..1], 1e-6);
                assert_eq!(range.zero_point, expected[1], "{what}");
            }
        }
    }
}

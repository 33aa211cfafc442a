//! Quantizers, rounding, losses and schedules: values to 1e-5, gradients to 1e-4 relative.

use super::{Golden, assert_close, values};
use candle_core::{DType, Tensor, Var};
use ptq::graph::{Conv, Network, Node, Op, Role, Source, Unit};
use ptq::ops::conv::{Geometry, Padding};
use ptq::ops::fake_quant::ClipOrder;
use ptq::ops::fake_quant::{FakeQuant, Mask, fake_quant};
use ptq::ops::recon_error::recon_error;
use ptq::ops::rounding::{Levels, Regulariser, inverse_stretched_sigmoid, soft_weight};
use ptq::quant::range_search::{Range, search_act};
use ptq::quant::weight::WeightQuantizer;
use ptq::recipe::{BatchNormMode, RangeSearch, RoundingName};
use ptq::recon::schedule::{BetaSchedule, LearningRate};
use std::sync::Arc;

/// Output and gradients (x, scale) of `sum(Q(x) * upstream)`.
fn quantize(x: &Tensor, scale: &Tensor, quant: FakeQuant, upstream: &Tensor) -> [Vec<f32>; 3] {
    let (x, scale) = (Var::from_tensor(x).unwrap(), Var::from_tensor(&scale.flatten_all().unwrap()).unwrap());
    let y = fake_quant(&x, &scale, quant).unwrap();
    let gradients = (&y * upstream).unwrap().sum_all().unwrap().backward().unwrap();
    [values(&y), values(gradients.get(&x).unwrap()), values(gradients.get(&scale).unwrap())]
}

#[test]
fn learned_step_size_quantizers() {
    let golden = Golden::open("lsq");
    let upstream = golden.tensor("G");
    for kind in ["unsigned", "signed"] {
        let x = golden.tensor(&format!("x_{kind}"));
        for bits in [2, 4] {
            let check = |name: &str, scale: &Tensor, quant: FakeQuant| {
                let [y, g_x, g_s] = quantize(&x, scale, quant, &upstream);
                assert_close(name, &y, &golden.values(&format!("{name}_out")), 1e-5);
                if let Some(expected) = golden.find(&format!("{name}_gx")) {
                    assert_close(name, &g_x, &values(&expected), 1e-4);
                }
                assert_close(name, &g_s, &golden.values(&format!("{name}_gs")), 1e-4);
            };
            let levels = search_act(&x, RangeSearch::Genie, bits).unwrap().levels(bits);
            let genie = |mask| FakeQuant { levels, clip: ClipOrder::ClipThenRound, scale_gradient_factor: 1.0, mask };
            let stem = format!("genie_{kind}_b{bits}");
            check(&stem, &golden.tensor(&format!("{stem}_scale")), genie(Mask::All));
            let wider = golden.tensor(&format!("{stem}_s13_scale"));
            check(&format!("{stem}_s13"), &wider, genie(Mask::All));
            let quantized = golden.values(&format!("{stem}_drop_rand")).iter().map(|&r| u8::from(r < 0.5)).collect();
            check(&format!("{stem}_drop"), &wider, genie(Mask::Given(Arc::new(quantized))));

            let rounded_first = |range: Range, scale_gradient_factor| FakeQuant {
                levels: range.levels(bits),
                clip: ClipOrder::RoundThenClip,
                scale_gradient_factor,
                mask: Mask::All,
            };
            let highest = f64::from((1 << bits) - 1);
            for (suffix, factor) in [("gf1", 1.0 / (x.elem_count() as f64 * highest).sqrt() as f32), ("gf0", 1.0)] {
                let name = format!("qdrop_{kind}_b{bits}_{suffix}");
                let zero_point = golden.scalar(&format!("{name}_zp")) as f32;
                let scale = golden.tensor(&format!("{name}_scale"));
                check(&name, &scale, rounded_first(Range { scale: values(&scale)[0], zero_point }, factor));
            }
            let name = format!("brecq_{kind}_b{bits}");
            let range = golden.values(&format!("{name}_qp"));
            let scale = Tensor::from_slice(&range[..1], 1, x.device()).unwrap();
            check(&name, &scale, rounded_first(Range { scale: range[0], zero_point: range[1] }, 1.0));
        }
    }
}

#[test]
fn rectified_sigmoid() {
    let golden = Golden::open("rounding");
    let x = golden.tensor("rs_x").reshape((1, ())).unwrap();
    // Between the levels 0 and 1 the weight is the rounding itself.
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, x.device()).unwrap();
    let levels = Levels { floor: zeros(x.dims()), zero_point: zeros(&[1]), highest: 1.0 };
    let h = soft_weight(&x, &Tensor::ones(1, DType::F32, x.device()).unwrap(), &levels, None).unwrap().weight;
    assert_close("h", &values(&h), &golden.values("rs_y"), 1e-5);
    let inverse: Vec<f32> = golden.values("rs_inv_y").into_iter().map(inverse_stretched_sigmoid).collect();
    assert_close("inverse", &inverse, &golden.values("rs_inv_x"), 1e-5);
}

#[test]
fn soft_and_hard_weights() {
    let golden = Golden::open("rounding");
    let (weight, upstream) = (golden.tensor("w"), golden.tensor("G"));
    for bits in [2, 4] {
        for (code, scale_name, zero_name, alpha_name) in
            [("genie", "scale", "zp", "logit"), ("brecq", "delta", "zp", "alpha")]
        {
            let get = |name: &str| golden.find(&format!("{code}_b{bits}_{name}"));
            let (scales, zero_points) = (values(&get(scale_name).unwrap()), values(&get(zero_name).unwrap()));
            let ranges: Vec<Range> =
                scales.iter().zip(&zero_points).map(|(&scale, &zero_point)| Range { scale, zero_point }).collect();
            let quantizer = WeightQuantizer::new(&weight, &ranges, bits, RoundingName::Adaround).unwrap();
            assert_close("alpha", &values(&quantizer.learned[0]), &values(&get(alpha_name).unwrap()), 1e-5);
            let check = |prefix: &str| {
                let soft = quantizer.soft(None).unwrap().weight;
                let expected = |name: &str| get(&format!("{prefix}{name}"));
                assert_close("soft", &values(&soft), &values(&expected("soft").unwrap()), 1e-5);
                let hard = values(&quantizer.hard().unwrap());
                assert_close("hard", &hard, &values(&expected("hard").unwrap()), 1e-5);
                let gradients = (&soft * &upstream).unwrap().sum_all().unwrap().backward().unwrap();
                let g_alpha = values(gradients.get(&quantizer.learned[0]).unwrap());
                assert_close("to alpha", &g_alpha, &values(&expected(&format!("soft_g{alpha_name}")).unwrap()), 1e-4);
                if let Some(expected) = expected("soft_gscale") {
                    assert_close(
                        "to scale",
                        &values(gradients.get(&quantizer.scale).unwrap()),
                        &values(&expected),
                        1e-4,
                    );
                }
            };
            check("");
            let moved = (quantizer.learned[0].as_tensor() + golden.tensor("dlogit")).unwrap();
            quantizer.learned[0].set(&moved).unwrap();
            if code == "genie" {
                quantizer.scale.set(&(quantizer.scale.as_tensor() * 1.05).unwrap()).unwrap();
            }
            check("p_");
            for beta in [20, 11, 5, 2] {
                let weight = if code == "genie" { 1.0 } else { 0.01 };
                let soft = quantizer.soft(Some(Regulariser { beta: f64::from(beta), weight })).unwrap();
                let regulariser = soft.penalty.unwrap();
                let name = format!("reg_beta{beta}");
                let Some(expected) = get(&name) else { continue };
                assert_close(&name, &values(&regulariser), &values(&expected), 1e-5);
                // The gradient of the regulariser comes with that of the weight, which is zero here.
                let upstream = soft.weight.zeros_like().unwrap();
                let gradients = (soft.weight * upstream).unwrap().sum_all().unwrap().backward().unwrap();
                let expected = values(&get(&format!("{name}_g{alpha_name}")).unwrap());
                assert_close(&name, &values(gradients.get(&quantizer.learned[0]).unwrap()), &expected, 1e-4);
            }
        }
    }
}

#[test]
fn schedules() {
    let golden = Golden::open("schedules");
    let beta = BetaSchedule { warmup: 0.2, start: 20.0, end: 2.0 };
    for total in [10, 60, 1000, 20000] {
        let iterations: Vec<i64> = golden.tensor(&format!("t{total}_iter")).to_vec1().unwrap();
        for (t, expected) in iterations.into_iter().zip(golden.values(&format!("t{total}_genie"))) {
            // The published schedule is 20 while the regulariser is off.
            let ours = beta.at(t as usize, total).unwrap_or(20.0);
            assert!((ours - f64::from(expected)).abs() < 1e-5 * ours, "{t} of {total}: {ours} {expected}");
        }
    }
    let lrs: Vec<f64> = golden.tensor("cosine_lr_T10").to_vec1().unwrap();
    for (i, expected) in lrs.into_iter().take(10).enumerate() {
        assert!((LearningRate::Cosine(4e-5).at(i + 1, 10) - expected).abs() < 1e-17);
    }
}

#[test]
fn reconstruction_errors() {
    let golden = Golden::open("losses");
    let target = golden.tensor("lp_tgt");
    let check = |name: &str, weight: Option<&Tensor>, p: f64| {
        let pred = Var::from_tensor(&golden.tensor("lp_pred")).unwrap();
        let error = recon_error(&pred, &target, weight, p).unwrap();
        let gradients = error.backward().unwrap();
        assert_close(name, &values(&error), &golden.values(name), 1e-5);
        assert_close(name, &values(gradients.get(&pred).unwrap()), &golden.values(&format!("{name}_g")), 1e-4);
    };
    check("lp_p20_none", None, 2.0);
    check("lp_p24_none", None, 2.4);
    check("brecq_fisher_diag", Some(&golden.tensor("fisher_grad")), 2.0);
}

#[test]
fn folded_batch_norm() {
    let golden = Golden::open("bn_fold");
    for case in ["nobias", "bias", "noaffine"] {
        let get = |name: &str| golden.find(&format!("{case}_{name}"));
        let mean = get("mean").unwrap();
        let norm = ptq::graph::BatchNorm {
            weight: get("gamma").unwrap_or_else(|| mean.ones_like().unwrap()),
            bias: get("beta").unwrap_or_else(|| mean.zeros_like().unwrap()),
            mean,
            var: get("var").unwrap(),
            eps: 1e-5,
        };
        let geometry = Geometry { stride: 1, padding: Padding::Each(1), groups: 1 };
        let conv = Conv { weight: get("w").unwrap(), bias: get("b"), gain: None, geometry };
        let nodes = vec![
            Node { name: "conv".into(), op: Op::Conv(conv), inputs: vec![Source::Input] },
            Node { name: "bn".into(), op: Op::BatchNorm(norm), inputs: vec![Source::Node(0)] },
        ];
        let network = Network { arch: "test", units: vec![Unit { name: "unit".into(), role: Role::Block, nodes }] };
        let x = get("x").unwrap();
        for mode in [BatchNormMode::Folded, BatchNormMode::Kept] {
            let folded = ptq::graph::fold_bn::fold_bn(&network, mode).unwrap();
            for network in [&network, &folded] {
                let y = ptq::graph::forward::forward(&network.units[0], &x, &ptq::graph::forward::FullPrecision);
                assert_close(case, &values(&y.unwrap()), &golden.values(&format!("{case}_y")), 1e-5);
            }
            let [node] = &folded.units[0].nodes[..] else { panic!("BatchNorm is left") };
            let Op::Conv(conv) = &node.op else { panic!("not a convolution") };
            assert_close(case, &values(conv.bias.as_ref().unwrap()), &golden.values(&format!("{case}_fb")), 1e-5);
            if mode == BatchNormMode::Folded {
                assert_close(case, &values(&conv.weight), &golden.values(&format!("{case}_fw")), 1e-5);
            }
        }
    }
}

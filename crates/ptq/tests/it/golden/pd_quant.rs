//! PD-Quant: its loss, and its correction of a unit's inputs.

use super::{Golden, assert_close, values};
use candle_core::{Tensor, Var};
use ptq::graph::forward::{FullPrecision, forward};
use ptq::graph::{BatchNorm, Conv, Node, Op, Role, Source, Unit};
use ptq::ops::conv::{Geometry, Padding};
use ptq::ops::recon_error::recon_error;
use ptq::recon::activations::{Activations, Memory};
use ptq::recon::correction::Correction;
use ptq::recon::event::Control;
use ptq::recon::midway::Loops;
use ptq::recon::prediction::Prediction;
use ptq::recon::trace::Traces;
use std::sync::atomic::AtomicBool;

static CANCELLED: AtomicBool = AtomicBool::new(false);

#[test]
fn prediction_difference() {
    let golden = Golden::open("losses");
    for temperature in [1, 4] {
        let expected = |what: &str| golden.values(&format!("pd_T{temperature}_{what}"));
        let prediction = Prediction { unit_rest: None, rest: &[], weight: 10.0, temperature: f64::from(temperature) };
        let [y_q, output] = ["lp_pred", "kl_q"].map(|name| Var::from_tensor(&golden.tensor(name)).unwrap());
        let difference = prediction.difference(&output, &golden.tensor("kl_t")).unwrap();
        assert_close("difference", &values(&difference), &expected("pd"), 1e-5);
        let total = (recon_error(&y_q, &golden.tensor("lp_tgt"), None, 2.0).unwrap() + difference).unwrap();
        assert_close("total", &values(&total), &expected("total"), 1e-5);
        let gradients = total.backward().unwrap();
        for (var, name) in [(&y_q, "gpred"), (&output, "gout")] {
            assert_close(name, &values(gradients.get(var).unwrap()), &expected(name), 1e-4);
        }
    }
}

/// A residual block of 3x3 convolutions, BatchNorm in place.
fn block(golden: &Golden) -> Unit {
    let get = |name: &str| golden.tensor(&format!("net.layer1.0.{name}"));
    let mut nodes: Vec<Node> = Vec::new();
    let mut push = |name: String, op: Op, inputs: &[Source]| {
        nodes.push(Node { name, op, inputs: inputs.to_vec() });
        Source::Node(nodes.len() - 1)
    };
    let mut x = Source::Input;
    for i in [1, 2] {
        let geometry = Geometry { stride: 1, padding: Padding::Each(1), groups: 1 };
        let conv = Conv { weight: get(&format!("conv{i}.weight")), bias: None, gain: None, geometry };
        let norm = BatchNorm {
            weight: get(&format!("bn{i}.weight")),
            bias: get(&format!("bn{i}.bias")),
            mean: get(&format!("bn{i}.running_mean")),
            var: get(&format!("bn{i}.running_var")),
            eps: 1e-5,
        };
        x = push(format!("conv{i}"), Op::Conv(conv), &[x]);
        x = push(format!("bn{i}"), Op::BatchNorm(norm), &[x]);
        if i == 1 {
            x = push("relu1".to_string(), Op::Relu, &[x]);
        }
    }
    let sum = push("add".to_string(), Op::Add, &[x, Source::Input]);
    push("relu2".to_string(), Op::Relu, &[sum]);
    Unit { name: "layer1.0".to_string(), role: Role::Block, nodes }
}

fn apply(correction: &Correction, unit: &Unit, x: &Tensor, traces: &Traces) -> Tensor {
    let activations = Activations::new(x, &Memory::unlimited());
    let control = Control { observe: &|event| traces.note(&event), cancelled: &CANCELLED };
    let corrected = correction.correct(unit, &activations, &control, &Loops::unkept()).unwrap();
    corrected.narrow(0, x.dim(0).unwrap()).unwrap()
}

#[test]
fn distribution_correction() {
    let golden = Golden::open("pd_dc");
    let (unit, x) = (block(&golden), golden.tensor("block_in"));
    let lambda = 0.02;
    let correction = Correction { iterations: 3, lr: 1e-3, lambda, batch: x.dim(0).unwrap() };
    let traces = Traces::default();
    let corrected = apply(&correction, &unit, &x, &traces);
    let trace = traces.finish().remove(0);
    let constraints = golden.values("constraint");
    let losses = golden.tensor("own_losses").to_vec2::<f32>().unwrap();
    let expected: Vec<f32> = losses
        .iter()
        .zip(constraints)
        .map(|(errors, constraint)| errors.iter().sum::<f32>() + constraint / lambda as f32)
        .collect();
    let losses: Vec<f32> = trace.loss.iter().map(|loss| *loss as f32).collect();
    assert_eq!((trace.phase.as_str(), &trace.iterations[..]), ("correction", &[1, 2, 3][..]));
    assert_close("losses", &losses, &expected, 1e-5);
    assert_close("input", &values(&corrected), &golden.values("corrected_in"), 1e-5);
    let output = forward(&unit, &corrected, &FullPrecision).unwrap();
    assert_close("output", &values(&output), &golden.values("corrected_out"), 1e-5);

    // What a batch holds beside an image does not matter but through the learning rate.
    let apart = apply(&Correction { batch: 4, ..correction }, &unit, &x, &traces);
    assert_close("in smaller batches", &values(&apart), &values(&corrected), 1e-4);
}

#[test]
fn a_unit_without_batch_norm_keeps_its_inputs() {
    let golden = Golden::open("pd_dc");
    let mut unit = block(&golden);
    unit.nodes.truncate(1);
    let (x, traces) = (golden.tensor("block_in"), Traces::default());
    let correction = Correction { iterations: 3, lr: 1e-3, lambda: 0.02, batch: 4 };
    let same = apply(&correction, &unit, &x, &traces);
    assert_eq!(values(&same), values(&x));
    assert!(traces.finish().is_empty());
}

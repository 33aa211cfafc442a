//! MetaAug: one step of its published training of the transform network, its losses, its UNet.

use super::reconstruction::{Replay, tiny_network, weight_named};
use super::{Golden, assert_close, values};
use candle_core::{DType, Device, Tensor, Var};
use ptq::arch;
use ptq::graph::Network;
use ptq::graph::forward::{FullPrecision, forward};
use ptq::meta::config::{Derivative, Inner, Meta};
use ptq::meta::gradient::{Engine, MetaUnit, Part};
use ptq::meta::nets::TransformNet;
use ptq::meta::nets::{NormStatistics, Transform};
use ptq::meta::sample::{Mix, Sample};
use ptq::meta::terms::Terms;
use ptq::meta::terms::{self, Features, Images, Loss, Outer, TERMS};
use ptq::methods;
use ptq::ops::conv::{Geometry, Padding, conv2d};
use ptq::quant::model::{Masks, Mode, QuantModel};
use ptq::recipe::{Bits, Setting};
use ptq::recipe::{Prefix, Recipe};
use ptq::recon::train::Phase;
use ptq::rng::Stream;
use std::cell::Cell;

fn recipe() -> Recipe {
    (methods::find("metaaug").unwrap().recipe)(arch::find("resnet20").unwrap())
}

fn published() -> Meta {
    Meta::published(arch::find("resnet20").unwrap())
}

/// The transform network of the golden files: `T(x) = x + c2(tanh(c1(x)))`.
struct Tanh {
    vars: Vec<(&'static str, Var)>,
}

impl Tanh {
    fn open(golden: &Golden) -> Self {
        let names = ["c1.weight", "c1.bias", "c2.weight", "c2.bias"];
        let var = |name: &'static str| (name, Var::from_tensor(&golden.tensor(&format!("T.{name}"))).unwrap());
        Self { vars: names.map(var).into() }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let conv = |x: &Tensor, layer: usize| {
            let (weight, bias) = (self.vars[2 * layer].1.as_tensor(), self.vars[2 * layer + 1].1.as_tensor());
            conv2d(x, weight, Some(bias), Geometry { stride: 1, padding: Padding::Each(1), groups: 1 }).unwrap()
        };
        (x + conv(&conv(x, 0).tanh().unwrap(), 1)).unwrap()
    }

    /// Gradients of all parameters, one after the other, for the gradient of the output.
    fn backward(&self, t_x: &Tensor, of_t_x: &Tensor) -> Vec<f32> {
        let gradients = (t_x * of_t_x).unwrap().sum_all().unwrap().backward().unwrap();
        self.vars.iter().flat_map(|(_, var)| values(gradients.get(var).unwrap())).collect()
    }

    fn expected(&self, golden: &Golden, what: &str) -> Vec<f32> {
        self.vars.iter().flat_map(|(name, _)| golden.values(&format!("{what}.{name}"))).collect()
    }
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>())
}

/// The terms of `file`'s step with the published weights, and the gradients of `T`'s parameters by term.
fn step(file: &str, meta: &Meta) -> (Golden, Tanh, Vec<Part>, Vec<Option<Vec<f32>>>) {
    let golden = Golden::open(file);
    let recipe = recipe();
    let network: Network = tiny_network(&golden, "fp.");
    let (image, image_val) = (golden.tensor("image"), golden.tensor("image_val"));
    let mut model = QuantModel::new(&network, Bits { w: 2, a: 2 }, Setting::Qdrop, &recipe).unwrap();
    model.search_acts(&image, recipe.act_search, Mode::HARD).unwrap();
    for layer in ["conv1", "conv2"] {
        let quantizer = weight_named(&model.units[1], layer);
        assert_close(
            layer,
            &values(&quantizer.scale),
            &golden.values(&format!("pre.{layer}.weight_quantizer.scale")),
            1e-6,
        );
        let alpha = golden.values(&format!("pre.{layer}.weight_quantizer.bit_logit"));
        assert_close(layer, &values(&quantizer.learned[0]), &alpha, 1e-5);
    }
    for (site, layer) in ["conv1", "conv2"].iter().enumerate() {
        let expected = golden.values(&format!("pre.{layer}.activation_quantizer.scale"));
        assert_close(layer, &values(&model.units[1].acts[site].scale), &expected, 1e-5);
    }
    let phase = Phase { iterations: meta.iterations, ..Phase::weights(&recipe) };
    let published_terms = Terms::published();
    // The published step had stem and classifier in full precision.
    let unit = MetaUnit::new((&model, 1), &phase, Prefix::FullPrecision, (meta, &published_terms)).unwrap();
    let replay = |first: usize| {
        let mask = |i: usize| golden.tensor(&format!("mask{i}")).flatten_all().unwrap().to_vec1::<u8>().unwrap();
        Replay { masks: (first..first + 3).map(mask).cycle().take(300).collect(), next: Cell::new(0) }
    };
    let shares = golden.values("lam");
    let mix = |side: usize| {
        let partners = golden.tensor(&format!("perm{side}")).to_vec1::<i64>().unwrap();
        Mix { share: f64::from(shares[side]), partners: partners.into_iter().map(|row| row as u32).collect() }
    };
    let outer_input = forward(&network.units[0], &image_val, &FullPrecision).unwrap();
    let outer_logits = golden.tensor("out_val_fp");
    let (inner_masks, outer_masks, labels) = (replay(3), replay(6), vec![0; 4]);
    let inner_masks: [&dyn Masks; 1] = [&inner_masks];
    let sample = Sample {
        t: 1,
        x: &image,
        outer_input: &outer_input,
        outer_logits: &outer_logits,
        outer_labels: &labels,
        mixes: &[mix(0), mix(1)],
        inner_masks: &inner_masks,
        outer_masks: &outer_masks,
        target: None,
    };
    let net = Tanh::open(&golden);
    let t_x = net.forward(&image);
    assert_close("T(x)", &values(&t_x), &golden.values("x_modify"), 1e-5);
    let parts = unit.parts(&sample, &t_x, Engine::Fused).unwrap();
    let gradients = parts.iter().map(|part| part.gradient.as_ref().map(|of_t_x| net.backward(&t_x, of_t_x))).collect();
    (golden, net, parts, gradients)
}

/// Losses of the step, the gradients of margin and PKT, and their weighted sum with that of the validation term, against
/// the published code; returns our gradient of the validation term beside the published one.
fn compare(file: &str, meta: &Meta) -> (Vec<f32>, Vec<f32>) {
    let (golden, net, parts, gradients) = step(file, meta);
    let names: Vec<&str> = parts.iter().map(|part| part.term.name).collect();
    assert_eq!(names, ["val-kl", "margin", "distribution"]);
    for (part, name) in parts.iter().zip(["kl", "margin", "pkt"]) {
        let expected = golden.scalar(name);
        // PKT adds positive and negative numbers a million times its size: the rest is what f32 can tell.
        let loss = part.loss.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap();
        assert!((loss - expected).abs() < 2e-4 * expected.abs() + 1e-8, "{file}: {name} is {loss}, not {expected}");
    }
    let of = |index: usize| gradients[index].clone().unwrap();
    for (index, name) in [(1, "g_margin"), (2, "g_pkt")] {
        let expected = net.expected(&golden, name);
        let error = distance(&of(index), &expected) / norm(&expected);
        assert!(error < 5e-4, "{file}: {name}: {error}");
    }
    let expected = net.expected(&golden, "g_outer");
    let mut sum = vec![0f32; expected.len()];
    for (part, gradient) in parts.iter().zip(&gradients) {
        for (sum, g) in sum.iter_mut().zip(gradient.iter().flatten()) {
            *sum += part.weight as f32 * g;
        }
    }
    assert!(distance(&sum, &expected) < 1e-4 * norm(&expected), "{file}: g_outer");
    (gradients[0].clone().unwrap_or_else(|| vec![0.0; expected.len()]), net.expected(&golden, "g_kl"))
}

#[test]
fn second_order_through_gradient_descent() {
    let meta = Meta { iterations: 1, inner: Inner::Sgd, inner_lr_factor: 100.0, ..published() };
    let (ours, theirs) = compare("meta_grad_sgd", &meta);
    assert!(distance(&ours, &theirs) < 1e-3 * norm(&theirs), "{}", distance(&ours, &theirs) / norm(&theirs));
}

#[test]
fn second_order_through_adam() {
    let meta = Meta { iterations: 1, inner_lr_factor: 100.0, inner_eps: 1e-2, ..published() };
    let (ours, theirs) = compare("meta_grad_adam_eps1e-2", &meta);
    assert!(distance(&ours, &theirs) < 1e-3 * norm(&theirs), "{}", distance(&ours, &theirs) / norm(&theirs));
}

#[test]
fn the_published_adam_hardly_lets_the_validation_term_through() {
    let meta = Meta { iterations: 1, ..published() };
    let (ours, theirs) = compare("meta_grad_adam", &meta);
    // The published value is rounding noise; the exact one is as small.
    assert!(norm(&ours) < 1e-10 && norm(&theirs) < 1e-10, "{} {}", norm(&ours), norm(&theirs));
    // Without the regulariser some gradients are small enough for Adam's epsilon to matter.
    let (ours, theirs) = compare("meta_grad_adam_noround", &Meta { iterations: 500, ..meta });
    assert!(distance(&ours, &theirs) < 1e-2 * norm(&theirs), "{}", distance(&ours, &theirs) / norm(&theirs));
}

#[test]
fn to_first_order_the_validation_term_does_not_reach_the_transform() {
    let (ours, theirs) = compare("meta_grad_firstorder", &Meta { iterations: 1, inner: Inner::None, ..published() });
    assert_eq!((norm(&ours), norm(&theirs)), (0.0, 0.0));
}

#[test]
fn finite_differences_come_within_a_few_percent_of_the_exact_derivative() {
    let exact = Meta { iterations: 1, inner: Inner::Sgd, inner_lr_factor: 100.0, ..published() };
    let (_, _, _, by_differences) =
        step("meta_grad_sgd", &Meta { derivative: Derivative::FiniteDifference, ..exact.clone() });
    let (_, _, _, exact) = step("meta_grad_sgd", &exact);
    let (ours, exact) = (by_differences[0].clone().unwrap(), exact[0].clone().unwrap());
    let error = distance(&ours, &exact) / norm(&exact);
    assert!(error < 0.05, "{error}");
}

/// Value and gradient of a loss at `at`.
fn differentiated(at: &Tensor, loss: impl Fn(&Tensor) -> Tensor) -> (f64, Vec<f32>) {
    let var = Var::from_tensor(at).unwrap();
    let loss = loss(var.as_tensor());
    let gradients = loss.backward().unwrap();
    (f64::from(values(&loss)[0]), gradients.get(&var).map_or_else(Vec::new, values))
}

#[test]
fn terms_of_the_meta_loss() {
    let golden = Golden::open("losses");
    let term = |name: &str| &TERMS.iter().find(|term| term.name == name).unwrap().loss;
    let check = |name: &str, (loss, gradient): (f64, Vec<f32>), of: &str| {
        let expected = golden.scalar(&format!("{name}_loss"));
        assert!((loss - expected).abs() <= 1e-5 * expected.abs().max(1e-3), "{name}: {loss}, not {expected}");
        let expected = golden.values(&format!("{name}_{of}"));
        let gradient = if gradient.is_empty() { vec![0.0; expected.len()] } else { gradient };
        assert_close(name, &gradient, &expected, 1e-4);
    };
    for case in ["pkt0", "pkt1"] {
        let of_x = golden.tensor(&format!("{case}_ft"));
        let Loss::Features { loss, .. } = term("distribution") else { panic!("of features") };
        let actual = differentiated(&golden.tensor(&format!("{case}_fs")), |of_t_x| {
            loss(&Features { of_x: &of_x, of_t_x }).unwrap()
        });
        check(case, actual, "gfs");
    }
    let x = golden.tensor("margin_image");
    for case in ["margin_active", "margin_inactive"] {
        let Loss::Images(loss) = term("margin") else { panic!("of images") };
        let t_x = golden.tensor(&format!("{case}_x"));
        check(case, differentiated(&t_x, |t_x| loss(&Images { x: &x, t_x }, &published()).unwrap()), "gx");
    }
    for temperature in [1.0, 4.0] {
        let Loss::Outer(loss) = term("val-kl") else { panic!("of predictions") };
        let (logits_fp, meta) = (golden.tensor("kl_t"), Meta { temperature, ..published() });
        let actual = differentiated(&golden.tensor("kl_q"), |logits_q| {
            loss(&Outer { logits_q, logits_fp: &logits_fp, labels: &[] }, &meta).unwrap()
        });
        check(&format!("kl_T{temperature}"), actual, "gq");
    }
    // No weight, no term.
    assert_eq!(terms::active(&Terms::all(0.0)).len(), 0);
}

#[test]
fn the_published_unet() {
    for file in ["unet_rgb32", "unet_gray28"] {
        let golden = Golden::open(file);
        let x = golden.tensor("x");
        let config = Transform { base: 2, ..Transform::published() };
        let net = TransformNet::new(&config, x.dim(1).unwrap(), Stream::new(0), DType::F32, &Device::Cpu).unwrap();
        net.parameters.load(&golden.with_prefix("p.")).unwrap();
        let y = net.forward(&x, NormStatistics::Running).unwrap();
        assert_close(file, &values(&y), &golden.values("y_eval"), 1e-5);
        let y = net.forward(&x, NormStatistics::Batch).unwrap();
        assert_close(file, &values(&y), &golden.values("y_train"), 1e-4);
        let gradients = (y * golden.tensor("G")).unwrap().sum_all().unwrap().backward().unwrap();
        let after = net.parameters.tensors().unwrap();
        for (name, expected) in golden.with_prefix("after.") {
            assert_close(&name, &values(&after[&name]), &values(&expected), 1e-5);
        }
        for (name, expected) in golden.with_prefix("grad.") {
            let var = net.parameters.var(&name).unwrap();
            assert_close(&name, &values(gradients.get(var).unwrap()), &values(&expected), 1e-3);
        }
    }
}

//! Logits of the libraries' models with the same made-up weights (`scripts/make_arch_golden.py`).

use super::{Golden, assert_close, values};
use candle_core::{Device, Tensor};
use ptq::arch::layout::{Layout, TORCHVISION};
use ptq::arch::{self, ARCHS, ArchSpec, made_up};
use ptq::graph::forward::through;
use std::collections::HashMap;

/// The layout of which no package holds models.
const BRECQ: &str = "BRECQ";
/// The one whose package pads for one size of images, in Lite0 alone as for the image here.
const EFFICIENTNET_PYTORCH: &str = "EfficientNet-PyTorch";

/// ImageNet's images would take long.
fn image(arch: &ArchSpec) -> Tensor {
    let [channels, height, width] = arch.images.map(|extent| extent.min(64));
    let noise = made_up::noise("image.bias", channels * height * width);
    let values: Vec<f32> = noise.map(|u| (0.2 * u) as f32 * 5.0).collect();
    Tensor::from_vec(values, (1, channels, height, width), &Device::Cpu).unwrap()
}

fn logits(arch: &'static ArchSpec, tensors: HashMap<String, Tensor>) -> Vec<f32> {
    let network = arch::load(arch, tensors, "made up", &Device::Cpu).unwrap();
    values(&through(network.units.iter(), &image(arch)).unwrap())
}

/// The architectures for ImageNet, each in all layouts.
#[test]
fn logits_are_those_of_the_libraries() {
    let golden = Golden::open("arch_logits");
    for arch in ARCHS.iter().filter(|arch| arch.classes == 1000) {
        // BRECQ's are below.
        let is_of_torchvision = arch.name != "mobilenetv1" && !arch.name.starts_with("efficientnet");
        let torchvision = is_of_torchvision.then_some(&TORCHVISION).into_iter();
        let held = |layout: &&Layout| match layout.name {
            BRECQ => false,
            EFFICIENTNET_PYTORCH => arch.name == "efficientnet-lite0",
            _ => true,
        };
        for layout in torchvision.chain(arch.layouts).filter(held) {
            let expected = golden.values(&format!("{}.{}", arch.name, layout.name));
            let ours = logits(arch, made_up::tensors(arch, layout).unwrap());
            assert_close(&format!("{} of {}", arch.name, layout.name), &ours, &expected, 1e-4);
        }
        // timm's ResNets have torchvision's layout.
        if arch.name.starts_with("resnet") {
            let [timm, torchvision] = ["timm", "torchvision"].map(|of| golden.values(&format!("{}.{of}", arch.name)));
            assert_eq!(timm, torchvision);
        }
    }
}

#[test]
fn members_of_efficientnet_lite_have_the_same_weights_under_both_names() {
    let golden = Golden::open("arch_logits");
    for arch in ARCHS.iter().filter(|arch| arch.name.starts_with("efficientnet")) {
        let [timm, other] = arch.layouts else { panic!("{} has other layouts", arch.name) };
        let renamed: HashMap<String, Tensor> = made_up::tensors(arch, timm)
            .unwrap()
            .into_iter()
            .map(|(name, tensor)| ((other.rename)(&name), tensor))
            .collect();
        assert!(renamed.keys().all(|name| name.starts_with('_')), "{:?}", renamed.keys());
        assert_close(arch.name, &logits(arch, renamed), &golden.values(&format!("{}.timm", arch.name)), 1e-4);
    }
}

/// ResNets for CIFAR with both shortcuts, each in torchvision's layout and akamaster's, as the script defines them.
#[test]
fn logits_of_networks_for_cifar_are_those_of_their_definition() {
    let golden = Golden::open("cifar_logits");
    for arch in ARCHS.iter().filter(|arch| arch.layouts.iter().any(|layout| layout.name == "akamaster")) {
        for layout in std::iter::once(&TORCHVISION).chain(arch.layouts) {
            let expected = golden.values(&format!("{}.{}", arch.name, layout.name));
            let ours = logits(arch, made_up::tensors(arch, layout).unwrap());
            assert_close(&format!("{} of {}", arch.name, layout.name), &ours, &expected, 1e-4);
        }
    }
}

/// The layout and the number of classes and channels are those of the checkpoint; the form of the shortcut is not guessed.
#[test]
fn checkpoints_of_cifar_100_are_read_in_any_layout_and_other_shortcuts_are_refused() {
    let arch = arch::find("resnet20-identity").unwrap();
    for layout in std::iter::once(&TORCHVISION).chain(arch.layouts) {
        let mut tensors = made_up::tensors(arch, layout).unwrap();
        for (suffix, shape) in [("weight", &[100usize, 64][..]), ("bias", &[100])] {
            let classifier = Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
            tensors.insert((layout.rename)(&format!("fc.{suffix}")), classifier);
        }
        assert_eq!(logits(arch, tensors.clone()).len(), 100, "{}", layout.name);
        let projecting = arch::find("resnet20").unwrap();
        let error = arch::load(projecting, tensors, "made up", &Device::Cpu).unwrap_err().to_string();
        let missing = (layout.rename)("missing layer2.0.downsample.0.weight [32, 16, 1, 1]");
        assert!(error.contains(&missing), "{error}");
    }
}

/// No package holds BRECQ's models: the same weights under its names must give the same logits, and the names must be its.
#[test]
fn checkpoints_of_brecq_are_the_same_weights_under_other_names() {
    let golden = Golden::open("arch_logits");
    let expected = [
        ("mobilenetv2", &["features.0.0.weight", "features.1.conv.3.weight", "features.17.conv.7.running_var"][..]),
        ("regnetx-3200m", &["stem.bn.bias", "s1.b1.proj.weight", "s3.b15.f.c_bn.weight", "head.fc.weight"]),
        ("regnetx-600m", &["stem.bn.bias", "s1.b1.proj.weight", "s4.b7.f.c_bn.weight", "head.fc.weight"][..]),
    ];
    let mut with_layout: Vec<&str> = ARCHS
        .iter()
        .filter(|arch| arch.layouts.iter().any(|layout| layout.name == BRECQ))
        .map(|arch| arch.name)
        .collect();
    with_layout.sort_unstable();
    assert_eq!(with_layout, expected.map(|(name, _)| name));
    for (name, names) in expected {
        let arch = arch::find(name).unwrap();
        let brecq: &Layout = arch.layouts.iter().find(|layout| layout.name == BRECQ).unwrap();
        let torchvision = made_up::tensors(arch, &TORCHVISION).unwrap();
        let renamed: HashMap<String, Tensor> =
            torchvision.into_iter().map(|(name, tensor)| ((brecq.rename)(&name), tensor)).collect();
        assert!(names.iter().all(|name| renamed.contains_key(*name)), "{name}: {:?}", renamed.keys());
        assert_close(name, &logits(arch, renamed), &golden.values(&format!("{name}.torchvision")), 1e-4);
    }
}

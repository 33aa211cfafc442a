use super::config::{NetName, Up};
use super::*;
use crate::ops::check::noise;

fn net(spec: &'static NetSpec, up: Up, channels: usize) -> TransformNet {
    let config = Transform { net: NetName(spec), base: 2, depth: 2, up, ..Transform::published() };
    TransformNet::new(&config, channels, Stream::new(1), DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn networks_keep_the_shape_of_any_image_that_their_depth_allows() {
    for spec in NETS {
        for up in [Up::Transposed, Up::Bilinear] {
            for shape in [(2, 1, 28, 28), (1, 3, 7, 5), (3, 2, 4, 9)] {
                let x = noise(shape, 2, DType::F32);
                let net = net(spec, up, shape.1);
                for statistics in [NormStatistics::Batch, NormStatistics::Running] {
                    let y = net.forward(&x, statistics).unwrap();
                    assert_eq!(y.dims(), x.dims(), "{} {up:?}", spec.name);
                }
            }
        }
    }
}

#[test]
fn networks_that_need_no_warm_up_start_as_the_identity() {
    let x = noise((2, 3, 9, 8), 3, DType::F32);
    for spec in NETS.iter().filter(|spec| !spec.needs_warm_up) {
        let y = net(spec, Up::Transposed, 3).forward(&x, NormStatistics::Batch).unwrap();
        let change = (&y - &x).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(change < 1e-5, "{}: {change}", spec.name);
    }
}

#[test]
fn sizes_count_the_parameters_that_networks_have_and_more_pixels_keep_more_values() {
    for spec in NETS {
        for up in [Up::Transposed, Up::Bilinear] {
            for channels in [1, 3] {
                let net = net(spec, up, channels);
                let size = |pixels: usize| (spec.size)(&net.config, channels, pixels);
                let counted: usize = net.parameters.vars().map(|var| var.elem_count()).sum();
                assert_eq!(size(784).parameters, counted, "{} {up:?}", spec.name);
                assert!(size(784).values >= 784 * channels && size(4 * 784).values == 4 * size(784).values);
            }
        }
    }
}

#[test]
fn images_too_small_for_the_depth_are_refused_with_what_would_fit() {
    let config = Transform { depth: 5, ..Transform::published() };
    assert!(too_small(&config, 28, 28).unwrap().contains("at most 4"));
    assert_eq!(too_small(&Transform { depth: 4, ..config.clone() }, 28, 28), None);
    assert_eq!(too_small(&Transform { net: NetName(&NETS[3]), ..config }, 1, 1), None);
}

#[test]
fn a_warp_by_half_a_turn_reads_the_image_backwards() {
    let x = noise((1, 1, 4, 5), 4, DType::F32);
    let turn = Tensor::new(&[[-1f32, 0., 0., 0., -1., 0.]], &Device::Cpu).unwrap();
    let warped = spatial::warp(&x, &turn).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let mut expected = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    expected.reverse();
    for (actual, expected) in warped.iter().zip(&expected) {
        assert!((actual - expected).abs() < 1e-5);
    }
}

#[test]
fn a_spatial_transformer_starts_from_a_warp_of_the_size_asked_for_that_another_seed_does_not_share() {
    let x = noise((2, 1, 12, 12), 3, DType::F32);
    let change = |start_warp: f64, seed: u64| {
        let config = Transform { net: NetName(&SPATIAL), base: 2, start_warp, ..Transform::published() };
        let net = TransformNet::new(&config, 1, Stream::new(seed), DType::F32, &Device::Cpu).unwrap();
        let bias = net.parameters.var("affine.bias").unwrap().to_vec1::<f32>().unwrap();
        assert!(bias.iter().all(|value| f64::from(value.abs()) <= start_warp));
        let change = (net.forward(&x, NormStatistics::Batch).unwrap() - &x).unwrap();
        change.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap()
    };
    assert!(change(0.0, 1) < 1e-9 && change(0.2, 1) > change(0.02, 1) && change(0.02, 1) > 1e-4);
    assert!(change(0.1, 1) != change(0.1, 2));
}

#[test]
fn parameters_come_back_from_their_tensors_and_misfits_are_named() {
    let (first, second) = (net(&NETS[0], Up::Transposed, 1), net(&NETS[0], Up::Transposed, 1));
    let mut tensors = first.parameters.tensors().unwrap();
    second.parameters.load(&tensors).unwrap();
    tensors.remove("outc.conv.bias");
    let error = second.parameters.load(&tensors).unwrap_err().to_string();
    assert!(error.contains("outc.conv.bias"), "{error}");
}

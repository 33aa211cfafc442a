//! Quantizes a ResNet-20 to 2 bits with QDrop on 256 images, in some ten seconds:
//! `cargo run --release --example quantize`.

use candle_core::{D, Device, Tensor, safetensors};
use ptq::graph::{fold_bn::fold_bn, forward::through};
use ptq::quant::model::Mode;
use ptq::quantize::{Calibration, added::Added, quantize};
use ptq::recipe::{Bits, Recipe, Setting};
use ptq::recon::{activations::Memory, event::Control};
use ptq::{arch, methods};
use std::{error::Error, fs::File, io::Read, sync::atomic::AtomicBool};

const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets");

fn main() -> Result<(), Box<dyn Error>> {
    let arch = arch::find("resnet20").ok_or("no such architecture")?;
    let weights = format!("{ASSETS}/resnet20-fashion-mnist/model.safetensors");
    let trained = arch::load(arch, safetensors::load(&weights, &Device::Cpu)?, &weights, &Device::Cpu)?;
    let (pool, test) = (images("pool", 256)?, images("test", 2000)?);
    let labels = Tensor::from_vec(content("test-labels-idx1", 8)?, 10_000, &Device::Cpu)?.narrow(0, 0, 2000)?;

    // The published constants of the method, with fewer iterations.
    let published = (methods::find("qdrop").ok_or("no such method")?.recipe)(arch);
    let recipe = Recipe { iterations: 100, alpha_lr: 1e-2, act_search_images: 256, ..published };
    let network = fold_bn(&trained, recipe.batch_norm)?;
    let memory = Memory::unlimited();
    let calib = Calibration { images: &pool, memory: &memory, trained: &trained, added: Added::default() };
    let control = Control { observe: &|_| (), cancelled: &AtomicBool::new(false) };
    let placed = (Bits { w: 2, a: 2 }, Setting::Qdrop);
    let quantized = quantize(&network, &calib, placed, &recipe, 0, &control)?;

    let top1 = |logits: Tensor| -> candle_core::Result<f32> {
        let right = logits.argmax(D::Minus1)?.eq(&labels.to_dtype(candle_core::DType::U32)?)?;
        right.to_dtype(candle_core::DType::F32)?.mean_all()?.to_scalar()
    };
    let full = top1(through(trained.units.iter(), &test)?)?;
    println!("full precision {full:.3}, W2A2 {:.3}", top1(quantized.logits(&test, Mode::HARD)?)?);
    Ok(())
}

/// The first `n` images of a split of Fashion-MNIST `(n, 1, 28, 28)`, normalised as the network was trained.
fn images(split: &str, n: usize) -> Result<Tensor, Box<dyn Error>> {
    let levels = content(&format!("{split}-images-idx3"), 16)?;
    let grey = levels[..n * 784].iter().map(|level| (f32::from(*level) / 255.0 - 0.286) / 0.353).collect();
    Ok(Tensor::from_vec(grey, (n, 1, 28, 28), &Device::Cpu)?)
}

/// What an IDX file holds after its header.
fn content(name: &str, header: usize) -> Result<Vec<u8>, Box<dyn Error>> {
    let file = File::open(format!("{ASSETS}/fashion-mnist/{name}-ubyte.gz"))?;
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes)?;
    Ok(bytes.split_off(header))
}

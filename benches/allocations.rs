//! How often a step of reconstruction allocates, and how much: `cargo bench --bench allocations`.
//!
//! Of ten and of twenty iterations: the difference is that of ten iterations alone, without their preparation.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod steps;

use candle_core::Device;
use divan::{AllocProfiler, Bencher};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: AllocProfiler<MiMalloc> = AllocProfiler::new(MiMalloc);

fn main() {
    divan::main();
}

#[divan::bench(args = [10, 20], sample_count = 3, sample_size = 1)]
fn layer1_0(bencher: Bencher, iterations: usize) {
    let steps = steps::QdropSteps::new(&steps::load("resnet20", &Device::Cpu), "layer1.0");
    bencher.bench_local(|| steps.run(iterations));
}

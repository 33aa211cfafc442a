//! For tests of operations: reproducible noise and central differences.

use crate::error::Result;
use candle_core::{DType, Device, Shape, Tensor, Var};

/// Values in [-1, 1) that depend on `seed` and position alone.
pub fn noise(shape: impl Into<Shape>, seed: u64, dtype: DType) -> Tensor {
    let shape = shape.into();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let values: Vec<f64> = (0..shape.elem_count())
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

/// `(loss(v + h) - loss(v - h)) / 2h` for every element of `vars[which]`, which must be `f64`; leaves `vars` as they were.
pub fn central_difference(vars: &[Var], which: usize, loss: impl Fn(&[Var]) -> Result<Tensor>) -> Vec<f64> {
    let step = 1e-5;
    let original = vars[which].as_tensor().copy().unwrap();
    let flat = original.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let at = |i: usize, change: f64| {
        let mut moved = flat.clone();
        moved[i] += change;
        vars[which].set(&Tensor::from_vec(moved, original.shape(), &Device::Cpu).unwrap()).unwrap();
        loss(vars).unwrap().to_scalar::<f64>().unwrap()
    };
    let gradient = (0..flat.len()).map(|i| (at(i, step) - at(i, -step)) / (2. * step)).collect();
    vars[which].set(&original).unwrap();
    gradient
}

/// Runs `body` where Candle keeps the graph of its backward passes, so that gradients can be differentiated again.
///
/// Candle reads `CANDLE_GRAD_DO_NOT_DETACH` from the environment once per thread, and changing the environment of a
/// process with threads is unsound: so the test named `test` (its full path) runs again in a child process.
pub fn with_second_derivatives(test: &str, body: impl FnOnce()) {
    const KEEP_GRAPH: &str = "CANDLE_GRAD_DO_NOT_DETACH";
    if std::env::var_os(KEEP_GRAPH).is_some() {
        return body();
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--test-threads=1"])
        .env(KEEP_GRAPH, "1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && output.contains("1 passed"),
        "{output}{}",
        String::from_utf8_lossy(&child.stderr)
    );
}

//! With the feature `cuda` compiles the kernels of `src/ops/kernels` to PTX.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Sources of kernels for GPUs.
const KERNELS: &str = "src/ops/kernels";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={KERNELS}");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_some()
        && let Err(problem) = compile_kernels()
    {
        println!("cargo::error={problem}");
    }
}

/// PTX of every kernel, which the driver compiles for the GPU that it finds, into the folder of build outputs.
fn compile_kernels() -> Result<(), String> {
    let variables = ["NVCC", "CUDA_HOME", "CUDA_PATH", "CUDA_COMPUTE_CAP"];
    variables.iter().for_each(|name| println!("cargo::rerun-if-env-changed={name}"));
    let in_toolkit =
        |name| std::env::var_os(name).map(|home| Path::new(&home).join("bin/nvcc")).filter(|nvcc| nvcc.exists());
    let nvcc = std::env::var_os("NVCC").map(PathBuf::from);
    let nvcc = nvcc.or_else(|| in_toolkit("CUDA_HOME")).or_else(|| in_toolkit("CUDA_PATH"));
    let nvcc = nvcc.unwrap_or_else(|| PathBuf::from("nvcc"));
    let capability = std::env::var("CUDA_COMPUTE_CAP").unwrap_or_else(|_| "75".to_string());
    let listed = std::fs::read_dir(KERNELS).map_err(|error| format!("cannot list {KERNELS}: {error}"))?;
    let mut sources: Vec<PathBuf> = listed.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    sources.retain(|path| path.extension().is_some_and(|ending| ending == "cu"));
    sources.sort();
    let folder = std::env::var_os("OUT_DIR").ok_or("no OUT_DIR")?;
    // Products and sums are rounded one by one, as on the CPU.
    let outcome = Command::new(&nvcc)
        .args(["--ptx", "--fmad=false", "-Werror", "all-warnings"])
        .arg(format!("-arch=compute_{capability}"))
        .arg("--output-directory")
        .arg(folder)
        .args(sources)
        .output();
    match outcome {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            Err(format!("nvcc failed on {KERNELS}: {}", String::from_utf8_lossy(&output.stderr).replace('\n', " | ")))
        }
        Err(error) => Err(format!(
            "cannot start {}: {error}; the feature cuda needs the CUDA toolkit on PATH or in CUDA_HOME",
            nvcc.display()
        )),
    }
}

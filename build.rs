//! Compiles the git revision of the sources into the binary, for the records of its runs, and with the feature `cuda` the kernels of
//! `src/ops/kernels` to PTX.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Sources of kernels for GPUs.
const KERNELS: &str = "src/ops/kernels";

/// What the numbers depend on; a change elsewhere leaves the revision clean.
const SOURCES: [&str; 5] = ["src", "assets", "Cargo.toml", "Cargo.lock", "build.rs"];

fn main() {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    // Moves with every commit and checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    println!("cargo::rustc-env=HARNESS_GIT_REVISION={}", revision());
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

/// Short hash of HEAD, with `-dirty` if the sources differ from it; `unknown` outside a git checkout.
fn revision() -> String {
    // In a crate unpacked inside some other repository, HEAD is not ours.
    let own = git(&["ls-files", "--error-unmatch", "build.rs"]).is_some();
    let (true, Some(hash)) = (own, git(&["rev-parse", "--short=10", "HEAD"])) else { return "unknown".to_string() };
    let changes = git(&[&["status", "--porcelain", "--"], &SOURCES[..]].concat());
    match changes.as_deref() {
        Some("") => hash,
        _ => format!("{hash}-dirty"),
    }
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
}

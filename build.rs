//! Compiles the git revision of the sources into the binary, for the records of its runs.

use std::process::Command;

/// What the numbers depend on; a change elsewhere leaves the revision clean.
const SOURCES: [&str; 6] = ["src", "crates", "assets", "Cargo.toml", "Cargo.lock", "build.rs"];

fn main() {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    // Moves with every commit and checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    println!("cargo::rustc-env=HARNESS_GIT_REVISION={}", revision());
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

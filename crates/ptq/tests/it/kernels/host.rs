//! Libraries of the kernels, compiled for this machine when a test first asks for one (see `src/ops/kernels/host.h`).

use libloading::Library;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Declares a library of kernels: each is a method that takes the grid first and then what its source declares.
macro_rules! kernels {
    ($library:ident of $source:literal: $(fn $name:ident($($argument:ident: $type:ty),* $(,)?);)*) => {
        #[doc = concat!("The kernels of `", $source, "`.")]
        #[derive(Clone, Copy)]
        pub struct $library(&'static libloading::Library);

        impl $library {
            /// Twice, for either order of the threads of a block; none where there is no compiler.
            pub fn compiled() -> impl Iterator<Item = Self> {
                static LIBRARIES: std::sync::LazyLock<Vec<libloading::Library>> =
                    std::sync::LazyLock::new(|| $crate::kernels::host::compiled($source));
                LIBRARIES.iter().map(Self)
            }

            $(
                #[allow(unsafe_code, clippy::too_many_arguments)]
                pub fn $name(self, grid: $crate::kernels::host::Grid, $($argument: $type),*) {
                    // SAFETY: these are the types of the source, and tests pass as many elements as they say.
                    unsafe {
                        let name = stringify!($name);
                        let kernel = self.0.get::<unsafe extern "C" fn($($type),*)>(name).unwrap();
                        grid.run(self.0, || kernel($($argument),*));
                    }
                }
            )*
        }
    };
}
pub(super) use kernels;

/// Threads of a block.
pub const THREADS: u64 = 256;

/// Which blocks run, of how many.
pub struct Grid {
    blocks: Range<u32>,
    of: u32,
}

impl Grid {
    /// A thread for each of `n` elements.
    pub fn each(n: usize) -> Self {
        Self::blocks(n.div_ceil(THREADS as usize))
    }

    pub fn blocks(count: usize) -> Self {
        Self { blocks: 0..count as u32, of: count as u32 }
    }

    /// The block number `index` alone, the last one.
    pub fn last(index: u32) -> Self {
        Self { blocks: index..index + 1, of: index + 1 }
    }

    /// Calls `block` for one block after the other.
    pub fn run(self, library: &Library, block: impl Fn()) {
        for index in self.blocks {
            // SAFETY: this is its type in `host.h`.
            #[allow(unsafe_code)]
            unsafe {
                library.get::<unsafe extern "C" fn(u32, u32)>("at_block").unwrap()(index, self.of);
            }
            block();
        }
    }
}

/// The library of a source, whose path starts where the kernels are, for either order of the threads of a block.
pub fn compiled(source: &str) -> Vec<Library> {
    let Some(compiler) = compiler() else { return Vec::new() };
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops/kernels");
    let folder = tempfile::tempdir().unwrap();
    let orders: [&[&str]; 2] = [&[], &["-DLAST_THREAD_FIRST"]];
    orders
        .iter()
        .enumerate()
        .map(|(order, flags)| {
            let library = folder.path().join(format!("{order}.so"));
            let output = Command::new(&compiler[0])
                .args(&compiler[1..])
                .args(["-x", "c++", "-std=c++17", "-O2", "-fno-fast-math", "-ffp-contract=off", "-fPIC", "-shared"])
                .args(*flags)
                .arg(format!("-I{}", kernels.display()))
                .args([kernels.join(source).as_os_str(), "-o".as_ref(), library.as_os_str()])
                .output()
                .unwrap();
            assert!(output.status.success(), "{source}: {}", String::from_utf8_lossy(&output.stderr));
            // SAFETY: nothing runs when it is loaded.
            #[allow(unsafe_code)]
            unsafe {
                Library::new(&library).unwrap()
            }
        })
        .collect()
}

/// The command that compiles C++: what `CXX` says, or the first of the usual ones that is there.
fn compiler() -> Option<&'static [String]> {
    static COMPILER: OnceLock<Option<Vec<String>>> = OnceLock::new();
    let find = || {
        if let Ok(command) = std::env::var("CXX") {
            return Some(command.split_whitespace().map(String::from).collect());
        }
        let runs = |command: &&str| {
            let quiet = Command::new(command).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            quiet.is_ok_and(|status| status.success())
        };
        let found = ["c++", "g++", "clang++"].into_iter().find(runs);
        if found.is_none() {
            // Not a macro: what these print is shown for tests that fail alone.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: tests of the kernels need a C++ compiler: c++, g++, clang++ or $CXX"
            );
        }
        found.map(|command| vec![command.to_string()])
    };
    COMPILER.get_or_init(find).as_deref()
}

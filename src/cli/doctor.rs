//! `harness doctor`.

use super::Exit;
use super::session::cache_folder;
use crate::arch::ARCHS;
use crate::assets::embedded;
use crate::assets::hub::HubSettings;
use crate::error::Result;
use crate::methods::METHODS;

/// Prints versions, devices, folders and whether the embedded files are intact.
pub fn doctor() -> Result<Exit> {
    say!("harness        {} ({})", env!("CARGO_PKG_VERSION"), env!("HARNESS_GIT_REVISION"));
    let cuda = match (cfg!(feature = "cudnn"), cfg!(feature = "cuda")) {
        (true, _) => "with CUDA and cuDNN",
        (false, true) => "with CUDA",
        (false, false) => "without CUDA",
    };
    say!("device         cpu ({}); this binary was built {cuda}", std::env::consts::ARCH);
    say!("threads        {} (RAYON_NUM_THREADS sets them)", rayon::current_num_threads());
    say!("instructions   {}", instructions());
    say!("cache          {}", cache_folder()?.display());
    let hub = HubSettings::from_env();
    let mode = match (hub.offline, &hub.token) {
        (true, _) => "offline",
        (false, Some(_)) => "with a token",
        (false, None) => "without a token",
    };
    say!("hub            {} ({mode}), cache {}", hub.shown_endpoint(), hub.cache.display());
    let architectures: Vec<&str> = ARCHS.iter().map(|arch| arch.name).collect();
    let methods: Vec<&str> = METHODS.iter().map(|method| method.name).collect();
    say!("architectures  {}", architectures.join(", "));
    say!("methods        {}", methods.join(", "));
    for file in embedded::FILES {
        let (_, sum) = embedded::read(file.path)?;
        say!("embedded       {sum:.16}  {}", file.path);
    }
    Ok(Exit::Done)
}

/// The vector instructions that this machine's loops use.
fn instructions() -> &'static str {
    match pulp::Arch::new() {
        #[cfg(target_arch = "x86_64")]
        pulp::Arch::V4(_) => "AVX-512",
        #[cfg(target_arch = "x86_64")]
        pulp::Arch::V3(_) => "AVX2 with FMA",
        _ => "the baseline of the target",
    }
}

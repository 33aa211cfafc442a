//! `harness doctor`.

use super::Exit;
use super::cache_folder;
use super::track::{VARIABLE, parse};
use crate::data::DATASETS;
use crate::data::location::{self, locate};
use crate::embedded;
use crate::error::Result;
use crate::export::mlflow::Credentials;
use crate::hub::HubSettings;
use crate::store::processor;
use ptq::arch::ARCHS;
use ptq::methods::METHODS;

/// Prints versions, devices, folders and whether the embedded files are intact.
pub fn doctor() -> Result<Exit> {
    say!("harness        {} ({})", env!("CARGO_PKG_VERSION"), env!("HARNESS_GIT_REVISION"));
    let cuda = match (cfg!(feature = "cudnn"), cfg!(feature = "cuda")) {
        (true, _) => "with CUDA and cuDNN",
        (false, true) => "with CUDA",
        (false, false) => "without CUDA",
    };
    say!("device         cpu ({}); this binary was built {cuda}", std::env::consts::ARCH);
    #[cfg(feature = "cuda")]
    say_gpus();
    say!("threads        {} (RAYON_NUM_THREADS sets them)", rayon::current_num_threads());
    say!("processor      {}", processor::describe());
    let cache = cache_folder::kept().map(|folder| folder.display().to_string());
    say!("cache          {}", cache.unwrap_or_else(|| "none: HARNESS_CACHE is unset, and so is HOME".to_string()));
    let hub = HubSettings::from_env();
    let mode = match (hub.offline, &hub.token) {
        (true, _) => "offline",
        (false, Some(_)) => "with a token",
        (false, None) => "without a token",
    };
    say!("hub            {} ({mode}), cache {}", hub.shown_endpoint(), hub.cache.display());
    // A name or password in it is not shown.
    let tracker = std::env::var(VARIABLE).ok().map(|text| match parse(VARIABLE, &text) {
        Ok(address) => address.to_string(),
        Err(_) => "not an address of HTTP".to_string(),
    });
    let login = if Credentials::from_env().is_given() { "with" } else { "without" };
    say!("mlflow         {} ({VARIABLE}), {login} a token or password", tracker.as_deref().unwrap_or("unset"));
    let architectures: Vec<&str> = ARCHS.iter().map(|arch| arch.name).collect();
    let root = location::root();
    let shown = root.as_ref().map_or("unset".to_string(), |root| root.display().to_string());
    say!("data           {} ({} is where data sets lie, one folder each)", shown, location::ROOT);
    for dataset in DATASETS {
        // What a cell would be told is what there is to know.
        let found = match locate(dataset, None, root.as_deref()) {
            Ok(location) => location.to_string(),
            Err(_) if root.is_none() => format!("not found: {} is unset", location::ROOT),
            Err(error) => format!("not found: {error}"),
        };
        say!("  {:<14}{found}", dataset.name);
    }
    let methods: Vec<&str> = METHODS.iter().map(|method| method.name).collect();
    say!("architectures  {}", architectures.join(", "));
    say!("methods        {}", methods.join(", "));
    for file in embedded::FILES {
        let (_, sum) = embedded::read(file.path)?;
        say!("embedded       {sum:.16}  {}", file.path);
    }
    Ok(Exit::Done)
}

/// The GPUs, the versions of their libraries, and whether each computes what the CPU does.
#[cfg(feature = "cuda")]
fn say_gpus() {
    use ptq::device_error::DeviceError;
    use ptq::ops::cuda;
    use ptq::ops::self_test::self_test;
    let gpus = match cuda::gpus() {
        Ok(gpus) if gpus.is_empty() => {
            return say!("gpu            none (CUDA_VISIBLE_DEVICES chooses which are seen)");
        }
        Ok(gpus) => gpus,
        Err(problem) => return say!("gpu            none: {}", DeviceError::explained(&problem.to_string())),
    };
    let versions: Vec<String> = cuda::versions().into_iter().map(|(of, version)| format!("{of} {version}")).collect();
    for (index, gpu) in gpus.iter().enumerate() {
        let (major, minor) = gpu.compute_capability;
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let memory = format!("{:.1} of {:.1} GiB free", gib(gpu.free_bytes), gib(gpu.memory_bytes));
        say!("gpu            cuda:{index} {}, compute capability {major}.{minor}, {memory}", gpu.name);
        match self_test(index) {
            Err(problem) => say!("  self-test    failed: {}", DeviceError::explained(&problem.to_string())),
            Ok(checks) => {
                for check in checks {
                    let verdict = if check.is_passed() { "as on the CPU" } else { "NOT as on the CPU" };
                    say!("  {:<22} {verdict} ({:.1e} apart)", check.operation, check.distance);
                }
            }
        }
    }
    say!("libraries      {}", versions.join(", "));
}

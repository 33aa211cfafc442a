//! The processor that computes: the last bits of a result may depend on its vector instructions.

/// Its model, as the system names it, and the vector instructions that our loops use.
pub fn describe() -> String {
    let model = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| model(&text).map(str::to_string));
    format!("{} ({})", model.as_deref().unwrap_or(std::env::consts::ARCH), instructions())
}

/// The same, behind the GPU that `device` (`cuda:N`) names.
pub fn describe_with(device: &str) -> String {
    #[cfg(feature = "cuda")]
    if let Some(name) = device.strip_prefix("cuda:").and_then(|index| ptq::ops::cuda::name(index.parse().ok()?)) {
        return format!("{name}; {}", describe());
    }
    #[cfg(not(feature = "cuda"))]
    let _ = device;
    describe()
}

/// The model that `/proc/cpuinfo` names first.
fn model(cpuinfo: &str) -> Option<&str> {
    let fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(key, value)| (key.trim(), value.trim())).find(|(key, _)| *key == "model name").map(|(_, value)| value)
}

/// The vector instructions that this machine's loops use.
pub fn instructions() -> &'static str {
    match pulp::Arch::new() {
        #[cfg(target_arch = "x86_64")]
        pulp::Arch::V4(_) => "AVX-512",
        #[cfg(target_arch = "x86_64")]
        pulp::Arch::V3(_) => "AVX2 with FMA",
        _ => "the baseline of the target",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_read_where_there_is_one() {
        let cpuinfo = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel\t\t: 1\nmodel name\t: AMD EPYC 7B13: 64 Core\n";
        assert_eq!(model(cpuinfo), Some("AMD EPYC 7B13: 64 Core"));
        assert_eq!(model("processor : 0\n"), None);
        assert!(describe().ends_with(&format!("({})", instructions())));
    }
}

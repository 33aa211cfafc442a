//! Where a cell's weights come from.

use super::embedded;
use super::hub::{HUB_PREFIX, HubFile};
use crate::arch::ArchSpec;
use std::path::Path;

/// How a cell names the weights that are compiled into the binary.
pub const EMBEDDED: &str = "embedded";
/// How it names weights that no training made.
pub const MADE_UP: &str = "made-up";
/// How it names a file.
pub(super) const FILE_PREFIX: &str = "file:";

/// What a cell's `weights` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WeightsSource<'a> {
    /// `embedded`: compiled into the binary.
    Embedded,
    /// `file:PATH`.
    File(&'a Path),
    /// `hub:OWNER/NAME[@REVISION]/FILE`.
    Hub(HubFile),
    /// `made-up`: by a rule instead of training ([`made_up`](crate::arch::made_up)), to try things out.
    MadeUp,
}

impl<'a> WeightsSource<'a> {
    /// Errors: why `spec` is none of them.
    pub fn parse(spec: &'a str) -> Result<Self, String> {
        match spec.strip_prefix(FILE_PREFIX) {
            Some(path) if !path.is_empty() => Ok(Self::File(Path::new(path))),
            None if spec == EMBEDDED => Ok(Self::Embedded),
            None if spec == MADE_UP => Ok(Self::MadeUp),
            None if spec.starts_with(HUB_PREFIX) => spec.parse().map(Self::Hub),
            _ => Err(format!(
                "weights {spec:?} are none of \"{EMBEDDED}\", \"{FILE_PREFIX}PATH\", \
                 \"{HUB_PREFIX}OWNER/NAME[@REVISION]/FILE\" and \"{MADE_UP}\""
            )),
        }
    }
}

/// The `weights` of a cell that names none: what is compiled in for `arch` and `dataset`, else the architecture's on the
/// Hub.
pub fn default_weights(arch: &ArchSpec, dataset: &str) -> String {
    match arch.hub {
        Some(weights) if !embedded::contains(&embedded_model(arch.name, dataset)) => weights.spec(),
        _ => EMBEDDED.to_string(),
    }
}

/// Path under `assets/` of the weights that may be compiled in.
pub(super) fn embedded_model(arch: &str, dataset: &str) -> String {
    format!("{arch}-{dataset}/model.safetensors")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch;
    use crate::assets::hub::HubWeights;

    #[test]
    fn the_forms_are_told_apart() {
        assert_eq!(WeightsSource::parse("embedded"), Ok(WeightsSource::Embedded));
        assert_eq!(WeightsSource::parse("made-up"), Ok(WeightsSource::MadeUp));
        assert_eq!(WeightsSource::parse("file:hub:a"), Ok(WeightsSource::File(Path::new("hub:a"))));
        let hub = "hub:timm/resnet18.tv_in1k@main/model.safetensors";
        assert_eq!(WeightsSource::parse(hub), Ok(WeightsSource::Hub(hub.parse().unwrap())));
        for spec in ["elsewhere", "file:", "", "Embedded"] {
            assert!(WeightsSource::parse(spec).unwrap_err().contains("file:PATH"), "{spec:?}");
        }
        assert!(WeightsSource::parse("hub:a/../m").unwrap_err().contains("OWNER/NAME"));
    }

    #[test]
    fn weights_from_the_hub_are_the_default_where_none_are_compiled_in() {
        let hub = Some(HubWeights { repo: "timm/resnet20", file: "model.safetensors" });
        let resnet20 = arch::find("resnet20").unwrap();
        let with_hub = ArchSpec { hub, ..*resnet20 };
        assert_eq!(default_weights(&with_hub, "fashion-mnist"), "embedded");
        assert_eq!(default_weights(&with_hub, "elsewhere"), "hub:timm/resnet20/model.safetensors");
        assert_eq!(default_weights(resnet20, "elsewhere"), "embedded");
    }
}

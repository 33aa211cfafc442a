//! Where a cell's weights come from.

use crate::embedded;
use crate::hub::{HUB_PREFIX, HubFile};
use ptq::arch::ArchSpec;
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
    /// `file:PATH` or `file:PATH#TABLE`, as one: whether there is a file of the whole name decides when it is read.
    File(&'a Path),
    /// `hub:OWNER/NAME[@REVISION]/FILE` or `...#TABLE`.
    Hub { file: HubFile, table: Option<&'a str> },
    /// `made-up`: by a rule instead of training ([`made_up`](ptq::arch::made_up)), to try things out.
    MadeUp,
}

impl<'a> WeightsSource<'a> {
    /// Errors: why `spec` is none of them.
    pub fn parse(spec: &'a str) -> Result<Self, String> {
        match spec.strip_prefix(FILE_PREFIX) {
            Some(path) if !path.is_empty() => Ok(Self::File(Path::new(path))),
            None if spec == EMBEDDED => Ok(Self::Embedded),
            None if spec == MADE_UP => Ok(Self::MadeUp),
            None if spec.starts_with(HUB_PREFIX) => {
                let (file, table) = split_table(spec);
                file.parse().map(|file| Self::Hub { file, table })
            }
            _ => Err(format!(
                "weights {spec:?} are none of \"{EMBEDDED}\", \"{FILE_PREFIX}PATH\", \
                 \"{HUB_PREFIX}OWNER/NAME[@REVISION]/FILE\" and \"{MADE_UP}\" (a file of several tables of weights: \
                 \"...#TABLE\")"
            )),
        }
    }
}

/// The file and the table in it that the `PATH` or `PATH#TABLE` of a grid means; a file whose own name has a `#` is found
/// first.
pub(super) fn with_table(path: &Path) -> (&Path, Option<&str>) {
    match path.to_str() {
        Some(text) if !path.exists() => {
            let (file, table) = split_table(text);
            (Path::new(file), table)
        }
        _ => (path, None),
    }
}

fn split_table(spec: &str) -> (&str, Option<&str>) {
    match spec.rsplit_once('#') {
        Some((file, table)) if !file.is_empty() && !table.is_empty() => (file, Some(table)),
        _ => (spec, None),
    }
}

/// The `weights` of a cell that names none: what is compiled in for `arch` and `dataset`, else the architecture's on the
/// Hub.
pub fn default_weights(arch: &ArchSpec, dataset: &str) -> String {
    match arch.published {
        Some(weights) if !embedded::contains(&embedded_model(arch.name, dataset)) => {
            format!("{HUB_PREFIX}{}/{}", weights.repo, weights.file)
        }
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
    use ptq::arch;
    use ptq::arch::PublishedWeights;

    #[test]
    fn the_forms_are_told_apart() {
        assert_eq!(WeightsSource::parse("embedded"), Ok(WeightsSource::Embedded));
        assert_eq!(WeightsSource::parse("made-up"), Ok(WeightsSource::MadeUp));
        assert_eq!(WeightsSource::parse("file:hub:a"), Ok(WeightsSource::File(Path::new("hub:a"))));
        let hub = "hub:timm/resnet18.tv_in1k@main/model.safetensors";
        let file: HubFile = hub.parse().unwrap();
        for (spec, table) in [(hub.to_string(), None), (format!("{hub}#ema"), Some("ema"))] {
            assert_eq!(WeightsSource::parse(&spec), Ok(WeightsSource::Hub { file: file.clone(), table }));
        }
        for spec in ["elsewhere", "file:", "", "Embedded"] {
            assert!(WeightsSource::parse(spec).unwrap_err().contains("file:PATH"), "{spec:?}");
        }
        assert!(WeightsSource::parse("hub:a/../m").unwrap_err().contains("OWNER/NAME"));
    }

    #[test]
    fn a_table_is_named_behind_the_path_unless_the_file_is_called_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a#b.pth");
        assert_eq!(with_table(&path), (folder.path().join("a").as_path(), Some("b.pth")));
        std::fs::write(&path, "").unwrap();
        assert_eq!(with_table(&path), (path.as_path(), None));
        let table = folder.path().join("a#b.pth#ema/module");
        assert_eq!(with_table(&table), (path.as_path(), Some("ema/module")));
        assert_eq!(with_table(Path::new("x.pth#")), (Path::new("x.pth#"), None));
    }

    #[test]
    fn weights_from_the_hub_are_the_default_where_none_are_compiled_in() {
        let published = Some(PublishedWeights { repo: "timm/resnet20", file: "model.safetensors" });
        let resnet20 = arch::find("resnet20").unwrap();
        let with_hub = ArchSpec { published, ..*resnet20 };
        assert_eq!(default_weights(&with_hub, "fashion-mnist"), "embedded");
        assert_eq!(default_weights(&with_hub, "elsewhere"), "hub:timm/resnet20/model.safetensors");
        assert_eq!(default_weights(resnet20, "elsewhere"), "embedded");
    }
}

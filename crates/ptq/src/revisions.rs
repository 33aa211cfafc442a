//! Revisions of the arithmetic that methods share; a method's own stands beside it in [`METHODS`](crate::methods::METHODS).
//!
//! Who stores results stores the revisions with them: a result of another revision is not what this library computes. They
//! are raised by hand when any bit of a result changes; the fingerprints of the harness's tests say when that is due.

use crate::recipe::{Granularity, Recipe};

/// A part of the arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    pub name: &'static str,
    pub revision: u32,
}

/// Operations on tensors, passes over networks, random streams: `ops`, `graph`, `arch`, `rng`.
pub const OPS: Module = Module { name: "ops", revision: 1 };
/// Where quantizers sit, their starting ranges, and the passes that these are searched in: `quant`, `recon::start`.
pub const QUANT: Module = Module { name: "quant", revision: 1 };
/// The reconstruction of units: `recon`, `quantize`.
pub const RECON: Module = Module { name: "recon", revision: 1 };
/// Transform networks, their warm-up and their training: `meta`.
pub const META: Module = Module { name: "meta", revision: 1 };
/// Fixed augmentations: `augment`.
pub const AUGMENT: Module = Module { name: "augment", revision: 1 };

/// The modules that quantizing by `recipe` computes with; `augments` and `transforms` say whether images are augmented, and
/// whether a transform network changes them.
pub fn used(recipe: &Recipe, augments: bool, transforms: bool) -> impl Iterator<Item = Module> + use<> {
    let table = [
        (OPS, true),
        (QUANT, true),
        (RECON, recipe.granularity != Granularity::None),
        (META, transforms),
        (AUGMENT, augments),
    ];
    table.into_iter().filter(|(_, is_used)| *is_used).map(|(module, _)| module)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{arch, methods};

    #[test]
    fn only_what_a_recipe_computes_with_counts() {
        let names = |method: &str, augments: bool, transforms: bool| {
            let recipe = (methods::find(method).unwrap().recipe)(arch::find("resnet20").unwrap());
            used(&recipe, augments, transforms).map(|module| module.name).collect::<Vec<_>>()
        };
        assert_eq!(names("rtn", false, false), ["ops", "quant"]);
        assert_eq!(names("qdrop", false, false), ["ops", "quant", "recon"]);
        assert_eq!(names("qdrop", true, false), ["ops", "quant", "recon", "augment"]);
        assert_eq!(names("metaaug", false, true), ["ops", "quant", "recon", "meta"]);
    }
}

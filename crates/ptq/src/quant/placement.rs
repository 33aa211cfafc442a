//! Where activations are quantized, and which layers stay at 8 bits: a pass over the units.

use crate::graph::{Network, Node, Op, Role, Source, Unit};
use crate::recipe::{Bits, Setting};
use crate::recipe::{Placement, Recipe};

/// The width of the layers that the published settings spare.
const SPARED_BITS: u32 = 8;

/// One activation quantizer of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The tensor it quantizes: `input`, or the node that computes it.
    pub tensor: String,
    pub bits: u32,
}

/// The quantizers of one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitPlacement {
    /// Bits of each node's weight; `None` for nodes without one and for weights left in full precision.
    pub weight_bits: Vec<Option<u32>>,
    pub sites: Vec<Site>,
    /// Site at the output of each node.
    pub on_output: Vec<Option<usize>>,
    /// Site at each input slot of each node; consumers of one tensor share its site.
    pub on_input: Vec<Vec<Option<usize>>>,
}

/// Decides the quantizers of every unit.
///
/// Weights: `bits.w`; 8 for the first and the last layer. Activations, with [`Placement::Outputs`]: at the output of
/// every layer, after its activation function, except where it only feeds a sum, whose own output is quantized; with
/// [`Placement::LayerOutputs`] there too, and no sum is quantized.
/// With [`Placement::Inputs`]: at the input of every layer and of every sum that reads the unit's input directly, or by way of a
/// shortcut without weights.
/// The image is not quantized. The classifier's input has 8 bits if the recipe says so, the second layer's input in
/// [`Setting::Brecq`]; the others `bits.a`. A width of 32 places nothing.
pub fn place(network: &Network, bits: Bits, setting: Setting, recipe: &Recipe) -> Vec<UnitPlacement> {
    let last = network.units.len() - 1;
    let units = network.units.iter().enumerate();
    units
        .map(|(index, unit)| {
            let position =
                Position { stem: unit.role == Role::Stem, second: index == 1, feeds_classifier: index + 1 == last };
            let mut placed = match recipe.placement {
                Placement::Outputs | Placement::LayerOutputs => outputs(unit, &position, bits.a, setting, recipe),
                Placement::Inputs => inputs(unit, &position, bits.a, setting, recipe),
            };
            placed.weight_bits = weight_bits(unit, bits.w);
            placed
        })
        .collect()
}

/// What the 8-bit rules ask of a unit.
struct Position {
    stem: bool,
    second: bool,
    feeds_classifier: bool,
}

fn weight_bits(unit: &Unit, bits: u32) -> Vec<Option<u32>> {
    let bits = match (bits, unit.role) {
        (Bits::FULL, _) => None,
        (_, Role::Stem | Role::Classifier) => Some(SPARED_BITS),
        (bits, Role::Block) => Some(bits),
    };
    unit.nodes.iter().map(|node| node.op.weight().and(bits)).collect()
}

fn nowhere(unit: &Unit) -> UnitPlacement {
    UnitPlacement {
        weight_bits: vec![None; unit.nodes.len()],
        sites: Vec::new(),
        on_output: vec![None; unit.nodes.len()],
        on_input: unit.nodes.iter().map(|node| vec![None; node.inputs.len()]).collect(),
    }
}

fn outputs(unit: &Unit, position: &Position, bits: u32, setting: Setting, recipe: &Recipe) -> UnitPlacement {
    let mut placed = nowhere(unit);
    if unit.role == Role::Classifier || bits == Bits::FULL {
        return placed;
    }
    let sums = recipe.placement == Placement::Outputs;
    for (index, node) in unit.nodes.iter().enumerate() {
        let computes = match node.op {
            Op::Conv(_) | Op::Linear(_) => true,
            Op::Relu | Op::Relu6 => sums || follows_layer(unit, node),
            Op::Add => sums,
            _ => false,
        };
        // A layer goes on in its normalisation and activation function, and its sum is quantized as a whole.
        let goes_on = unit.consumers(Source::Node(index)).any(|(consumer, _)| match unit.nodes[consumer].op {
            Op::BatchNorm(_) | Op::Relu | Op::Relu6 => true,
            Op::Add => sums,
            _ => false,
        });
        if !computes || goes_on {
            continue;
        }
        let leaves_unit =
            !unit.consumers(Source::Node(index)).any(|(consumer, _)| unit.nodes[consumer].op.weight().is_some());
        let spared = leaves_unit
            && (position.stem && setting == Setting::Brecq
                || position.feeds_classifier && recipe.classifier_input_8bit);
        placed.on_output[index] = Some(placed.sites.len());
        placed.sites.push(Site { tensor: node.name.clone(), bits: if spared { SPARED_BITS } else { bits } });
    }
    placed
}

/// Whether `node` reads a layer, or the BatchNorm of one.
fn follows_layer(unit: &Unit, node: &Node) -> bool {
    match node.inputs[..] {
        [Source::Node(earlier)] => match unit.nodes[earlier].op {
            Op::Conv(_) | Op::Linear(_) => true,
            Op::BatchNorm(_) => follows_layer(unit, &unit.nodes[earlier]),
            _ => false,
        },
        _ => false,
    }
}

fn inputs(unit: &Unit, position: &Position, bits: u32, setting: Setting, recipe: &Recipe) -> UnitPlacement {
    let mut placed = nowhere(unit);
    if position.stem || bits == Bits::FULL {
        return placed;
    }
    let mut site_of: Vec<(Source, usize)> = Vec::new();
    for (index, node) in unit.nodes.iter().enumerate() {
        for (slot, &source) in node.inputs.iter().enumerate() {
            let passes = matches!(node.op, Op::Add | Op::PaddedIdentity { .. });
            let quantized = node.op.weight().is_some() || (passes && source == Source::Input);
            if !quantized {
                continue;
            }
            let known = site_of.iter().find(|(of, _)| *of == source).map(|(_, site)| *site);
            let site = known.unwrap_or_else(|| {
                let spared = unit.role == Role::Classifier && recipe.classifier_input_8bit
                    || position.second && source == Source::Input && setting == Setting::Brecq;
                let tensor = match source {
                    Source::Input => "input".to_string(),
                    Source::Node(earlier) => unit.nodes[earlier].name.clone(),
                };
                placed.sites.push(Site { tensor, bits: if spared { SPARED_BITS } else { bits } });
                site_of.push((source, placed.sites.len() - 1));
                placed.sites.len() - 1
            });
            placed.on_input[index][slot] = Some(site);
        }
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::StateDict;
    use crate::graph::fold_bn::fold_bn;
    use crate::{arch, methods};
    use candle_core::Device;
    use std::collections::HashMap;

    /// Tensors with their bits where BRECQ quantizes activations of `arch`, unit by unit.
    fn placed(arch: &str) -> Vec<Vec<(String, u32)>> {
        let arch = arch::find(arch).unwrap();
        let recipe = (methods::find("brecq").unwrap().recipe)(arch);
        let tensors = arch::made_up::tensors(arch, &arch::layout::TORCHVISION).unwrap();
        let mut weights = StateDict::new(tensors, str::to_string, &Device::Cpu).unwrap();
        let network = Network { arch: arch.name, units: (arch.build)(&mut weights) };
        let network = fold_bn(&network, recipe.batch_norm).unwrap();
        let placed = place(&network, Bits { w: 2, a: 2 }, Setting::Brecq, &recipe);
        let of = |unit: UnitPlacement| unit.sites.into_iter().map(|site| (site.tensor, site.bits)).collect();
        placed.into_iter().map(of).collect()
    }

    #[test]
    fn of_mnasnet_brecq_quantizes_what_layers_compute_and_no_sum() {
        let placed = placed("mnasnet1-0");
        let names = |tensors: &[&str], bits: u32| tensors.iter().map(|tensor| (tensor.to_string(), bits)).collect();
        let expected: Vec<(String, u32)> =
            names(&["layers.8.1.layers.2", "layers.8.1.layers.5", "layers.8.1.layers.6"], 2);
        assert_eq!(placed[4], expected);
        let ends: [Vec<(String, u32)>; 2] = [names(&["layers.0.relu"], 8), names(&["layers.14.relu"], 8)];
        assert_eq!([placed[0].clone(), placed[placed.len() - 2].clone()], ends);
    }

    /// The zeros of the shortcut, like those of a convolution's padding, are levels of any quantizer.
    #[test]
    fn a_padded_shortcut_reads_what_the_first_layer_reads() {
        let placed = |arch: &str, method: &str| {
            let arch = arch::find(arch).unwrap();
            let recipe = (methods::find(method).unwrap().recipe)(arch);
            let units = (arch.build)(&mut StateDict::new(HashMap::new(), str::to_string, &Device::Cpu).unwrap());
            let at = units.iter().position(|unit| unit.name == "layer2.0").unwrap();
            let network = Network { arch: arch.name, units };
            (place(&network, Bits { w: 2, a: 2 }, Setting::Qdrop, &recipe).remove(at), network.units[at].clone())
        };
        for method in ["qdrop", "genie-m"] {
            let (placed, unit) = placed("resnet20-identity", method);
            let shortcut = unit.nodes.iter().position(|node| matches!(node.op, Op::PaddedIdentity { .. })).unwrap();
            assert_eq!((placed.weight_bits[shortcut], placed.on_output[shortcut]), (None, None), "{method}");
            let conv1 = unit.nodes.iter().position(|node| node.name == "layer2.0.conv1").unwrap();
            assert_eq!(placed.on_input[shortcut], placed.on_input[conv1], "{method}");
            assert_eq!(placed.on_input[shortcut] == [Some(0)], method == "genie-m", "{method}");
        }
    }

    #[test]
    fn the_input_of_regnets_classifier_has_the_width_of_activations_in_brecq() {
        let placed = placed("regnetx-600m");
        assert!(placed[placed.len() - 2].iter().all(|(_, bits)| *bits == 2), "{placed:?}");
        assert_eq!(placed[0].iter().map(|(_, bits)| *bits).collect::<Vec<_>>(), [8]);
    }
}

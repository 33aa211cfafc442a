//! Cuts a unit into its layers, for methods that reconstruct layer by layer.

use crate::graph::{Node, Op, Source, Unit};
use crate::quant::model::QuantUnit;
use crate::quant::placement::UnitPlacement;

/// One layer of a unit: a convolution or linear layer with the activation function that only it feeds.
pub struct Layer {
    /// What it reads in the whole unit.
    pub input: Source,
    /// Its last node in the whole unit.
    pub last: usize,
    /// The layer as a unit of its own; it shares the quantizers' variables with the whole unit.
    pub unit: QuantUnit,
}

/// The layers of `unit`, in order.
pub fn layers(unit: &QuantUnit) -> Vec<Layer> {
    let nodes = &unit.unit.nodes;
    let weighted = nodes.iter().enumerate().filter(|(_, node)| node.op.weight().is_some());
    weighted
        .map(|(first, node)| {
            let consumers: Vec<usize> =
                unit.unit.consumers(Source::Node(first)).map(|(consumer, _)| consumer).collect();
            let last = match consumers[..] {
                [next] if matches!(nodes[next].op, Op::Relu | Op::Relu6) => next,
                _ => first,
            };
            Layer { input: node.inputs[0], last, unit: cut(unit, first, last) }
        })
        .collect()
}

/// Nodes `first` and `last` (which may be the same) as a unit.
fn cut(whole: &QuantUnit, first: usize, last: usize) -> QuantUnit {
    let kept: Vec<usize> = if first == last { vec![first] } else { vec![first, last] };
    let sources = [Source::Input, Source::Node(0)];
    let nodes = kept.iter().zip(sources).map(|(&index, source)| {
        let node = &whole.unit.nodes[index];
        Node { name: node.name.clone(), op: node.op.clone(), inputs: vec![source] }
    });
    let placement = &whole.placement;
    QuantUnit {
        unit: Unit { name: whole.unit.nodes[first].name.clone(), role: whole.unit.role, nodes: nodes.collect() },
        placement: UnitPlacement {
            weight_bits: kept.iter().map(|&index| placement.weight_bits[index]).collect(),
            sites: placement.sites.clone(),
            on_output: kept.iter().map(|&index| placement.on_output[index]).collect(),
            on_input: kept.iter().map(|&index| placement.on_input[index].clone()).collect(),
        },
        weights: kept.iter().map(|&index| whole.weights[index].clone()).collect(),
        acts: whole.acts.clone(),
    }
}

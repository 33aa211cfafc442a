//! Cuts out of a unit what is trained at once: the published codes know blocks and single layers, and what stands around a
//! lone layer (pooling, normalisation, activation function) may belong to no unit of theirs.

use super::event::Control;
use super::propagate;
use super::rows::Rows;
use crate::error::{Error, Result};
use crate::graph::{BatchNorm, Conv, Node, Op, Role, Source, Unit};
use crate::quant::model::{Mode, QuantUnit};
use crate::quant::placement::UnitPlacement;
use crate::recipe::{ClassifierMix, ConvTarget, Prefix, Recipe};
use candle_core::Tensor;

/// A unit, or a layer of it.
pub struct Part {
    /// What it reads in the whole unit.
    input: Source,
    /// Its last node in the whole unit.
    last: usize,
    /// The part as a unit of its own; it shares the quantizers' variables with the whole unit.
    pub unit: QuantUnit,
}

impl Part {
    /// What of `unit` is trained if units are: all of it, or its only layer as the recipe says.
    pub fn of_unit(unit: &QuantUnit, recipe: &Recipe) -> Part {
        let layer = match (unit.fp.role, recipe.classifier_mix) {
            (Role::Classifier, ClassifierMix::Features) => Self::lone_linear(unit),
            (Role::Classifier, ClassifierMix::Maps) => None,
            (Role::Stem | Role::Block, _) => Self::lone_convolution(unit, recipe.conv_target),
        };
        match layer {
            None => Part { input: Source::Input, last: unit.fp.nodes.len() - 1, unit: unit.clone() },
            Some(mut part) => {
                part.unit.fp.name.clone_from(&unit.fp.name);
                part
            }
        }
    }

    /// The convolution of a unit without other layers, as far as `target`; `None` for any other unit.
    pub fn lone_convolution(unit: &QuantUnit, target: ConvTarget) -> Option<Part> {
        let first = lone_layer(&unit.fp).filter(|_| target != ConvTarget::Unit)?;
        // All of the input goes through it.
        let is_first = first == 0 && unit.fp.consumers(Source::Input).count() == 1;
        (is_first && matches!(unit.fp.nodes[first].op, Op::Conv(_))).then(|| layer(unit, first, target))
    }

    /// The linear layer at the end of a unit without other layers.
    fn lone_linear(unit: &QuantUnit) -> Option<Part> {
        let first = lone_layer(&unit.fp)?;
        let is_last = first + 1 == unit.fp.nodes.len();
        (is_last && matches!(unit.fp.nodes[first].op, Op::Linear(_))).then(|| layer(unit, first, ConvTarget::Unit))
    }

    /// The convolutions and linear layers of `unit`, in order, each with the activation function that only it feeds; without
    /// it, and without BatchNorm, where `target` is the convolution.
    pub fn layers(unit: &QuantUnit, target: ConvTarget) -> Vec<Part> {
        weighted(&unit.fp).map(|first| layer(unit, first, target)).collect()
    }

    /// What the part reads and should compute, from what `whole` reads and should.
    pub fn rows(&self, whole: &QuantUnit, rows: &Rows, prefix: Prefix, control: &Control) -> Result<Rows> {
        let (x_fp, x_q) = match self.input {
            Source::Input => (rows.x_fp.clone(), rows.x_q.clone()),
            source => (
                propagate::full_precision_until(&whole.fp, &rows.x_fp, source, control)?,
                rows.x_q.map(control, |x| whole.read(x, Mode::of_prefix(prefix), source))?,
            ),
        };
        let ends_unit = self.last + 1 == whole.fp.nodes.len() && self.norm_behind(&whole.fp).is_none();
        let y_fp = match ends_unit {
            true => rows.y_fp.clone(),
            false => propagate::full_precision(&self.unit.fp, &x_fp, control)?,
        };
        Ok(Rows { x_fp, x_q, y_fp, logits: rows.logits.clone() })
    }

    /// What `whole` does with the part's output, in full precision; `None` if that is its own output.
    ///
    /// Errors: it reads something else as well, as behind one of several layers.
    pub fn rest(&self, whole: &Unit) -> Result<Option<Unit>> {
        let mut nodes = Vec::new();
        let mut output = Source::Input;
        if let Some((gain, bias)) = self.norm_behind(whole) {
            let mean = gain.zeros_like()?;
            let bias = bias.cloned().unwrap_or_else(|| mean.clone());
            let norm = BatchNorm { weight: gain.clone(), bias, mean, var: gain.ones_like()?, eps: 0.0 };
            let name = format!("{}.norm", whole.nodes[self.last].name);
            nodes.push(Node { name, op: Op::BatchNorm(norm), inputs: vec![output] });
            output = Source::Node(0);
        }
        let first = nodes.len();
        for node in &whole.nodes[self.last + 1..] {
            let inputs = node.inputs.iter().map(|source| match source {
                Source::Node(index) if *index == self.last => Ok(output),
                Source::Node(index) if *index > self.last => Ok(Source::Node(index - self.last - 1 + first)),
                _ => {
                    let problem = format!("{} of {} reads past the layer that is trained", node.name, whole.name);
                    Err(Error::Shape { op: "part of a unit", problem })
                }
            });
            let inputs = inputs.collect::<Result<_>>()?;
            nodes.push(Node { name: node.name.clone(), op: node.op.clone(), inputs });
        }
        Ok((!nodes.is_empty()).then(|| Unit { name: whole.name.clone(), role: whole.role, nodes }))
    }

    /// Gain and bias of the BatchNorm that follows the convolution in `whole` and that the part ends before.
    fn norm_behind<'a>(&self, whole: &'a Unit) -> Option<(&'a Tensor, Option<&'a Tensor>)> {
        match (&whole.nodes[self.last].op, self.unit.fp.nodes.last().map(|node| &node.op)) {
            (Op::Conv(Conv { gain: Some(gain), bias, .. }), Some(Op::Conv(Conv { gain: None, .. }))) => {
                Some((gain, bias.as_ref()))
            }
            _ => None,
        }
    }
}

/// The nodes of `unit` that have a weight.
fn weighted(unit: &Unit) -> impl Iterator<Item = usize> + '_ {
    unit.nodes.iter().enumerate().filter(|(_, node)| node.op.weight().is_some()).map(|(index, _)| index)
}

/// The only such node.
fn lone_layer(unit: &Unit) -> Option<usize> {
    let mut layers = weighted(unit);
    layers.next().filter(|_| layers.next().is_none())
}

/// The layer at node `first`.
fn layer(whole: &QuantUnit, first: usize, target: ConvTarget) -> Part {
    let nodes = &whole.fp.nodes;
    let ends_there = target == ConvTarget::Convolution && matches!(nodes[first].op, Op::Conv(_));
    let mut consumers = whole.fp.consumers(Source::Node(first)).map(|(consumer, _)| consumer);
    let last = match (consumers.next(), consumers.next()) {
        (Some(next), None) if !ends_there && matches!(nodes[next].op, Op::Relu | Op::Relu6) => next,
        _ => first,
    };
    let mut unit = cut(whole, first, last);
    if let (true, Op::Conv(conv)) = (ends_there, &mut unit.fp.nodes[0].op)
        && conv.gain.is_some()
    {
        (conv.gain, conv.bias) = (None, None);
    }
    Part { input: nodes[first].inputs[0], last, unit }
}

/// Nodes `first` and `last` (which may be the same) as a unit.
fn cut(whole: &QuantUnit, first: usize, last: usize) -> QuantUnit {
    let kept: Vec<usize> = if first == last { vec![first] } else { vec![first, last] };
    let sources = [Source::Input, Source::Node(0)];
    let nodes = kept.iter().zip(sources).map(|(&index, source)| {
        let node = &whole.fp.nodes[index];
        Node { name: node.name.clone(), op: node.op.clone(), inputs: vec![source] }
    });
    let placement = &whole.placement;
    QuantUnit {
        fp: Unit { name: whole.fp.nodes[first].name.clone(), role: whole.fp.role, nodes: nodes.collect() },
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::fold_bn::fold_bn;
    use crate::graph::forward::{FullPrecision, forward};
    use crate::graph::{Network, StateDict};
    use crate::quant::model::QuantModel;
    use crate::recipe::{Bits, Setting};
    use crate::{arch, methods};
    use candle_core::Device;

    /// ResNet-18 as `recipe` folds and quantizes it, with made-up weights.
    fn quantized(recipe: &Recipe) -> QuantModel {
        let arch = arch::find("resnet18").unwrap();
        let tensors = arch::made_up::tensors(arch, &arch::layout::TORCHVISION).unwrap();
        let mut weights = StateDict::new(tensors, str::to_string, &Device::Cpu).unwrap();
        let network = Network { arch: arch.name, units: (arch.build)(&mut weights) };
        let network = fold_bn(&network, recipe.batch_norm).unwrap();
        QuantModel::new(&network, Bits { w: 2, a: 2 }, Setting::Qdrop, recipe).unwrap()
    }

    fn recipe(method: &str) -> Recipe {
        let recipe = (methods::find(method).unwrap().recipe)(arch::find("resnet18").unwrap());
        Recipe { weight_search: crate::recipe::RangeSearch::MinMax, ..recipe }
    }

    fn kinds(unit: &Unit) -> Vec<&'static str> {
        unit.nodes.iter().map(|node| node.op.kind()).collect()
    }

    #[test]
    fn units_of_one_layer_are_cut_as_the_recipe_says_and_blocks_are_not() {
        let genie = recipe("genie-m");
        let parts = |recipe: &Recipe| {
            let model = quantized(recipe);
            let of = |index: usize| kinds(&Part::of_unit(&model.units[index], recipe).unit.fp);
            [of(0), of(1), of(model.units.len() - 1)]
        };
        let block = vec!["conv", "relu", "conv", "add", "relu"];
        let whole = vec!["global-avg-pool", "flatten", "linear"];
        assert_eq!(parts(&genie), [vec!["conv"], block.clone(), vec!["linear"]]);
        assert_eq!(parts(&recipe("qdrop")), [vec!["conv", "relu"], block.clone(), vec!["linear"]]);
        let before = Recipe { conv_target: ConvTarget::Unit, classifier_mix: ClassifierMix::Maps, ..genie };
        assert_eq!(parts(&before), [vec!["conv", "relu", "max-pool"], block, whole]);
    }

    #[test]
    fn a_part_and_the_rest_behind_it_are_the_unit() {
        let x = candle_core::Tensor::arange(0f32, 2.0 * 3.0 * 12.0 * 12.0, &Device::Cpu).unwrap();
        let x = (x.reshape((2, 3, 12, 12)).unwrap() * 0.01).unwrap().sin().unwrap();
        let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (method, rest) in [("genie-m", vec!["batch-norm", "relu", "max-pool"]), ("qdrop", vec!["max-pool"])] {
            let recipe = recipe(method);
            let model = quantized(&recipe);
            let stem = &model.units[0];
            let part = Part::of_unit(stem, &recipe);
            let behind = part.rest(&stem.fp).unwrap().unwrap();
            assert_eq!(kinds(&behind), rest);
            let y = forward(&part.unit.fp, &x, &FullPrecision).unwrap();
            let whole = flat(&forward(&stem.fp, &x, &FullPrecision).unwrap());
            for (ours, expected) in flat(&forward(&behind, &y, &FullPrecision).unwrap()).iter().zip(&whole) {
                assert!((ours - expected).abs() < 1e-5, "{method}: {ours}, not {expected}");
            }
            // The same quantizers, not copies.
            let scale = |unit: &QuantUnit| unit.weights[0].as_ref().unwrap().scale.id();
            assert_eq!(scale(&part.unit), scale(stem));
            assert!(Part::of_unit(&model.units[1], &recipe).rest(&model.units[1].fp).unwrap().is_none());
        }
    }

    #[test]
    fn nothing_reads_past_a_layer_that_has_a_rest() {
        let recipe = recipe("adaround");
        let block = &quantized(&recipe).units[1];
        let layers = Part::layers(block, recipe.conv_target);
        assert_eq!(
            layers.iter().map(|layer| kinds(&layer.unit.fp)).collect::<Vec<_>>(),
            [vec!["conv", "relu"], vec!["conv"]]
        );
        let error = layers[1].rest(&block.fp).unwrap_err().to_string();
        assert!(error.contains("reads past the layer"), "{error}");
    }
}

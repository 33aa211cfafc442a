//! How much memory a cell will take, from the shapes of its network alone.

use super::evaluate::eval_batch;
use crate::error::Result;
use crate::experiment::Cell;
use ptq::graph::shapes::shapes;
use ptq::graph::{Network, Op, Role, Source, Unit};
use ptq::recipe::{ConvTarget, Granularity, Loss, Prefix};
use ptq::recon::activations::BATCH;
use ptq::recon::start::searches_first;

// What no shape tells was fitted to measured peaks (`benches/NOTES.md`).

/// Code, tables, and small buffers.
const BASE_BYTES: f64 = 90e6;
/// The allocator keeps some blocks that a pass has freed: the factor by which this raises the memory of a pass.
const HELD: f64 = 1.8;
/// Values of a pass that a gradient follows, per value of its graph: the values themselves, what quantizers make of them, and
/// gradients.
const WITH_GRADIENT: f64 = 3.0;
/// The same for the passes of the meta-loss through the whole network, where each gradient is freed as soon as it has been used.
const WITH_META_GRADIENT: f64 = 2.0;
/// Copies of a weight: as loaded, in the network, folded, and in the quantizer.
const WEIGHT_COPIES: f64 = 6.0;

/// Copies of a transform network's parameters: values, gradients, clipped gradients, two moments, and what is remembered of a
/// warm-up.
const TRANSFORM_COPIES: f64 = 7.0;

/// What of a network determines the memory that its cells take.
pub struct Footprint {
    units: Vec<Values>,
    /// Of all quantizable weights.
    weights: usize,
    /// `(C, H, W)`.
    image: [usize; 3],
    /// Of the images that the data set keeps in memory.
    data_bytes: u64,
}

/// Values per image around one unit, whose BatchNorm layers are folded.
struct Values {
    role: Role,
    input: f64,
    output: f64,
    /// The most at the same time in a pass without gradient.
    live: f64,
    /// All that a gradient needs.
    graph: f64,
    /// Of the layer whose input and output together are largest.
    layer: f64,
    /// Output of the convolution of a unit without other layers; 0 in any other.
    lone_convolution: f64,
}

impl Footprint {
    /// Errors: a network that takes no such images.
    pub fn new(network: &Network, image: [usize; 3], data_bytes: u64) -> Result<Self> {
        let mut input = image.to_vec();
        let units = network.units.iter().map(|unit| {
            let outputs = shapes(unit, &input)?;
            let values = Values::new(unit, &input, &outputs);
            input = outputs.last().cloned().unwrap_or_default();
            Ok(values)
        });
        let units = units.collect::<Result<_>>()?;
        let weights = network.units.iter().flat_map(|unit| &unit.nodes).filter_map(|node| node.op.weight());
        Ok(Self { units, weights: weights.map(|weight| weight.elem_count()).sum(), image, data_bytes })
    }

    /// The peak of the resident memory in bytes while `cell` runs with at most `memory_bytes` of activations in memory: an
    /// estimate, within a quarter of what was measured (`benches/NOTES.md`).
    pub fn peak_bytes(&self, cell: &Cell, memory_bytes: u64) -> u64 {
        let [channels, height, width] = self.image;
        let (recipe, calib) = (&cell.recipe, cell.calib_images as f64);
        let largest_live = self.units.iter().map(|unit| unit.live).fold(0.0, f64::max);
        let searched = recipe.act_search_images.min(cell.calib_images) as f64;
        let mut phase = HELD * eval_batch(height, width) as f64 * largest_live;
        // At once, before anything is trained or after the weights are.
        if searches_first(recipe) || !recipe.quantize_acts {
            phase = phase.max(HELD * searched * largest_live);
        }
        if recipe.granularity != Granularity::None {
            let mut behind: f64 = self.units.iter().map(|unit| unit.graph).sum();
            for unit in &self.units {
                behind -= unit.graph;
                phase = phase.max(self.reconstruction(cell, unit, behind, (searched, memory_bytes)));
            }
        }
        let images = calib * (channels * height * width) as f64;
        let (parameters, transform) = self.transform(cell);
        let values =
            phase.max(transform) + images + WEIGHT_COPIES * self.weights as f64 + TRANSFORM_COPIES * parameters;
        (BASE_BYTES + self.data_bytes as f64 + 4.0 * values) as u64
    }

    /// Values while `unit` is reconstructed; `behind`: of the graph of all later units.
    fn reconstruction(&self, cell: &Cell, unit: &Values, behind: f64, (searched, memory_bytes): (f64, u64)) -> f64 {
        let (recipe, calib) = (&cell.recipe, cell.calib_images as f64);
        let quantized_input = if recipe.unit_input == Prefix::FullPrecision { 0.0 } else { unit.input };
        let is_new = cell.transform.is_some() || !cell.augment.is_empty();
        let is_joined = is_new && cell.meta.as_ref().map_or(unit.role == Role::Block, |meta| meta.reaches(unit.role));
        // The target of a convolution that ends before its unit does.
        let own_target = match recipe.conv_target {
            ConvTarget::Unit => 0.0,
            ConvTarget::Activation if unit.lone_convolution <= unit.output => 0.0,
            ConvTarget::Activation | ConvTarget::Convolution => unit.lone_convolution,
        };
        let original = unit.input + quantized_input + unit.output + own_target;
        // Those of the calibration images, of the new ones, and of both together.
        let mut kept = if is_joined { 4.0 * original } else { original };
        if recipe.correction_iterations > 0 {
            kept += unit.input + unit.output;
        }
        if recipe.granularity == Granularity::Layer {
            kept += unit.layer + unit.input;
        }
        if recipe.loss == Loss::Fisher {
            kept += unit.output;
        }
        let within = |values: f64| (calib * values).min(memory_bytes as f64 / 4.0);
        let batch = recipe.batch as f64 * if is_joined { 2.0 } else { 1.0 };
        let judged = if recipe.prediction_weight > 0.0 { unit.graph + behind } else { 0.0 };
        let mut work = HELD * BATCH.min(cell.calib_images) as f64 * unit.live;
        if unit.role != Role::Stem || recipe.reconstruct_stem {
            work = work.max(batch * (unit.graph + judged) * WITH_GRADIENT);
        }
        if recipe.act_search_prefix.waits() {
            work = work.max(HELD * searched * unit.live);
        }
        if recipe.loss == Loss::Fisher {
            work = work.max(recipe.batch as f64 * behind * WITH_GRADIENT);
        }
        let mut peak = within(kept) + work;
        if let (Some(meta), true) = (&cell.meta, is_joined) {
            let all: f64 = self.units.iter().map(|unit| unit.graph).sum();
            let step = (meta.batch + meta.outer_batch) as f64 * all * WITH_META_GRADIENT;
            peak = peak.max(within(original) + step + self.transform(cell).1);
        }
        peak
    }

    /// Parameters of the transform network of `cell`, and the values of a step that trains it.
    fn transform(&self, cell: &Cell) -> (f64, f64) {
        let Some(config) = &cell.transform else { return (0.0, 0.0) };
        let [channels, height, width] = self.image;
        let batch = cell.meta.as_ref().map_or(0, |meta| meta.batch).max(config.warmup_batch) as f64;
        let size = (config.net.0.size)(config, channels, height * width);
        (size.parameters as f64, batch * size.values as f64 * WITH_META_GRADIENT)
    }
}

impl Values {
    /// From the shapes of the unit's input and of its nodes' outputs.
    fn new(unit: &Unit, input: &[usize], outputs: &[Vec<usize>]) -> Self {
        let elements = |shape: &[usize]| shape.iter().product::<usize>() as f64;
        let of = |source: &Source| match source {
            Source::Input => elements(input),
            Source::Node(index) => elements(&outputs[*index]),
        };
        // A rectifier is computed with what is before it, BatchNorm is folded, and flattening moves nothing.
        let is_free = |op: &Op| matches!(op, Op::Relu | Op::Relu6 | Op::BatchNorm(_) | Op::Flatten);
        let own = |index: usize| if is_free(&unit.nodes[index].op) { 0.0 } else { elements(&outputs[index]) };
        let layers = unit.nodes.iter().enumerate().filter(|(_, node)| node.op.weight().is_some());
        // At each node: what is still to be read, the node's output, and a copy of its input as a quantizer makes it.
        let at_node = |index: usize| {
            let is_read =
                |earlier: &usize| unit.nodes[index..].iter().any(|node| node.inputs.contains(&Source::Node(*earlier)));
            let waiting: f64 = (0..index).filter(is_read).map(|earlier| elements(&outputs[earlier])).sum();
            elements(input) + waiting + own(index) + of(&unit.nodes[index].inputs[0])
        };
        Self {
            role: unit.role,
            input: elements(input),
            output: outputs.last().map_or(0.0, |shape| elements(shape)),
            live: (0..outputs.len()).map(at_node).fold(0.0, f64::max),
            graph: elements(input) + (0..outputs.len()).map(own).sum::<f64>(),
            layer: layers.clone().map(|(index, node)| of(&node.inputs[0]) + own(index)).fold(0.0, f64::max),
            lone_convolution: match layers.collect::<Vec<_>>()[..] {
                [(index, node)] if matches!(node.op, Op::Conv(_)) => own(index),
                _ => 0.0,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Hub;
    use crate::launch::Loader;
    use crate::store::record::Record;
    use candle_core::Device;
    use ptq::arch;
    use ptq::augment::Augmentation;
    use ptq::methods;

    const UNLIMITED: u64 = u64::MAX;

    fn cell(arch: &str, method: &str, calib_images: usize) -> Cell {
        let mut cell = Record::sample("x", method, "W2A2", 0).cell;
        let recipe = methods::find(method).unwrap().recipe;
        cell.recipe = recipe(arch::find(arch).unwrap());
        Cell { arch: arch.to_string(), calib_images, ..cell }
    }

    #[test]
    fn activations_of_the_sample_are_in_it_as_far_as_the_budget_goes() {
        let mut loader = Loader::new(&Device::Cpu, Hub::silent());
        let mut peak = |cell: &Cell, memory| loader.peak_bytes(cell, memory).unwrap();
        let (few, many) = (cell("resnet20", "qdrop", 1024), cell("resnet20", "qdrop", 2048));
        // Input in full precision and quantized, and output, of 16 channels of 28 x 28, and the images.
        let rows = 4 * 1024 * (3 * 16 * 28 * 28 + 28 * 28);
        assert_eq!(peak(&many, UNLIMITED) - peak(&few, UNLIMITED), rows);
        assert_eq!(peak(&many, 0) - peak(&few, 0), 4 * 1024 * 28 * 28);
        assert_eq!(peak(&few, UNLIMITED), peak(&few, 1 << 40));
    }

    #[test]
    fn methods_that_keep_more_take_more() {
        let mut loader = Loader::new(&Device::Cpu, Hub::silent());
        for arch in ["resnet20", "mobilenetv2-tiny"] {
            let mut peak = |cell: Cell| loader.peak_bytes(&cell, UNLIMITED).unwrap();
            let [rtn, adaround, qdrop] = ["rtn", "adaround", "qdrop"].map(|method| peak(cell(arch, method, 1024)));
            let joined = peak(Cell { augment: vec![Augmentation::Mixup], ..cell(arch, "qdrop", 1024) });
            assert!(rtn <= qdrop && qdrop < adaround && qdrop < joined, "{arch}: {rtn} {adaround} {qdrop} {joined}");
        }
    }
}

//! A quantized network from tensors and their description, which may be anybody's: whatever is wrong with them is an error.

use super::{ACT_SCALE, ACT_ZERO_POINT, ActEntry, At, Description, LEVELS, SCALE, UnitEntry, WeightEntry, ZERO_POINT};
use crate::arch::{self, Shapes};
use crate::error::{Error, Result};
use crate::graph::fold_bn::fold_structure;
use crate::graph::{Node, Op, Unit};
use crate::ops::fake_quant::ClipOrder;
use crate::ops::finite::is_finite;
use crate::quant::act::ActQuantizer;
use crate::quant::model::{QuantModel, QuantUnit};
use crate::quant::packing::unpack;
use crate::quant::placement::{Site, UnitPlacement};
use crate::quant::range_search::Range;
use crate::quant::weight::{Integers, WeightQuantizer};
use crate::recipe::Bits;
use candle_core::{DType, Device, Tensor};
use std::collections::{BTreeMap, HashMap};

/// The network that `description` and `tensors` are, for passes in [`Mode::HARD`](crate::quant::model::Mode::HARD): nothing is left of its
/// full-precision weights. Messages say that it comes from `origin`.
///
/// Errors: [`Error::Weights`], once, with all that is missing, left over, of another shape or no numbers, or that the architecture has not.
pub fn load(
    description: &Description,
    tensors: HashMap<String, Tensor>,
    origin: &str,
    device: &Device,
) -> Result<QuantModel> {
    let mut loading = Loading { tensors: tensors.into_iter().collect(), problems: Vec::new(), device };
    let model = loading.model(description)?;
    loading.problems.extend(loading.tensors.keys().map(|name| format!("unexpected {name}")));
    match (model, loading.problems.is_empty()) {
        (Some(model), true) => Ok(model),
        (_, _) => Err(Error::Weights {
            arch: description.architecture.clone(),
            origin: origin.to_string(),
            problems: loading.problems,
        }),
    }
}

/// Tensors not yet taken, and what was wrong so far.
struct Loading<'a> {
    tensors: BTreeMap<String, Tensor>,
    problems: Vec<String>,
    device: &'a Device,
}

/// A quantized weight as its node will have it.
struct Weight {
    quantizer: Option<WeightQuantizer>,
    value: Tensor,
}

impl Loading<'_> {
    /// `None` where a problem leaves nothing to go on with.
    fn model(&mut self, description: &Description) -> Result<Option<QuantModel>> {
        let Some(spec) = arch::find(&description.architecture) else {
            self.problems.push(format!("there is no architecture {:?}", description.architecture));
            return Ok(None);
        };
        let mut weights = HashMap::new();
        for entry in description.units.iter().flat_map(|unit| &unit.weights) {
            match self.weight(entry)? {
                Ok(weight) => drop(weights.insert(entry.node.clone(), weight)),
                Err(problem) => self.problems.push(format!("{}.weight {problem}", entry.node)),
            }
        }
        if !self.problems.is_empty() {
            // What is left is of no interest beside them.
            self.tensors.clear();
            return Ok(None);
        }
        let values = weights.iter().map(|(node, weight)| (format!("{node}.weight"), weight.value.clone()));
        let known: HashMap<String, Tensor> = values.chain(self.tensors.clone()).collect();
        let (units, shapes) = arch::structure(spec, known, self.device)?;
        let units = fold_structure(&units, description.batch_norm, &Tensor::new(0f32, self.device)?)?;
        let names = |names: Vec<&str>| names.join(", ");
        let described: Vec<&str> = description.units.iter().map(|unit| unit.name.as_str()).collect();
        let own: Vec<&str> = units.iter().map(|unit| unit.name.as_str()).collect();
        if described != own {
            self.problems.push(format!("the units are {}, not {}", names(described), names(own)));
            self.tensors.clear();
            return Ok(None);
        }
        let loaded = units.into_iter().zip(&description.units);
        let loaded = loaded.map(|(unit, entry)| self.unit(unit, entry, &mut weights, &shapes));
        let model = QuantModel { units: loaded.collect::<Result<_>>()? };
        self.problems.extend(weights.keys().map(|node| format!("unexpected {node}.weight")));
        self.check_sizes(description, &model);
        Ok(Some(model))
    }

    fn check_sizes(&mut self, description: &Description, model: &QuantModel) {
        let ops = || model.units.iter().flat_map(|unit| unit.fp.nodes.iter().map(|node| &node.op));
        let classes = ops().filter_map(Op::weight).next_back().and_then(|weight| weight.dims().first().copied());
        let channels = ops().find_map(|op| match op {
            Op::Conv(conv) => conv.weight.dims().get(1).map(|of_group| of_group * conv.geometry.groups),
            _ => None,
        });
        for (what, described, own) in
            [("classes", description.classes, classes), ("channels", description.input[0], channels)]
        {
            if Some(described) != own {
                self.problems.push(format!("{described} {what} are described, the weights have {}", own.unwrap_or(0)));
            }
        }
    }

    /// Takes the tensors of a weight; the inner error is what is wrong with them.
    fn weight(&mut self, entry: &WeightEntry) -> Result<Result<Weight, String>> {
        let Some(bits) = entry.bits else {
            return Ok(self
                .take(&format!("{}.weight", entry.node), &entry.shape, DType::F32)?
                .map(|value| Weight { quantizer: None, value }));
        };
        let mut take = |name: &str, dtype: DType| match self.tensors.remove(&format!("{}.{name}", entry.node)) {
            None => Err(format!("is missing {name}")),
            Some(tensor) if tensor.dtype() != dtype => Err(format!("has {name} of {}", tensor.dtype().as_str())),
            Some(tensor) => Ok(tensor),
        };
        let parts = (take(LEVELS, DType::U8), take(SCALE, DType::F32), take(ZERO_POINT, DType::F32));
        let (levels, scale, zero_point) = match parts {
            (Ok(levels), Ok(scale), Ok(zero_point)) => (levels, scale, zero_point),
            (Err(problem), _, _) | (_, Err(problem), _) | (_, _, Err(problem)) => return Ok(Err(problem)),
        };
        let integers = integers(entry, bits, (&levels, &scale, &zero_point))?;
        let integers = match integers {
            Ok(integers) => integers,
            Err(problem) => return Ok(Err(problem)),
        };
        let value = integers.weight(self.device)?;
        Ok(Ok(Weight { quantizer: Some(WeightQuantizer::of_integers(&integers, self.device)?), value }))
    }

    /// Removes tensor `name`; the inner error says what is wrong with it.
    fn take(&mut self, name: &str, shape: &[usize], dtype: DType) -> Result<Result<Tensor, String>> {
        Ok(match self.tensors.remove(name) {
            None => Err("is missing".to_string()),
            Some(tensor) if tensor.dims() != shape => Err(format!("has shape {:?}, not {shape:?}", tensor.dims())),
            Some(tensor) if tensor.dtype() != dtype => Err(format!("holds {}", tensor.dtype().as_str())),
            Some(tensor) if dtype == DType::F32 && !is_finite(&tensor)? => {
                Err("holds NaN or infinite numbers".to_string())
            }
            Some(tensor) => Ok(tensor.to_device(self.device)?),
        })
    }

    /// The same; a problem is noted and `None`.
    fn required(&mut self, node: &str, name: &str, shape: &[usize]) -> Result<Option<Tensor>> {
        let name = format!("{node}.{name}");
        let taken = self.take(&name, shape, DType::F32)?;
        Ok(taken.map_err(|problem| self.problems.push(format!("{name} {problem}"))).ok())
    }

    /// `unit` with its parameters and quantizers.
    fn unit(
        &mut self,
        mut unit: Unit,
        entry: &UnitEntry,
        weights: &mut HashMap<String, Weight>,
        shapes: &Shapes,
    ) -> Result<QuantUnit> {
        let mut quantizers = Vec::with_capacity(unit.nodes.len());
        for node in &mut unit.nodes {
            quantizers.push(self.node(node, weights.remove(&node.name), shapes)?);
        }
        let (placement, acts) = self.acts(&unit, entry)?;
        let weight_bits = quantizers.iter().map(|quantizer| quantizer.as_ref().map(|own| own.bits)).collect();
        Ok(QuantUnit { fp: unit, placement: UnitPlacement { weight_bits, ..placement }, weights: quantizers, acts })
    }

    /// Gives `node` its parameters, and returns the quantizer of its weight.
    fn node(&mut self, node: &mut Node, weight: Option<Weight>, shapes: &Shapes) -> Result<Option<WeightQuantizer>> {
        let name = node.name.clone();
        let shape_of = |parameter: &str| shapes.get(&format!("{name}.{parameter}")).cloned().unwrap_or_default();
        let Some(own) = node.op.weight() else {
            if let Op::BatchNorm(norm) = &mut node.op {
                let parameters = [&mut norm.weight, &mut norm.bias, &mut norm.mean, &mut norm.var];
                for (parameter, own) in ["weight", "bias", "running_mean", "running_var"].into_iter().zip(parameters) {
                    if let Some(tensor) = self.required(&name, parameter, &shape_of(parameter))? {
                        *own = tensor;
                    }
                }
            }
            if weight.is_some() {
                self.problems.push(format!("{name} is a {}, which has no such weight", node.op.kind()));
            }
            return Ok(None);
        };
        let expected = shape_of("weight");
        let Some(weight) = weight else {
            self.problems.push(format!("missing {name}.weight {expected:?}"));
            return Ok(None);
        };
        if own.dims() != expected || weight.value.dims() != expected {
            self.problems.push(format!("{name}.weight has shape {:?}, not {expected:?}", weight.value.dims()));
            return Ok(None);
        }
        let per_channel = [expected[0]];
        let (bias, gain) = match &mut node.op {
            Op::Conv(conv) => (conv.bias.as_mut(), conv.gain.as_mut()),
            Op::Linear(linear) => (linear.bias.as_mut(), None),
            _ => (None, None),
        };
        for (parameter, own) in [("bias", bias), ("gain", gain)] {
            if let Some(own) = own
                && let Some(tensor) = self.required(&name, parameter, &per_channel)?
            {
                *own = tensor;
            }
        }
        Ok(weight.quantizer)
    }

    /// The activation quantizers of `unit`, and where they sit.
    fn acts(&mut self, unit: &Unit, entry: &UnitEntry) -> Result<(UnitPlacement, Vec<ActQuantizer>)> {
        let mut placement = UnitPlacement {
            weight_bits: Vec::new(),
            sites: Vec::new(),
            on_output: vec![None; unit.nodes.len()],
            on_input: unit.nodes.iter().map(|node| vec![None; node.inputs.len()]).collect(),
        };
        let n = [entry.activations.len()];
        if n == [0] {
            return Ok((placement, Vec::new()));
        }
        let scales = self.required(&unit.name, ACT_SCALE, &n)?;
        let zero_points = self.required(&unit.name, ACT_ZERO_POINT, &n)?;
        let (Some(scales), Some(zero_points)) = (scales, zero_points) else { return Ok((placement, Vec::new())) };
        let ranges = scales.to_vec1::<f32>()?.into_iter().zip(zero_points.to_vec1::<f32>()?);
        let mut acts = Vec::with_capacity(entry.activations.len());
        for (act, (scale, zero_point)) in entry.activations.iter().zip(ranges) {
            let range = Range { scale, zero_point };
            if let Some(problem) = problem_of(act, range).or_else(|| sit(act, unit, &mut placement)) {
                self.problems.push(format!("the activation {} of unit {} {problem}", act.tensor, unit.name));
                continue;
            }
            // The order decides about gradients alone, and there are none.
            let mut quantizer = ActQuantizer::new(act.bits, ClipOrder::RoundThenClip, false)?;
            quantizer.set_range(range, self.device)?;
            acts.push(quantizer);
        }
        Ok((placement, acts))
    }
}

/// Levels, scales and zero points as they are in their tensors; the inner error is what is wrong with them.
fn integers(
    entry: &WeightEntry,
    bits: u32,
    (levels, scale, zero_point): (&Tensor, &Tensor, &Tensor),
) -> Result<Result<Integers, String>> {
    let count = entry.shape.iter().try_fold(1usize, |count, extent| count.checked_mul(*extent));
    let (Some(count), Some(&channels)) = (count.filter(|count| *count > 0), entry.shape.first()) else {
        return Ok(Err(format!("of shape {:?} has no elements, or more than there can be", entry.shape)));
    };
    if !is_width(bits) {
        return Ok(Err(format!("has levels of {bits} bits: they have 2 to 8")));
    }
    for (name, tensor) in [(SCALE, scale), (ZERO_POINT, zero_point)] {
        if tensor.dims() != [channels] {
            return Ok(Err(format!("has {name} of shape {:?}, not [{channels}]", tensor.dims())));
        }
        if !is_finite(tensor)? {
            return Ok(Err(format!("has {name} with NaN or infinite numbers")));
        }
    }
    let (scale, zero_point) = (scale.to_vec1::<f32>()?, zero_point.to_vec1::<f32>()?);
    if zero_point.iter().any(|zero_point| zero_point.fract() != 0.0) {
        return Ok(Err("has a zero point that is no whole number".to_string()));
    }
    let levels = unpack(&levels.flatten_all()?.to_vec1::<u8>()?, count, bits);
    Ok(levels.map(|levels| Integers { bits, shape: entry.shape.clone(), levels, scale, zero_point }))
}

/// Whether levels may have so many bits.
fn is_width(bits: u32) -> bool {
    (2..=8).contains(&bits) && bits != Bits::FULL
}

/// What is wrong with the numbers of an activation quantizer.
fn problem_of(act: &ActEntry, range: Range) -> Option<String> {
    match () {
        () if !is_width(act.bits) => Some(format!("has levels of {} bits: they have 2 to 8", act.bits)),
        () if range.zero_point.fract() != 0.0 => Some("has a zero point that is no whole number".to_string()),
        () if range.scale == 0.0 => Some("has a scale of 0".to_string()),
        () => None,
    }
}

/// Puts the next site of `placement` where `act` says; otherwise what is wrong with that.
fn sit(act: &ActEntry, unit: &Unit, placement: &mut UnitPlacement) -> Option<String> {
    let site = placement.sites.len();
    for At { node, input } in &act.at {
        let Some(index) = unit.nodes.iter().position(|own| own.name == *node) else {
            return Some(format!("is at {node}, which the unit has not"));
        };
        let place = match input {
            None => Some(&mut placement.on_output[index]),
            Some(slot) => placement.on_input[index].get_mut(*slot),
        };
        match place {
            None => return Some(format!("is at input {} of {node}, which it has not", input.unwrap_or(0))),
            Some(Some(_)) => return Some(format!("is at {node}, where another is")),
            Some(place) => *place = Some(site),
        }
    }
    placement.sites.push(Site { tensor: act.tensor.clone(), bits: act.bits });
    None
}

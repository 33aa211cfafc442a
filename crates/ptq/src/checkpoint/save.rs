//! A quantized network as tensors and their description.

use super::{
    ACT_SCALE, ACT_ZERO_POINT, ActEntry, At, Description, LEVELS, SCALE, Saved, UnitEntry, WeightEntry, ZERO_POINT,
};
use crate::error::{Error, Result};
use crate::graph::{Node, Op};
use crate::quant::model::{QuantModel, QuantUnit};
use crate::quant::packing::pack;
use crate::recipe::{BatchNormMode, Bits};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;

/// What [`load`](super::load) makes `model` of again: `arch` whose BatchNorm was folded as `batch_norm` says, for images of shape `input`.
///
/// Errors: a weight that no levels are; an activation quantizer whose range was not searched.
pub fn save(
    model: &QuantModel,
    arch: &str,
    input: [usize; 3],
    (bits, batch_norm): (Bits, BatchNormMode),
) -> Result<Saved> {
    let mut tensors = Tensors::default();
    let units = model.units.iter().map(|unit| {
        let weights = unit.fp.nodes.iter().enumerate().map(|(index, node)| tensors.node(unit, index, node));
        let weights = weights.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        Ok(UnitEntry { name: unit.fp.name.clone(), weights, activations: tensors.acts(unit)? })
    });
    let units: Vec<UnitEntry> = units.collect::<Result<_>>()?;
    let last = units.iter().flat_map(|unit| &unit.weights).next_back();
    let classes = last.and_then(|entry| entry.shape.first().copied()).unwrap_or(0);
    let description = Description { architecture: arch.to_string(), classes, input, bits, batch_norm, units };
    Ok(Saved { description, tensors: tensors.0 })
}

/// Tensors by name, on the CPU.
#[derive(Default)]
struct Tensors(BTreeMap<String, Tensor>);

impl Tensors {
    fn put(&mut self, owner: &str, name: &str, tensor: &Tensor) -> Result<()> {
        self.0.insert(format!("{owner}.{name}"), tensor.detach().to_device(&Device::Cpu)?.contiguous()?);
        Ok(())
    }

    fn put_all<'t>(
        &mut self,
        owner: &str,
        named: impl IntoIterator<Item = (&'t str, Option<&'t Tensor>)>,
    ) -> Result<()> {
        named.into_iter().try_for_each(|(name, tensor)| tensor.map_or(Ok(()), |tensor| self.put(owner, name, tensor)))
    }

    /// Takes the parameters of a node; the entry of its weight, if it has one.
    fn node(&mut self, unit: &QuantUnit, index: usize, node: &Node) -> Result<Option<WeightEntry>> {
        let name = node.name.as_str();
        match &node.op {
            Op::Conv(conv) => {
                self.put_all(name, [("bias", conv.bias.as_ref()), ("gain", conv.gain.as_ref())])?;
            }
            Op::Linear(linear) => self.put_all(name, [("bias", linear.bias.as_ref())])?,
            Op::BatchNorm(norm) => {
                let (mean, var) = (("running_mean", Some(&norm.mean)), ("running_var", Some(&norm.var)));
                self.put_all(name, [("weight", Some(&norm.weight)), ("bias", Some(&norm.bias)), mean, var])?;
            }
            _ => (),
        }
        let Some(weight) = node.op.weight() else { return Ok(None) };
        let shape = weight.dims().to_vec();
        let entry = |bits| Ok(Some(WeightEntry { node: name.to_string(), shape, bits }));
        let Some(quantizer) = &unit.weights[index] else {
            self.put(name, "weight", weight)?;
            return entry(None);
        };
        let integers = quantizer.integers()?;
        let (levels, channels) = (pack(&integers.levels, integers.bits), integers.scale.len());
        let bytes = levels.len();
        self.put(name, LEVELS, &Tensor::from_vec(levels, bytes, &Device::Cpu)?)?;
        self.put(name, SCALE, &Tensor::from_vec(integers.scale, channels, &Device::Cpu)?)?;
        self.put(name, ZERO_POINT, &Tensor::from_vec(integers.zero_point, channels, &Device::Cpu)?)?;
        entry(Some(integers.bits))
    }

    /// Takes the activation quantizers that some node of `unit` uses.
    fn acts(&mut self, unit: &QuantUnit) -> Result<Vec<ActEntry>> {
        let (mut entries, mut scales, mut zero_points) = (Vec::new(), Vec::new(), Vec::new());
        for (site, (act, placed)) in unit.acts.iter().zip(&unit.placement.sites).enumerate() {
            let at = places(unit, site);
            if at.is_empty() {
                continue;
            }
            let range = act.range()?.ok_or_else(|| Error::Shape {
                op: "checkpoint",
                problem: format!(
                    "the range of the activation {} in unit {} was not searched",
                    placed.tensor, unit.fp.name
                ),
            })?;
            scales.push(range.scale);
            zero_points.push(range.zero_point);
            entries.push(ActEntry { tensor: placed.tensor.clone(), bits: act.bits, at });
        }
        if !entries.is_empty() {
            let n = entries.len();
            self.put(&unit.fp.name, ACT_SCALE, &Tensor::from_vec(scales, n, &Device::Cpu)?)?;
            self.put(&unit.fp.name, ACT_ZERO_POINT, &Tensor::from_vec(zero_points, n, &Device::Cpu)?)?;
        }
        Ok(entries)
    }
}

/// Where `unit` uses the quantizer of `site`.
fn places(unit: &QuantUnit, site: usize) -> Vec<At> {
    let nodes = unit.fp.nodes.iter().enumerate();
    let places = nodes.flat_map(|(index, node)| {
        let inputs = unit.placement.on_input[index].iter().enumerate().map(|(slot, of)| (Some(slot), *of));
        let all = inputs.chain([(None, unit.placement.on_output[index])]);
        all.filter(|(_, of)| *of == Some(site)).map(|(input, _)| At { node: node.name.clone(), input })
    });
    places.collect()
}

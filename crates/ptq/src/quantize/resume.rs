//! What is kept of a reconstruction, unit by unit, so that one that was interrupted goes on where it was.
//!
//! Everything between two units is computed again: activations, losses' weights and random numbers follow from the images, the recipe and the
//! seed. Only what was trained has to be kept.

use crate::error::{Error, Result};
use crate::meta::nets::TransformNet;
use crate::quant::model::{QuantModel, QuantUnit};
use crate::quant::range_search::Range;
use crate::recon::event::{Control, Event};
use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// A unit after a phase has trained it.
#[derive(Debug)]
pub struct TrainedUnit {
    /// Values of its quantizers, and of the transform network as it is then.
    pub tensors: HashMap<String, Tensor>,
    /// What the phase told of it, but for its steps.
    pub events: Vec<Event>,
}

/// Where trained units are kept. What is lost is only computed again.
pub trait TrainedUnits {
    /// That of unit `index` after `phase`, if there is one.
    fn find(&self, phase: &str, index: usize) -> Option<TrainedUnit>;

    /// Keeps one.
    fn keep(&self, phase: &str, index: usize, unit: TrainedUnit);
}

/// A unit in a phase that may have been there before.
pub(super) struct Resumable<'a> {
    pub kept: Option<&'a dyn TrainedUnits>,
    pub phase: &'a str,
    pub index: usize,
    /// The transform network that is trained along with it.
    pub net: Option<&'a TransformNet>,
    /// What computes.
    pub device: &'a Device,
}

impl Resumable<'_> {
    /// Brings the unit of `model`, and the transform network, to where the phase left them, and tells again what it told; otherwise
    /// has `train` do it, and keeps that.
    pub fn or_train(
        &self,
        model: &mut QuantModel,
        control: &Control,
        train: impl FnOnce(&mut QuantModel, &Control) -> Result<()>,
    ) -> Result<()> {
        let Some(kept) = self.kept else { return train(model, control) };
        if let Some(TrainedUnit { tensors, events }) = kept.find(self.phase, self.index)
            && self.restore(&mut model.units[self.index], &tensors).is_ok()
        {
            events.into_iter().for_each(control.observe);
            return Ok(());
        }
        let events = Mutex::new(Vec::new());
        let observe = |event: Event| {
            if !matches!(event, Event::Step { .. }) {
                events.lock().unwrap_or_else(PoisonError::into_inner).push(event.clone());
            }
            (control.observe)(event);
        };
        train(model, &Control { observe: &observe, cancelled: control.cancelled })?;
        let mut tensors = values(&model.units[self.index])?;
        if let Some(net) = self.net {
            tensors.extend(
                net.parameters.tensors()?.into_iter().map(|(name, value)| (format!("transform.{name}"), value)),
            );
        }
        let events = events.into_inner().unwrap_or_else(PoisonError::into_inner);
        kept.keep(self.phase, self.index, TrainedUnit { tensors, events });
        Ok(())
    }

    /// Errors: values of another unit or network; nothing is changed then.
    fn restore(&self, unit: &mut QuantUnit, tensors: &HashMap<String, Tensor>) -> Result<()> {
        let known = values(unit)?;
        let fits = |(name, value): (&String, &Tensor)| {
            // A range is found only when a unit has its turn.
            tensors.get(name).is_some_and(|kept| kept.shape() == value.shape() || name.starts_with(ACT))
        };
        if !known.iter().all(fits) {
            let problem = "values of another unit".to_string();
            return Err(Error::Shape { op: "trained unit", problem });
        }
        if let Some(net) = self.net {
            let of_net =
                |(name, value): (&String, &Tensor)| Some((name.strip_prefix("transform.")?.to_string(), value.clone()));
            net.parameters.load(&tensors.iter().filter_map(of_net).collect())?;
        }
        set(unit, tensors, self.device)
    }
}

/// Begins the name of an activation quantizer's range.
const ACT: &str = "act.";

/// `weight.NODE.scale`, `weight.NODE.learned.I` and `act.SITE`, the last `(2)`, scale and zero point, or empty before its range is found.
fn values(unit: &QuantUnit) -> Result<HashMap<String, Tensor>> {
    let mut values = HashMap::new();
    for (node, weight) in unit.weights.iter().enumerate() {
        let Some(weight) = weight else { continue };
        values.insert(format!("weight.{node}.scale"), weight.scale.as_detached_tensor().copy()?);
        for (index, learned) in weight.learned.iter().enumerate() {
            values.insert(format!("weight.{node}.learned.{index}"), learned.as_detached_tensor().copy()?);
        }
    }
    for (site, act) in unit.acts.iter().enumerate() {
        let range: Vec<f32> = act.range()?.into_iter().flat_map(|range| [range.scale, range.zero_point]).collect();
        let count = range.len();
        values.insert(format!("{ACT}{site}"), Tensor::from_vec(range, count, &Device::Cpu)?);
    }
    Ok(values)
}

/// Sets what [`values`] gave.
fn set(unit: &mut QuantUnit, values: &HashMap<String, Tensor>, device: &Device) -> Result<()> {
    let value = |name: String| {
        values.get(&name).ok_or_else(|| Error::Shape { op: "trained unit", problem: format!("it has no {name}") })
    };
    for (node, weight) in unit.weights.iter().enumerate() {
        let Some(weight) = weight else { continue };
        weight.scale.set(&value(format!("weight.{node}.scale"))?.to_device(device)?)?;
        for (index, learned) in weight.learned.iter().enumerate() {
            learned.set(&value(format!("weight.{node}.learned.{index}"))?.to_device(device)?)?;
        }
    }
    for (site, act) in unit.acts.iter_mut().enumerate() {
        let range = value(format!("{ACT}{site}"))?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        if let [scale, zero_point] = range[..] {
            act.set_range(Range { scale, zero_point }, device)?;
        }
    }
    Ok(())
}

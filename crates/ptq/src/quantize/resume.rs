//! What is kept of a reconstruction, unit by unit, so that one that was interrupted goes on where it was.
//!
//! Everything between two units is computed again: activations, losses' weights and random numbers follow from the images, the recipe and the
//! seed. Only what was trained has to be kept.

use crate::error::{Error, Result};
use crate::meta::nets::TransformNet;
use crate::quant::model::{QuantModel, QuantUnit};
use crate::quant::range_search::Range;
use crate::recon::event::{Control, Event};
use crate::recon::midway::{Loops, Midways};
use candle_core::{DType, Device, Tensor, Var};
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

/// Where trained units are kept, and those that are being trained. What is lost is only computed again.
pub trait TrainedUnits: Midways {
    /// That of unit `index` after `phase`, if there is one.
    fn find(&self, phase: &str, index: usize) -> Option<TrainedUnit>;

    /// Keeps one, in place of all that was kept while it was trained.
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
        train: impl FnOnce(&mut QuantModel, &Control, &Loops) -> Result<()>,
    ) -> Result<()> {
        let Some(kept) = self.kept else { return train(model, control, &Loops::unkept()) };
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
        let loops = Loops::of(kept, self.phase, self.index);
        train(model, &Control { observe: &observe, cancelled: control.cancelled }, &loops)?;
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
        let fits = |(name, var): (String, &Var)| tensors.get(&name).is_some_and(|kept| kept.shape() == var.shape());
        // A range is found only when a unit has its turn.
        let has_acts = (0..unit.acts.len()).all(|site| tensors.contains_key(&format!("{ACT}{site}")));
        if !has_acts || !vars(unit).all(fits) {
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
    let copy = |(name, var): (String, &Var)| Ok((name, var.as_detached_tensor().copy()?));
    let mut values = vars(unit).map(copy).collect::<Result<HashMap<_, _>>>()?;
    for (site, act) in unit.acts.iter().enumerate() {
        let range: Vec<f32> = act.range()?.into_iter().flat_map(|range| [range.scale, range.zero_point]).collect();
        let count = range.len();
        values.insert(format!("{ACT}{site}"), Tensor::from_vec(range, count, &Device::Cpu)?);
    }
    Ok(values)
}

/// Those of the weights, by name.
fn vars(unit: &QuantUnit) -> impl Iterator<Item = (String, &Var)> {
    let weights = unit.weights.iter().enumerate().filter_map(|(node, weight)| Some((node, weight.as_ref()?)));
    weights.flat_map(|(node, weight)| {
        let learned = weight.learned.iter().enumerate();
        let learned = learned.map(move |(index, learned)| (format!("weight.{node}.learned.{index}"), learned));
        std::iter::once((format!("weight.{node}.scale"), &weight.scale)).chain(learned)
    })
}

/// Sets what [`values`] gave.
fn set(unit: &mut QuantUnit, values: &HashMap<String, Tensor>, device: &Device) -> Result<()> {
    let value = |name: String| {
        values.get(&name).ok_or_else(|| Error::Shape { op: "trained unit", problem: format!("it has no {name}") })
    };
    for (name, var) in vars(unit) {
        var.set(&value(name)?.to_device(device)?)?;
    }
    for (site, act) in unit.acts.iter_mut().enumerate() {
        let range = value(format!("{ACT}{site}"))?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        if let [scale, zero_point] = range[..] {
            act.set_range(Range { scale, zero_point }, device)?;
        }
    }
    Ok(())
}

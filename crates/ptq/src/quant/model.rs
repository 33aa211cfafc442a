//! A network with its quantizers.

use super::act::ActQuantizer;
use super::placement::{UnitPlacement, place};
use super::range_search::{Range, search_act, search_weight};
use super::weight::WeightQuantizer;
use crate::error::{Error, Result};
use crate::graph::finite::check_finite;
use crate::graph::forward::{self, Hooks};
use crate::graph::{Network, Op, Source, Unit};
use crate::ops::fake_quant::Mask;
use crate::ops::finite::is_finite;
use crate::ops::rounding::{Regulariser, SoftWeight};
use crate::recipe::{Bits, Setting};
use crate::recipe::{Prefix, RangeSearch, Recipe};
use candle_core::{DType, Device, Tensor};
use std::cell::RefCell;
use tracing::info_span;

/// One unit with its quantizers.
#[derive(Clone, Debug)]
pub struct QuantUnit {
    /// The unit itself, with its full-precision parameters.
    pub fp: Unit,
    pub placement: UnitPlacement,
    /// Per node.
    pub weights: Vec<Option<WeightQuantizer>>,
    /// Per site of the placement.
    pub acts: Vec<ActQuantizer>,
}

/// A network whose every unit has its quantizers.
#[derive(Clone, Debug)]
pub struct QuantModel {
    pub units: Vec<QuantUnit>,
}

/// What a quantized pass quantizes.
#[derive(Clone, Copy)]
pub struct Mode<'a> {
    pub weights: Weights<'a>,
    pub acts: Acts<'a>,
}

/// Which weights a pass uses.
#[derive(Clone, Copy)]
pub enum Weights<'a> {
    FullPrecision,
    /// Softly rounded ones, per node ([`QuantUnit::soft_weights`]).
    Soft(&'a [Option<SoftWeight>]),
    Hard,
}

/// How a pass treats activations.
#[derive(Clone, Copy)]
pub enum Acts<'a> {
    FullPrecision,
    Quantized,
    /// Quantized, without a gradient to the scales: what no gradient needs makes room as a pass goes on.
    Fixed,
    /// Quantized where the masks say, full precision elsewhere.
    Dropped(&'a dyn Masks),
}

/// Chooses the elements of an activation that are quantized.
pub trait Masks {
    /// Mask of the activation that node `node` reads at `slot`, or writes if `slot` is `None`.
    fn mask(&self, node: usize, slot: Option<usize>) -> Mask;
}

impl Mode<'_> {
    /// The finished quantized network.
    pub const HARD: Mode<'static> = Mode { weights: Weights::Hard, acts: Acts::Fixed };

    /// The pass that computes the prefix of later units.
    pub fn of_prefix(prefix: Prefix) -> Mode<'static> {
        match prefix {
            Prefix::FullPrecision => Mode { weights: Weights::FullPrecision, acts: Acts::FullPrecision },
            Prefix::QuantizedWeights => Mode { weights: Weights::Hard, acts: Acts::FullPrecision },
            Prefix::Quantized => Mode::HARD,
        }
    }
}

impl QuantUnit {
    /// All weights, softly rounded, for [`Weights::Soft`]: per node, in the shape of its weight, with the penalty of `regulariser`. Gradient: to what
    /// the roundings learn, and to their scales.
    pub fn soft_weights(&self, regulariser: Option<Regulariser>) -> Result<Vec<Option<SoftWeight>>> {
        self.weights.iter().map(|weight| weight.as_ref().map(|weight| weight.soft(regulariser)).transpose()).collect()
    }

    /// Output `(N, ...)` of the unit for input `x` `(N, ...)`, as `mode` computes it.
    ///
    /// Gradient: to `x` and to activation scales, straight through roundings (not to the scales in [`Acts::Fixed`]); to soft weights in
    /// [`Weights::Soft`], to weight scales otherwise. Errors: activations whose ranges were not searched; an `x` that does not fit.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        forward::forward(&self.fp, x, &Pass::new(self, mode))
    }

    /// The same; `see` is told what each activation quantizer is given, by its site.
    pub fn forward_seen(&self, x: &Tensor, mode: Mode, see: &See) -> Result<Tensor> {
        forward::forward(&self.fp, x, &Pass { see: Some(see), ..Pass::new(self, mode) })
    }

    /// The same; NaN or infinite numbers in it are an error that names the node at which they arise.
    pub fn forward_checked(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let pass = Pass::new(self, mode);
        let y = forward::forward(&self.fp, x, &pass)?;
        check_finite(&self.fp, x, &y, &pass, "once quantized")?;
        Ok(y)
    }

    /// A unit of its own with the same values in variables of its own, everything as `dtype`. No gradient leads back to this one.
    pub fn copy(&self, dtype: DType) -> Result<Self> {
        let weights = self.weights.iter().map(|weight| weight.as_ref().map(|weight| weight.copy(dtype)).transpose());
        Ok(Self {
            fp: self.fp.to_dtype(dtype)?,
            placement: self.placement.clone(),
            weights: weights.collect::<Result<_>>()?,
            acts: self.acts.iter().map(|act| act.copy(dtype)).collect::<Result<_>>()?,
        })
    }

    /// The same with its weights as `weights` has them in place of its full-precision ones, their gains multiplied in: for many passes in
    /// [`Weights::FullPrecision`] that would compute them anew.
    pub fn with_fixed_weights(&self, weights: Weights) -> Result<Self> {
        let mut fixed = self.clone();
        for (index, node) in fixed.fp.nodes.iter_mut().enumerate() {
            if let Some(weight) = node.op.weight() {
                let weight = weights.apply(self.weights[index].as_ref(), index, weight)?;
                let weight = if let Op::Conv(conv) = &node.op { conv.scaled(&weight)? } else { weight };
                node.op = node.op.with_weight(weight.detach());
            }
        }
        Ok(fixed)
    }

    /// The activation quantizers that some node uses.
    pub fn used_acts(&self) -> impl Iterator<Item = &ActQuantizer> {
        let placement = &self.placement;
        let is_used = |site: usize| {
            placement.on_output.contains(&Some(site)) || placement.on_input.iter().flatten().any(|at| *at == Some(site))
        };
        self.acts.iter().enumerate().filter(move |(site, _)| is_used(*site)).map(|(_, act)| act)
    }

    /// What a consumer of `source` inside the unit reads when the unit is given `x`; gradients as in [`Self::forward`].
    pub fn read(&self, x: &Tensor, mode: Mode, source: Source) -> Result<Tensor> {
        forward::read(&self.fp, x, &Pass::new(self, mode), source)
    }
}

/// Is told what each activation quantizer is given, by its site.
type See<'a> = dyn Fn(usize, &Tensor) -> Result<()> + 'a;

/// A pass over a quantized unit, which may search ranges as it goes.
struct Pass<'a> {
    unit: &'a QuantUnit,
    mode: Mode<'a>,
    search: Option<Search<'a>>,
    see: Option<&'a See<'a>>,
}

/// The quantizers whose ranges a pass searches; the unit's own are taken out for as long.
struct Search<'a> {
    acts: &'a RefCell<Vec<ActQuantizer>>,
    search: RangeSearch,
}

impl<'a> Pass<'a> {
    fn new(unit: &'a QuantUnit, mode: Mode<'a>) -> Self {
        Self { unit, mode, search: None, see: None }
    }

    fn act(&self, site: Option<usize>, x: Tensor, node: usize, slot: Option<usize>) -> Result<Tensor> {
        let Some(site) = site else { return Ok(x) };
        if let Some(see) = self.see {
            see(site, &x)?;
        }
        let Some(Search { acts, search }) = &self.search else {
            return self.mode.acts.apply(&self.unit.acts[site], x, node, slot);
        };
        let quantizer = &mut acts.borrow_mut()[site];
        if !quantizer.is_ready() {
            let range = search_act(&x, *search, quantizer.bits)?;
            quantizer.set_range(range, x.device())?;
        }
        self.mode.acts.apply(quantizer, x, node, slot)
    }
}

impl Hooks for Pass<'_> {
    fn weight(&self, node: usize, weight: &Tensor) -> Result<Tensor> {
        self.mode.weights.apply(self.unit.weights[node].as_ref(), node, weight)
    }

    fn input(&self, node: usize, slot: usize, x: Tensor) -> Result<Tensor> {
        self.act(self.unit.placement.on_input[node][slot], x, node, Some(slot))
    }

    fn output(&self, node: usize, y: Tensor) -> Result<Tensor> {
        self.act(self.unit.placement.on_output[node], y, node, None)
    }

    fn passes_on(&self, from: usize, to: usize) -> bool {
        self.unit.placement.on_output[from].is_none() && self.unit.placement.on_input[to].iter().all(Option::is_none)
    }
}

impl Weights<'_> {
    /// The weight of node `node` in this pass.
    fn apply(&self, quantizer: Option<&WeightQuantizer>, node: usize, full_precision: &Tensor) -> Result<Tensor> {
        match (quantizer, self) {
            (None, _) | (_, Weights::FullPrecision) => Ok(full_precision.clone()),
            (Some(quantizer), Weights::Hard) => quantizer.hard(),
            (Some(quantizer), Weights::Soft(soft)) => match &soft[node] {
                Some(soft) => Ok(soft.weight.clone()),
                None => quantizer.hard(),
            },
        }
    }
}

impl Acts<'_> {
    /// What becomes of an activation in this pass.
    fn apply(&self, quantizer: &ActQuantizer, x: Tensor, node: usize, slot: Option<usize>) -> Result<Tensor> {
        match self {
            Acts::FullPrecision => Ok(x),
            Acts::Quantized => quantizer.forward(&x, Mask::All),
            Acts::Fixed => quantizer.forward_fixed(&x),
            Acts::Dropped(masks) => quantizer.forward(&x, masks.mask(node, slot)),
        }
    }
}

impl QuantModel {
    /// Places the quantizers and searches the weights' scales, per output channel; activation ranges come with [`Self::search_acts`].
    ///
    /// Errors: weights that cannot be read from their device.
    pub fn new(network: &Network, bits: Bits, setting: Setting, recipe: &Recipe) -> Result<Self> {
        let _span = info_span!("weight scales").entered();
        let search = |weight: &Tensor, bits: u32| {
            let values = weight.flatten_all()?.to_vec1::<f32>()?;
            search_weight(&values, weight.dim(0)?, recipe.weight_search, bits)
        };
        Self::from_ranges(network, bits, setting, recipe, search)
    }

    /// Logits `(N, K)` for images `(N, C, H, W)`; gradients as in [`QuantUnit::forward`].
    ///
    /// Errors: NaN or infinite ones, with the node at which they arise.
    pub fn logits(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let y = self.units.iter().try_fold(x.clone(), |x, unit| unit.forward(&x, mode))?;
        if !is_finite(&y)? {
            self.units.iter().try_fold(x.clone(), |x, unit| unit.forward_checked(&x, mode))?;
        }
        Ok(y)
    }

    /// The same where [`Self::weight_ranges`] are known.
    ///
    /// Errors: ranges of other weights.
    pub fn with_weight_ranges(
        network: &Network,
        bits: Bits,
        setting: Setting,
        recipe: &Recipe,
        ranges: &[Vec<Range>],
    ) -> Result<Self> {
        let mut ranges = ranges.iter();
        let next = |weight: &Tensor, _| match ranges.next() {
            Some(ranges) if ranges.len() == weight.dim(0)? => Ok(ranges.clone()),
            _ => Err(other_ranges()),
        };
        let model = Self::from_ranges(network, bits, setting, recipe, next)?;
        if ranges.next().is_some() { Err(other_ranges()) } else { Ok(model) }
    }

    /// Places the quantizers; `ranges` gives those of a weight at so many bits.
    fn from_ranges(
        network: &Network,
        bits: Bits,
        setting: Setting,
        recipe: &Recipe,
        mut ranges: impl FnMut(&Tensor, u32) -> Result<Vec<Range>>,
    ) -> Result<Self> {
        let units = network.units.iter().zip(place(network, bits, setting, recipe));
        let units = units.map(|(unit, placement)| QuantUnit::new(unit, placement, recipe, &mut ranges));
        Ok(Self { units: units.collect::<Result<_>>()? })
    }

    /// The ranges of all quantized weights per output channel, in the order of units and nodes.
    pub fn weight_ranges(&self) -> Result<Vec<Vec<Range>>> {
        let weights = self.units.iter().flat_map(|unit| unit.weights.iter().flatten());
        weights.map(WeightQuantizer::ranges).collect()
    }

    /// The range of every activation quantizer, in the order of units and sites: one, or none if it was not searched.
    pub fn act_ranges(&self) -> Result<Vec<Vec<Range>>> {
        let acts = self.units.iter().flat_map(|unit| &unit.acts);
        acts.map(|act| Ok(act.range()?.into_iter().collect())).collect()
    }

    /// Sets what [`Self::act_ranges`] gave, for activations on `device`. Errors: those of another model; nothing is set then.
    pub fn set_act_ranges(&mut self, ranges: &[Vec<Range>], device: &Device) -> Result<()> {
        let acts: Vec<&mut ActQuantizer> = self.units.iter_mut().flat_map(|unit| &mut unit.acts).collect();
        if acts.len() != ranges.len() || ranges.iter().any(|range| range.len() > 1) {
            return Err(other_ranges());
        }
        for (act, range) in acts.into_iter().zip(ranges) {
            range.iter().try_for_each(|range| act.set_range(*range, device))?;
        }
        Ok(())
    }

    /// Searches the range of every activation quantizer on `images` `(N, C, H, W)`, in the order in which the network computes them, each behind
    /// those that were found before it. Errors: as for [`QuantUnit::forward`].
    pub fn search_acts(&mut self, images: &Tensor, search: RangeSearch, mode: Mode) -> Result<()> {
        let mut x = images.clone();
        for unit in &mut self.units {
            x = unit.search_acts(&x, search, mode)?.detach();
        }
        Ok(())
    }
}

fn other_ranges() -> Error {
    Error::Shape { op: "quantizers", problem: "ranges of another network, or placed otherwise".to_string() }
}

impl QuantUnit {
    fn new(
        unit: &Unit,
        placement: UnitPlacement,
        recipe: &Recipe,
        ranges: &mut impl FnMut(&Tensor, u32) -> Result<Vec<Range>>,
    ) -> Result<Self> {
        let weights =
            unit.nodes.iter().zip(&placement.weight_bits).map(|(node, bits)| match (node.op.weight(), bits) {
                (Some(weight), Some(bits)) => {
                    WeightQuantizer::new(weight, &ranges(weight, *bits)?, *bits, recipe.learned_rounding()).map(Some)
                }
                _ => Ok(None),
            });
        let weights = weights.collect::<Result<_>>()?;
        let acts = placement
            .sites
            .iter()
            .map(|site| ActQuantizer::new(site.bits, recipe.act_clip, recipe.lsq_gradient_factor));
        let acts = acts.collect::<Result<_>>()?;
        Ok(Self { fp: unit.clone(), placement, weights, acts })
    }
}

impl QuantUnit {
    /// Searches the ranges of the unit's activation quantizers for input `x` `(N, ...)`, each when its tensor first comes by, and
    /// returns the output `(N, ...)`; `mode` says what becomes of weights and, by the ranges just found, of activations.
    pub fn search_acts(&mut self, x: &Tensor, search: RangeSearch, mode: Mode) -> Result<Tensor> {
        let acts = RefCell::new(std::mem::take(&mut self.acts));
        let output = forward::forward(
            &self.fp,
            x,
            &Pass { search: Some(Search { acts: &acts, search }), ..Pass::new(self, mode) },
        );
        self.acts = acts.into_inner();
        output
    }
}

//! Units: what is reconstructed at once (stem, residual block, inverted residual, classifier), as lists of nodes.

use super::op::{BatchNorm, Conv, Linear, Op};
use super::state_dict::StateDict;
use crate::error::Result;
use crate::ops::conv::Geometry;
use crate::ops::pool::Pool;
use candle_core::DType;

/// Where a node reads from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The input of the unit.
    Input,
    /// The output of an earlier node of the unit, by index.
    Node(usize),
}

/// One operation and where its inputs come from.
#[derive(Clone, Debug)]
pub struct Node {
    /// Prefix of its weights (`layer1.0.conv1`), or a made-up one of the same style for weightless nodes.
    pub name: String,
    pub op: Op,
    pub inputs: Vec<Source>,
}

/// Position of a unit in its network; the first and last layers are treated apart by every method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Stem,
    Block,
    Classifier,
}

/// A list of nodes in topological order; the output of the unit is that of its last node.
#[derive(Clone, Debug)]
pub struct Unit {
    pub name: String,
    pub role: Role,
    pub nodes: Vec<Node>,
}

impl Unit {
    /// The same with all parameters as `dtype`.
    pub fn to_dtype(&self, dtype: DType) -> Result<Unit> {
        let nodes = self.nodes.iter().map(|node| Ok(Node { op: node.op.to_dtype(dtype)?, ..node.clone() }));
        Ok(Unit { nodes: nodes.collect::<Result<_>>()?, ..self.clone() })
    }

    /// The nodes (index and slot) that read `source`.
    pub fn consumers(&self, source: Source) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.nodes.iter().enumerate().flat_map(move |(index, node)| {
            node.inputs
                .iter()
                .enumerate()
                .filter(move |(_, input)| **input == source)
                .map(move |(slot, _)| (index, slot))
        })
    }
}

/// A network: units in order, each reading the output of the one before.
#[derive(Clone, Debug)]
pub struct Network {
    /// Name in [`crate::arch::ARCHS`].
    pub arch: &'static str,
    pub units: Vec<Unit>,
}

/// Lists the nodes of one unit while taking their tensors from a [`StateDict`].
///
/// Problems (a missing tensor, a wrong shape) are collected in the dictionary, so that the caller reports all at once.
pub struct UnitBuilder<'a> {
    weights: &'a mut StateDict,
    unit: Unit,
}

impl<'a> UnitBuilder<'a> {
    /// A unit without nodes, whose parameters are taken out of `weights` as nodes are pushed.
    pub fn new(weights: &'a mut StateDict, name: &str, role: Role) -> Self {
        Self { weights, unit: Unit { name: name.to_string(), role, nodes: Vec::new() } }
    }

    /// Appends a node and returns the source that reads it.
    pub fn push(&mut self, name: impl Into<String>, op: Op, inputs: &[Source]) -> Source {
        self.unit.nodes.push(Node { name: name.into(), op, inputs: inputs.to_vec() });
        Source::Node(self.unit.nodes.len() - 1)
    }

    /// Square convolution without bias; weights `<name>.weight` of shape `(c_out, c_in / groups, kernel, kernel)`.
    pub fn conv(
        &mut self,
        name: &str,
        input: Source,
        (c_in, c_out): (usize, usize),
        kernel: usize,
        geometry: Geometry,
    ) -> Source {
        let weight = self.weights.take(&format!("{name}.weight"), &[c_out, c_in / geometry.groups, kernel, kernel]);
        self.push(name, Op::Conv(Conv { weight, bias: None, gain: None, geometry }), &[input])
    }

    /// BatchNorm over `channels`; tensors `<name>.{weight,bias,running_mean,running_var}`, of which the variances must have a root.
    pub fn batch_norm(&mut self, name: &str, input: Source, channels: usize, eps: f64) -> Source {
        let mut take = |suffix: &str| self.weights.take(&format!("{name}.{suffix}"), &[channels]);
        let (weight, bias, mean) = (take("weight"), take("bias"), take("running_mean"));
        let var = self.weights.take_variances(&format!("{name}.running_var"), channels, eps);
        self.push(name, Op::BatchNorm(BatchNorm { weight, bias, mean, var, eps }), &[input])
    }

    /// Linear layer with bias; tensors `<name>.{weight,bias}`.
    pub fn linear(&mut self, name: &str, input: Source, (n_in, n_out): (usize, usize)) -> Source {
        let weight = self.weights.take(&format!("{name}.weight"), &[n_out, n_in]);
        let bias = Some(self.weights.take(&format!("{name}.bias"), &[n_out]));
        self.push(name, Op::Linear(Linear { weight, bias }), &[input])
    }

    /// The unit as built so far; its output is that of the node that was pushed last.
    pub fn max_pool(&mut self, name: &str, input: Source, pool: Pool) -> Source {
        self.push(name, Op::MaxPool(pool), &[input])
    }

    pub fn finish(self) -> Unit {
        self.unit
    }
}

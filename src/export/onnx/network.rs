//! Units as ONNX nodes, with the quantizers where the harness has them.

use super::graph::{Attribute, Graph};
use super::quantizers::{Activation, OnnxWeight};
use crate::error::{Error, Result};
use candle_core::Tensor;
use ptq::graph::shapes::shapes;
use ptq::graph::{BatchNorm, Node, Op, Source};
use ptq::ops::conv::Geometry;
use ptq::quant::model::QuantUnit;
use serde_json::{Map, Value, json};

/// A network under translation.
pub struct Translation {
    graph: Graph,
    /// Name and shape, without the batch, of what the next unit reads.
    value: String,
    shape: Vec<usize>,
    /// Bits and storage of the quantized tensors, by name.
    tensors: Map<String, Value>,
}

impl Translation {
    /// Of a network that reads `input` of this shape.
    pub fn new(graph: Graph, input: &str, shape: Vec<usize>) -> Self {
        Self { graph, value: input.to_string(), shape, tensors: Map::new() }
    }

    /// The graph, the name of what the last unit computes, and what was stored how.
    pub fn finish(self) -> (Graph, String, Map<String, Value>) {
        (self.graph, self.value, self.tensors)
    }

    /// Appends the nodes of `unit`.
    pub fn unit(&mut self, unit: &QuantUnit) -> Result<()> {
        let shapes = shapes(&unit.fp, &self.shape)?;
        let (mut values, mut sites): (Vec<String>, Vec<Option<String>>) = (Vec::new(), vec![None; unit.acts.len()]);
        for (index, node) in unit.fp.nodes.iter().enumerate() {
            let mut inputs = Vec::with_capacity(node.inputs.len());
            for (source, site) in node.inputs.iter().zip(&unit.placement.on_input[index]) {
                let read = match source {
                    Source::Input => self.value.clone(),
                    Source::Node(earlier) => values[*earlier].clone(),
                };
                inputs.push(match site {
                    None => read,
                    // Consumers of one tensor share its site.
                    Some(site) => match &sites[*site] {
                        Some(quantized) => quantized.clone(),
                        None => sites[*site].insert(self.quantized(unit, *site, &read)?).clone(),
                    },
                });
            }
            let shape = match node.inputs.first() {
                Some(Source::Node(earlier)) => &shapes[*earlier],
                _ => &self.shape,
            };
            let shape = shape.clone();
            self.node(unit, index, &inputs.iter().map(String::as_str).collect::<Vec<_>>(), &shape)?;
            values.push(match unit.placement.on_output[index] {
                None => node.name.clone(),
                Some(site) => self.quantized(unit, site, &node.name)?,
            });
        }
        if let (Some(value), Some(shape)) = (values.pop(), shapes.last()) {
            (self.value, self.shape) = (value, shape.clone());
        }
        Ok(())
    }

    /// Appends one node, whose output is called as itself.
    fn node(&mut self, unit: &QuantUnit, index: usize, inputs: &[&str], shape: &[usize]) -> Result<()> {
        let node = &unit.fp.nodes[index];
        let name = node.name.as_str();
        match &node.op {
            Op::Conv(conv) => {
                let weight = self.weight(unit, index, conv.gain.as_ref(), &conv.weight)?;
                let attributes = convolution(node, &conv.weight, conv.geometry, shape)?;
                let bias = conv.bias.as_ref().map(|bias| (bias, vec![1, bias.elem_count(), 1, 1]));
                self.layer("Conv", name, [inputs[0], &weight], bias, attributes)?;
            }
            Op::Linear(linear) => {
                let weight = self.weight(unit, index, None, &linear.weight)?;
                let bias = linear.bias.as_ref().map(|bias| (bias, vec![1, bias.elem_count()]));
                self.layer("Gemm", name, [inputs[0], &weight], bias, vec![Attribute::Int("transB", 1)])?;
            }
            Op::BatchNorm(norm) => self.batch_norm(name, inputs[0], norm)?,
            Op::Relu => self.graph.node("Relu", name, inputs, name, Vec::new()),
            Op::Relu6 => {
                let bounds = self.bounds(name, (0.0, 6.0));
                self.graph.node("Clip", name, &[inputs[0], &bounds[0], &bounds[1]], name, Vec::new());
            }
            Op::Add => self.graph.node(if inputs.len() == 2 { "Add" } else { "Sum" }, name, inputs, name, Vec::new()),
            Op::MaxPool(pool) => {
                let attributes = vec![
                    Attribute::Ints("kernel_shape", vec![pool.kernel; 2]),
                    Attribute::Ints("strides", vec![pool.stride; 2]),
                    Attribute::Ints("pads", vec![pool.padding; 4]),
                ];
                self.graph.node("MaxPool", name, inputs, name, attributes);
            }
            Op::GlobalAvgPool => self.graph.node("GlobalAveragePool", name, inputs, name, Vec::new()),
            Op::Flatten => self.graph.node("Flatten", name, inputs, name, vec![Attribute::Int("axis", 1)]),
            Op::PaddedIdentity { stride, padding } => self.padded_identity(name, inputs[0], *stride, *padding),
        }
        Ok(())
    }

    /// The weight of a node as it multiplies; `own` where it has no quantizer.
    fn weight(&mut self, unit: &QuantUnit, index: usize, gain: Option<&Tensor>, own: &Tensor) -> Result<String> {
        let node = unit.fp.nodes[index].name.as_str();
        let name = format!("{node}.weight");
        let channels = own.dim(0)?;
        match &unit.weights[index] {
            None => self.graph.floats(&name, own.dims(), &values(own)?),
            Some(quantizer) => {
                let stored = OnnxWeight::of(&quantizer.integers()?);
                stored.append(&mut self.graph, &name);
                self.tensors.insert(name.clone(), json!({ "bits": quantizer.bits, "storage": stored.type_name() }));
            }
        }
        let Some(gain) = gain else { return Ok(name) };
        // As the harness does: its product with the convolution's output would be rounded otherwise.
        let (of_gain, scaled) = (format!("{node}.gain"), format!("{node}.weight.scaled"));
        self.graph.floats(&of_gain, &[channels, 1, 1, 1], &values(gain)?);
        self.graph.node("Mul", &scaled, &[&name, &of_gain], &scaled, Vec::new());
        Ok(scaled)
    }

    /// Appends a layer and, as an operation of its own, the sum with its bias, which has this shape.
    ///
    /// A bias that is an input of the layer onnxruntime takes for one of integers: it rounds it to multiples of the product of both
    /// scales, which are coarse at few bits, and thousands of 10,000 predictions change.
    fn layer(
        &mut self,
        op: &str,
        name: &str,
        inputs: [&str; 2],
        bias: Option<(&Tensor, Vec<usize>)>,
        attributes: Vec<Attribute>,
    ) -> Result<()> {
        let Some((bias, shape)) = bias else {
            self.graph.node(op, name, &inputs, name, attributes);
            return Ok(());
        };
        let [of_bias, product, sum] = ["bias", "product", "sum"].map(|part| format!("{name}.{part}"));
        self.graph.floats(&of_bias, &shape, &values(bias)?);
        self.graph.node(op, name, &inputs, &product, attributes);
        self.graph.node("Add", &sum, &[&product, &of_bias], name, Vec::new());
        Ok(())
    }

    /// `value` behind the quantizer of `site`.
    fn quantized(&mut self, unit: &QuantUnit, site: usize, value: &str) -> Result<String> {
        let (act, tensor) = (&unit.acts[site], &unit.placement.sites[site].tensor);
        let tensor = if tensor == "input" { format!("{}.input", unit.fp.name) } else { tensor.clone() };
        let refuse =
            |problem: String| Error::Report(format!("the activation {tensor} cannot be written as ONNX: {problem}"));
        let range = act.range()?.ok_or_else(|| refuse("its range was not searched".to_string()))?;
        let activation = Activation::of(range, act.bits).map_err(refuse)?;
        self.tensors.insert(tensor.clone(), json!({ "bits": act.bits, "storage": "UINT8" }));
        let clipped = match activation.bounds {
            None => value.to_string(),
            Some(bounds) => {
                let (clipped, bounds) =
                    (format!("{tensor}.clipped"), self.bounds(&format!("{tensor}.clipped"), bounds));
                self.graph.node("Clip", &clipped, &[value, &bounds[0], &bounds[1]], &clipped, Vec::new());
                clipped
            }
        };
        Ok(activation.append(&mut self.graph, &tensor, &clipped))
    }

    /// Names of two numbers, the least and the greatest that a node lets pass.
    fn bounds(&mut self, node: &str, (low, high): (f32, f32)) -> [String; 2] {
        let names = [format!("{node}.least"), format!("{node}.greatest")];
        names.iter().zip([low, high]).for_each(|(name, bound)| self.graph.floats(name, &[], &[bound]));
        names
    }

    /// `x * gain + bias`, as the harness computes it.
    fn batch_norm(&mut self, name: &str, input: &str, norm: &BatchNorm) -> Result<()> {
        let (gain, bias) = norm.affine()?;
        let names = [format!("{name}.gain"), format!("{name}.bias"), format!("{name}.product")];
        for (name, values_of) in names.iter().zip([&gain, &bias]) {
            self.graph.floats(name, &[1, values_of.elem_count(), 1, 1], &values(values_of)?);
        }
        self.graph.node("Mul", &names[2], &[input, &names[0]], &names[2], Vec::new());
        self.graph.node("Add", name, &[&names[2], &names[1]], name, Vec::new());
        Ok(())
    }

    /// Every `stride`-th row and column, between channels of zeros.
    fn padded_identity(&mut self, name: &str, input: &str, stride: usize, padding: usize) {
        let named = |part: &str| format!("{name}.{part}");
        let [starts, ends, axes, steps, pads] = ["starts", "ends", "axes", "steps", "pads"].map(named);
        self.graph.integers(&starts, &[0, 0]);
        self.graph.integers(&ends, &[i64::MAX, i64::MAX]);
        self.graph.integers(&axes, &[2, 3]);
        self.graph.integers(&steps, &[stride as i64; 2]);
        self.graph.integers(&pads, &[0, padding as i64, 0, 0, 0, padding as i64, 0, 0]);
        let strided = named("strided");
        self.graph.node("Slice", &strided, &[input, &starts, &ends, &axes, &steps], &strided, Vec::new());
        self.graph.node("Pad", name, &[&strided, &pads], name, Vec::new());
    }
}

/// Attributes of a convolution over an input of this shape.
fn convolution(node: &Node, weight: &Tensor, geometry: Geometry, shape: &[usize]) -> Result<Vec<Attribute>> {
    let (_, _, k_h, k_w) = weight.dims4()?;
    let [_, height, width] = shape else {
        return Err(Error::Report(format!("{} cannot be written as ONNX: it convolves {shape:?}", node.name)));
    };
    let Geometry { stride, padding, groups } = geometry;
    let (top, bottom) = padding.around(*height, k_h, stride);
    let (left, right) = padding.around(*width, k_w, stride);
    Ok(vec![
        Attribute::Ints("kernel_shape", vec![k_h, k_w]),
        Attribute::Ints("strides", vec![stride; 2]),
        Attribute::Ints("pads", vec![top, left, bottom, right]),
        Attribute::Int("group", groups),
    ])
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.flatten_all()?.to_vec1()?)
}

//! Weights and activations behind their quantizers.

use super::graph::{Attribute, Graph, Type};
use ptq::quant::packing::pack;
use ptq::quant::range_search::{Range, highest};
use ptq::quant::weight::Integers;

/// A weight in a type of ONNX.
pub struct OnnxWeight {
    element: Type,
    shape: Vec<usize>,
    bytes: Vec<u8>,
    scale: Vec<f32>,
    /// `None` for [`Type::Int32`], which has none.
    zero_point: Option<Vec<u8>>,
}

impl OnnxWeight {
    /// In the smallest type that holds it.
    pub fn of(integers: &Integers) -> Self {
        let types = [(Type::Uint4, 4), (Type::Uint8, 8)];
        let fitting = types.into_iter().filter(|(_, width)| integers.bits <= *width);
        let shifted = fitting.into_iter().find_map(|(element, width)| Some((element, shifted(integers, width)?)));
        let (shape, scale) = (integers.shape.clone(), integers.scale.clone());
        match shifted {
            Some((element, (codes, zero_point))) => {
                let width = if element == Type::Uint4 { 4 } else { 8 };
                let zero_point = Some(pack(&zero_point, width));
                Self { element, shape, bytes: pack(&codes, width), scale, zero_point }
            }
            None => {
                let codes = each(integers).map(|(level, zero_point)| (f32::from(level) - zero_point) as i32);
                let bytes = codes.flat_map(i32::to_le_bytes).collect();
                Self { element: Type::Int32, shape, bytes, scale, zero_point: None }
            }
        }
    }

    pub fn type_name(&self) -> &'static str {
        match self.element {
            Type::Uint4 => "UINT4",
            Type::Uint8 => "UINT8",
            _ => "INT32",
        }
    }

    /// Appends the weight as `f32` under `name`.
    pub fn append(&self, graph: &mut Graph, name: &str) {
        let part = |part: &str| format!("{name}.{part}");
        let [levels, scale, zero_point] = ["levels", "scale", "zero_point"].map(part);
        graph.constant(&levels, self.element, &self.shape, &self.bytes);
        graph.floats(&scale, &[self.scale.len()], &self.scale);
        let mut inputs = vec![levels.as_str(), scale.as_str()];
        if let Some(zero_points) = &self.zero_point {
            graph.constant(&zero_point, self.element, &[self.scale.len()], zero_points);
            inputs.push(&zero_point);
        }
        graph.node("DequantizeLinear", name, &inputs, name, vec![Attribute::Int("axis", 0)]);
    }
}

/// Levels with the zero points of their channels.
fn each(integers: &Integers) -> impl Iterator<Item = (u8, f32)> {
    let of_channel = (integers.levels.len() / integers.scale.len().max(1)).max(1);
    integers.levels.iter().enumerate().map(move |(at, level)| (*level, integers.zero_point[at / of_channel]))
}

/// Levels and zero points as unsigned integers of `width` bits; where a zero point is below 0, both are moved up. `None` where that is not
/// enough.
fn shifted(integers: &Integers, width: u32) -> Option<(Vec<u8>, Vec<u8>)> {
    let largest = highest(width);
    let of = |number: f32| (0.0..=largest).contains(&number).then_some(number as u8);
    let zero_points = integers.zero_point.iter().map(|zero_point| of(zero_point.max(0.0)));
    let codes = each(integers).map(|(level, zero_point)| of(f32::from(level) + (-zero_point).max(0.0)));
    Some((codes.collect::<Option<_>>()?, zero_points.collect::<Option<_>>()?))
}

/// The quantizer of an activation as one of 8 bits.
#[derive(Debug, PartialEq)]
pub struct Activation {
    scale: f32,
    zero_point: u8,
    /// What values are clipped to first: the lowest and the highest level. `None` where 8 bits have no others.
    pub bounds: Option<(f32, f32)>,
}

impl Activation {
    /// Errors: why there is none, as text.
    pub fn of(range: Range, bits: u32) -> Result<Self, String> {
        let Range { scale, zero_point } = range;
        let (low, high) = range.levels(bits);
        let code_of_zero = zero_point.max(0.0);
        if !(scale > 0.0 && scale.is_finite()) {
            return Err(format!("its scale is {scale}"));
        }
        if code_of_zero > 255.0 || high + code_of_zero > 255.0 {
            return Err(format!("its levels {low} to {high} lie off 0, beyond those of 8 bits"));
        }
        let is_all = low + code_of_zero == 0.0 && high + code_of_zero == 255.0;
        // The sum turns a negative zero into a positive one.
        let bounds = (!is_all).then_some((low * scale + 0.0, high * scale));
        Ok(Self { scale, zero_point: code_of_zero as u8, bounds })
    }

    /// Appends the quantizer of `value`, whose levels are called after `tensor`; the name of what comes out.
    pub fn append(&self, graph: &mut Graph, tensor: &str, value: &str) -> String {
        let part = |part: &str| format!("{tensor}.{part}");
        let [scale, zero_point, levels, quantized] =
            ["activation_scale", "activation_zero_point", "levels", "quantized"].map(part);
        graph.floats(&scale, &[], &[self.scale]);
        graph.constant(&zero_point, Type::Uint8, &[], &[self.zero_point]);
        graph.node("QuantizeLinear", &levels, &[value, &scale, &zero_point], &levels, Vec::new());
        graph.node("DequantizeLinear", &quantized, &[&levels, &scale, &zero_point], &quantized, Vec::new());
        quantized
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn integers(bits: u32, levels: &[u8], zero_point: &[f32]) -> Integers {
        let channels = zero_point.len();
        let shape = vec![channels, levels.len() / channels];
        Integers { bits, shape, levels: levels.to_vec(), scale: vec![0.5; channels], zero_point: zero_point.to_vec() }
    }

    #[test]
    fn weights_take_the_smallest_type_that_holds_levels_and_zero_points() {
        let stored = |bits, levels: &[u8], zero_point: &[f32]| {
            let stored = OnnxWeight::of(&integers(bits, levels, zero_point));
            (stored.type_name(), stored.bytes, stored.zero_point)
        };
        assert_eq!(stored(4, &[1, 15, 0, 3], &[8.0, 2.0]), ("UINT4", vec![0xf1, 0x30], Some(vec![0x28])));
        assert_eq!(stored(2, &[1, 3], &[1.0]), ("UINT4", vec![0x31], Some(vec![1])));
        assert_eq!(stored(5, &[31, 3], &[9.0]), ("UINT8", vec![31, 3], Some(vec![9])));
        // Above 0: levels move up; below 0: only a wider type has such a zero point.
        assert_eq!(stored(2, &[1, 3], &[-4.0]), ("UINT4", vec![0x75], Some(vec![0])));
        assert_eq!(stored(2, &[1, 3], &[-13.0]), ("UINT8", vec![14, 16], Some(vec![0])));
        assert_eq!(stored(2, &[1, 3], &[40.0]), ("UINT8", vec![1, 3], Some(vec![40])));
        let (name, bytes, zero_point) = stored(2, &[1, 3], &[300.0]);
        assert_eq!((name, zero_point), ("INT32", None));
        assert_eq!(bytes, [(-299i32).to_le_bytes(), (-297i32).to_le_bytes()].concat());
    }

    #[test]
    fn activations_of_fewer_than_8_bits_are_clipped_to_their_levels() {
        let of = |zero_point: f32, bits| Activation::of(Range { scale: 0.5, zero_point }, bits);
        let expected = |zero_point, bounds| Ok(Activation { scale: 0.5, zero_point, bounds });
        assert_eq!(of(0.0, 8), expected(0, None));
        assert_eq!(of(128.0, 8), expected(128, None));
        assert_eq!(of(0.0, 2), expected(0, Some((0.0, 1.5))));
        assert_eq!(of(8.0, 4), expected(8, Some((-4.0, 3.5))));
        assert_eq!(of(-3.0, 2), expected(0, Some((1.5, 3.0))));
        assert!(of(300.0, 2).unwrap_err().contains("levels -300 to -297"));
        assert!(Activation::of(Range { scale: -0.5, zero_point: 0.0 }, 2).unwrap_err().contains("its scale is -0.5"));
    }
}

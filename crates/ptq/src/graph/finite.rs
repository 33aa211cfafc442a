//! Finds where in a network a number that is none, NaN or infinite, arises: one would make every accuracy behind it
//! meaningless.

use super::forward::{Hooks, read};
use super::unit::{Source, Unit};
use crate::error::{Error, Result};
use crate::ops::finite::is_finite;
use candle_core::Tensor;

/// Refuses the output `y` of `unit` for input `x` if it is not finite, and names the first node whose output is not.
///
/// `pass` says which pass that is, for the message: "in full precision". Costs one look at `y` where it is finite.
pub fn check_finite(unit: &Unit, x: &Tensor, y: &Tensor, hooks: &impl Hooks, pass: &str) -> Result<()> {
    if is_finite(y)? {
        return Ok(());
    }
    let refuse = |what: String| {
        Err(Error::NotFinite(format!(
            "{what} is NaN or infinite {pass}; usual suspects: the checkpoint (running statistics), the preprocessing, a \
             diverging step"
        )))
    };
    if !is_finite(x)? {
        return refuse(format!("the input of unit {}", unit.name));
    }
    for (index, node) in unit.nodes.iter().enumerate() {
        if !is_finite(&read(unit, x, hooks, Source::Node(index))?)? {
            return refuse(format!("the output of {} ({}) in unit {}", node.name, node.op.kind(), unit.name));
        }
    }
    refuse(format!("the output of unit {}", unit.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::forward::{FullPrecision, forward};
    use crate::graph::{Node, Op, Role};
    use candle_core::Device;

    fn unit() -> Unit {
        let node = |name: &str, op, inputs: &[Source]| Node { name: name.to_string(), op, inputs: inputs.to_vec() };
        let nodes = vec![
            node("relu", Op::Relu, &[Source::Input]),
            node("twice", Op::Add, &[Source::Node(0), Source::Node(0)]),
            node("again", Op::Add, &[Source::Node(1), Source::Input]),
        ];
        Unit { name: "block".to_string(), role: Role::Block, nodes }
    }

    #[test]
    fn the_first_node_that_is_not_finite_is_named() {
        let unit = unit();
        let check = |values: &[f32]| {
            let x = Tensor::new(values, &Device::Cpu).unwrap();
            let y = forward(&unit, &x, &FullPrecision).unwrap();
            check_finite(&unit, &x, &y, &FullPrecision, "in full precision").map_err(|error| error.to_string())
        };
        check(&[1.0, -2.0]).unwrap();
        let error = check(&[1.0, 3e38]).unwrap_err();
        assert!(
            error.contains("the output of twice (add) in unit block is NaN or infinite in full precision"),
            "{error}"
        );
        let error = check(&[f32::NAN]).unwrap_err();
        assert!(error.contains("the input of unit block is NaN"), "{error}");
    }
}

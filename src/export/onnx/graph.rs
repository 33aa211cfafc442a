//! `GraphProto` under construction: nodes, initializers, inputs and outputs.

use crate::export::proto::Message;

mod field {
    pub mod graph {
        pub const NODE: u32 = 1;
        pub const NAME: u32 = 2;
        pub const INITIALIZER: u32 = 5;
        pub const INPUT: u32 = 11;
        pub const OUTPUT: u32 = 12;
    }
    pub mod node {
        pub const INPUT: u32 = 1;
        pub const OUTPUT: u32 = 2;
        pub const NAME: u32 = 3;
        pub const OP_TYPE: u32 = 4;
        pub const ATTRIBUTE: u32 = 5;
    }
    pub mod attribute {
        pub const NAME: u32 = 1;
        pub const I: u32 = 3;
        pub const INTS: u32 = 8;
        pub const TYPE: u32 = 20;
    }
    pub mod tensor {
        pub const DIMS: u32 = 1;
        pub const DATA_TYPE: u32 = 2;
        pub const NAME: u32 = 8;
        pub const RAW_DATA: u32 = 9;
    }
    pub mod value {
        pub const NAME: u32 = 1;
        pub const TYPE: u32 = 2;
        pub const TENSOR_TYPE: u32 = 1;
        pub const ELEM_TYPE: u32 = 1;
        pub const SHAPE: u32 = 2;
        pub const DIM: u32 = 1;
        pub const DIM_VALUE: u32 = 1;
        pub const DIM_PARAM: u32 = 2;
    }
}

/// Kinds of attributes.
const INT: u64 = 2;
const INTS: u64 = 7;
/// The first dimension of input and output.
const BATCH: &str = "N";

/// Element types (`TensorProto.DataType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Float = 1,
    Uint8 = 2,
    Int32 = 6,
    Int64 = 7,
    Uint4 = 21,
}

/// An attribute of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    Int(&'static str, usize),
    Ints(&'static str, Vec<usize>),
}

#[derive(Debug, Default)]
pub struct Graph {
    message: Message,
    initializers: Message,
    values: Message,
}

impl Graph {
    /// Appends an operation, which is called as its output where there is no better name.
    pub fn node(&mut self, op: &str, name: &str, inputs: &[&str], output: &str, attributes: Vec<Attribute>) {
        let node =
            inputs.iter().fold(Message::default(), |node, input| node.bytes(field::node::INPUT, input.as_bytes()));
        let node = node
            .bytes(field::node::OUTPUT, output.as_bytes())
            .bytes(field::node::NAME, name.as_bytes())
            .bytes(field::node::OP_TYPE, op.as_bytes());
        let node = attributes.iter().fold(node, |node, own| node.message(field::node::ATTRIBUTE, &own.message()));
        self.message = std::mem::take(&mut self.message).message(field::graph::NODE, &node);
    }

    /// A constant whose elements are `bytes`, little-endian.
    pub fn constant(&mut self, name: &str, element: Type, shape: &[usize], bytes: &[u8]) {
        let tensor = shape.iter().fold(Message::default(), |it, extent| it.varint(field::tensor::DIMS, *extent as u64));
        let tensor = tensor
            .varint(field::tensor::DATA_TYPE, element as u64)
            .bytes(field::tensor::NAME, name.as_bytes())
            .bytes(field::tensor::RAW_DATA, bytes);
        self.initializers = std::mem::take(&mut self.initializers).message(field::graph::INITIALIZER, &tensor);
    }

    pub fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, Type::Float, shape, &bytes);
    }

    /// A vector.
    pub fn integers(&mut self, name: &str, values: &[i64]) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, Type::Int64, &[values.len()], &bytes);
    }

    /// An input of `N` tensors of this shape.
    pub fn input(&mut self, name: &str, element: Type, shape: &[usize]) {
        self.value(field::graph::INPUT, name, element, shape);
    }

    /// An output of `N` tensors of this shape.
    pub fn output(&mut self, name: &str, element: Type, shape: &[usize]) {
        self.value(field::graph::OUTPUT, name, element, shape);
    }

    fn value(&mut self, kind: u32, name: &str, element: Type, shape: &[usize]) {
        let batch = Message::default().bytes(field::value::DIM_PARAM, BATCH.as_bytes());
        let dims = shape.iter().map(|extent| Message::default().varint(field::value::DIM_VALUE, *extent as u64));
        let dims = std::iter::once(batch).chain(dims);
        let shape = dims.fold(Message::default(), |shape, dim| shape.message(field::value::DIM, &dim));
        let tensor = Message::default().varint(field::value::ELEM_TYPE, element as u64);
        let tensor = tensor.message(field::value::SHAPE, &shape);
        let value = Message::default().bytes(field::value::NAME, name.as_bytes());
        let value = value.message(field::value::TYPE, &Message::default().message(field::value::TENSOR_TYPE, &tensor));
        self.values = std::mem::take(&mut self.values).message(kind, &value);
    }

    /// The message of a graph called `name`.
    pub fn finish(self, name: &str) -> Message {
        self.message.bytes(field::graph::NAME, name.as_bytes()).and(self.initializers).and(self.values)
    }
}

impl Attribute {
    fn message(&self) -> Message {
        let named = |name: &str| Message::default().bytes(field::attribute::NAME, name.as_bytes());
        match self {
            Attribute::Int(name, value) => {
                named(name).varint(field::attribute::I, *value as u64).varint(field::attribute::TYPE, INT)
            }
            Attribute::Ints(name, values) => {
                let message =
                    values.iter().fold(named(name), |it, value| it.varint(field::attribute::INTS, *value as u64));
                message.varint(field::attribute::TYPE, INTS)
            }
        }
    }
}

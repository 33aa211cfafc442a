//! The operations a node can be: the whole vocabulary of the supported networks.

use crate::error::Result;
use crate::ops::conv::Geometry;
use crate::ops::pool::Pool;
use candle_core::{DType, Tensor};

/// One operation with its full-precision parameters.
#[derive(Clone, Debug)]
pub enum Op {
    Conv(Conv),
    Linear(Linear),
    BatchNorm(BatchNorm),
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// Sum of its inputs.
    Add,
    MaxPool(Pool),
    /// `(N, C, H, W)` to `(N, C, 1, 1)`.
    GlobalAvgPool,
    /// `(N, C, H, W)` to `(N, C*H*W)`.
    Flatten,
    /// Every `stride`-th row and column, between `padding` channels of zeros before and behind
    /// ([`padded_identity`](crate::ops::padded_identity::padded_identity)).
    PaddedIdentity {
        stride: usize,
        padding: usize,
    },
}

/// 2-d convolution, `y = conv(x, weight) * gain + bias`.
#[derive(Clone, Debug)]
pub struct Conv {
    /// `(C_out, C_in / groups, K_h, K_w)`.
    pub weight: Tensor,
    /// `(C_out)`.
    pub bias: Option<Tensor>,
    /// `(C_out)`: the multiplier of a BatchNorm that stays outside the quantizer (see [`super::fold_bn`]).
    pub gain: Option<Tensor>,
    pub geometry: Geometry,
}

/// Fully connected layer, `y = x weight^T + bias`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `(out, in)`.
    pub weight: Tensor,
    /// `(out)`.
    pub bias: Option<Tensor>,
}

/// BatchNorm in evaluation mode, `y = (x - mean) / sqrt(var + eps) * weight + bias`; all of shape `(C)`.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    pub weight: Tensor,
    pub bias: Tensor,
    pub mean: Tensor,
    pub var: Tensor,
    pub eps: f64,
}

impl Op {
    /// The same with its parameters as `dtype`.
    pub fn to_dtype(&self, dtype: DType) -> Result<Op> {
        let cast = |tensor: &Tensor| tensor.to_dtype(dtype);
        let maybe = |tensor: &Option<Tensor>| tensor.as_ref().map(cast).transpose();
        Ok(match self {
            Op::Conv(conv) => Op::Conv(Conv {
                weight: cast(&conv.weight)?,
                bias: maybe(&conv.bias)?,
                gain: maybe(&conv.gain)?,
                geometry: conv.geometry,
            }),
            Op::Linear(linear) => Op::Linear(Linear { weight: cast(&linear.weight)?, bias: maybe(&linear.bias)? }),
            Op::BatchNorm(norm) => Op::BatchNorm(BatchNorm {
                weight: cast(&norm.weight)?,
                bias: cast(&norm.bias)?,
                mean: cast(&norm.mean)?,
                var: cast(&norm.var)?,
                eps: norm.eps,
            }),
            other => other.clone(),
        })
    }

    /// The weight that a quantizer would act on: that of a convolution or a linear layer.
    pub fn weight(&self) -> Option<&Tensor> {
        match self {
            Op::Conv(conv) => Some(&conv.weight),
            Op::Linear(linear) => Some(&linear.weight),
            _ => None,
        }
    }

    /// The same with `weight` in place of its weight and gain; as it is where it has none.
    pub fn with_weight(&self, weight: Tensor) -> Op {
        match self {
            Op::Conv(conv) => Op::Conv(Conv { weight, gain: None, ..conv.clone() }),
            Op::Linear(linear) => Op::Linear(Linear { weight, ..linear.clone() }),
            other => other.clone(),
        }
    }

    /// Lower-case name for listings.
    pub fn kind(&self) -> &'static str {
        match self {
            Op::Conv(_) => "conv",
            Op::Linear(_) => "linear",
            Op::BatchNorm(_) => "batch-norm",
            Op::Relu => "relu",
            Op::Relu6 => "relu6",
            Op::Add => "add",
            Op::MaxPool(_) => "max-pool",
            Op::GlobalAvgPool => "global-avg-pool",
            Op::Flatten => "flatten",
            Op::PaddedIdentity { .. } => "padded-identity",
        }
    }
}

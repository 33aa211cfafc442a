//! MetaAug (arXiv 2407.14726): a transform network `T` rewrites the calibration images for each unit; it is trained so
//! that a unit which makes one step on the rewritten images serves the original ones well.
//!
//! With `phi` the weights of `T`, `theta` the parameters of the unit's quantizers and `L_Q` its reconstruction loss:
//!
//! ```text
//! x' = T(x)                                    transformed mini-batch
//! theta' = theta - step(dL_Q(theta, x') / dtheta)    virtual update, a function of phi
//! L_T = sum of terms(theta', x', x)            meta-loss; some terms on original images, through theta'
//! phi <- phi - clip(dL_T / dphi)               Adam
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`] | everything that a grid can set |
//! | [`nets`] | the transform networks |
//! | [`warm_up`] | teaches a network to reproduce its input |
//! | [`terms`] | the terms of the meta-loss |
//! | `virtual_update` | `theta'` and its adjoint |
//! | `dual` | directional derivatives of the inner loss |
//! | `draw` | what is random of a step |
//! | [`sample`] | the mini-batches of one step |
//! | `theta` | the trained parameters of a unit as one vector |
//! | [`gradient`] | the gradient of the meta-loss, by parts |
//! | [`train`] | trains `T` for one unit |
//! | [`check_gradient`] | compares that gradient with central differences |

pub mod check_gradient;
pub mod config;
mod draw;
pub(crate) mod dual;
pub mod gradient;
pub mod nets;
pub mod sample;
pub mod terms;
pub(crate) mod theta;
pub mod train;
pub(crate) mod virtual_update;
pub mod warm_up;

//! The network as data: units of nodes, and the passes over them.
//!
//! An architecture file ([`crate::arch`]) lists nodes; [`forward`] interprets them; [`fold_bn`] rewrites them; [`shapes`] says how
//! large their values are.

pub mod finite;
pub mod fold_bn;
pub mod forward;
mod op;
pub mod shapes;
mod state_dict;
mod unit;

pub use op::{BatchNorm, Conv, Linear, Op};
pub use state_dict::StateDict;
pub use unit::{Network, Node, Role, Source, Unit, UnitBuilder};

//! Names that the tensors of one architecture go by in the checkpoints of different libraries.

use std::collections::HashMap;

/// How one library names them.
pub struct Layout {
    /// As printed.
    pub name: &'static str,
    /// A tensor that only this layout has.
    pub marker: &'static str,
    /// The name in it of a tensor that torchvision calls so: architectures ask for tensors by torchvision's names, or where it does
    /// not have them by timm's.
    pub rename: fn(&str) -> String,
}

/// torchvision's, which is also that of anything that no marker tells apart.
pub const TORCHVISION: Layout = Layout { name: "torchvision", marker: "", rename: str::to_string };

/// The layout among `known` that `tensors` are in.
pub fn detect<'a, T>(known: &'a [Layout], tensors: &HashMap<String, T>) -> &'a Layout {
    known.iter().find(|layout| tensors.contains_key(layout.marker)).unwrap_or(&TORCHVISION)
}

//! Tensors as a pickle describes them, and as their bytes make them.

use super::machine::{Id, Object, Pickle};
use candle_core::{DType, Device, Tensor};

/// Calls that a tensor may be wrapped in, one in the other.
const WRAPPINGS: usize = 4;
/// Most dimensions of a tensor. A shape is copied for every tensor that it is of, however many share it.
const LARGEST_RANK: usize = 16;

/// A part of a storage, as a tensor.
#[derive(Debug)]
pub(super) struct Described {
    pub storage: String,
    /// Of the storage: `FloatStorage`, ...
    pub kind: String,
    offset: usize,
    shape: Vec<usize>,
    stride: Vec<usize>,
    /// Whether the storage is itself a part of another.
    is_view: bool,
}

impl Described {
    /// `None` if the object is anything but a tensor.
    pub fn of(pickle: &Pickle, object: Id) -> Option<Self> {
        let tuple = |id: &Id| match pickle.get(*id) {
            Object::Tuple(items) => Some(items.as_slice()),
            _ => None,
        };
        let name = |id: &Id| match pickle.get(*id) {
            Object::Global(_, name) => Some(name.as_str()),
            _ => None,
        };
        let call = |id: &Id| match pickle.get(*id) {
            Object::Call { callable, args } => Some((name(callable)?, tuple(args)?)),
            _ => None,
        };
        let (mut function, mut args) = call(&object)?;
        for _ in 0..WRAPPINGS {
            (function, args) = match function {
                "_rebuild_tensor_v2" => return Self::rebuilt(pickle, args),
                "_rebuild_parameter" | "_rebuild_parameter_with_state" => call(args.first()?)?,
                // With attributes: what rebuilds the tensor, its class, and the arguments of the first.
                "_rebuild_from_type_v2" => (name(args.first()?)?, tuple(args.get(2)?)?),
                _ => return None,
            };
        }
        None
    }

    /// From the arguments of `_rebuild_tensor_v2`: storage, offset, shape, stride, ...
    fn rebuilt(pickle: &Pickle, args: &[Id]) -> Option<Self> {
        let number = |id: &Id| match pickle.get(*id) {
            Object::Int(number) => usize::try_from(*number).ok(),
            _ => None,
        };
        let numbers = |id: &Id| match pickle.get(*id) {
            Object::Tuple(items) if items.len() <= LARGEST_RANK => {
                items.iter().map(number).collect::<Option<Vec<usize>>>()
            }
            _ => None,
        };
        let [stored, offset, shape, stride, ..] = args else { return None };
        let Object::Stored(id) = pickle.get(*stored) else { return None };
        let Object::Tuple(storage) = pickle.get(*id) else { return None };
        let [_, kind, key, _, _, view @ ..] = storage.as_slice() else { return None };
        let (Object::Global(_, kind), Object::Text(key)) = (pickle.get(*kind), pickle.get(*key)) else { return None };
        let (shape, stride) = (numbers(shape)?, numbers(stride)?);
        (shape.len() == stride.len()).then_some(Self {
            storage: key.clone(),
            kind: kind.clone(),
            offset: number(offset)?,
            shape,
            stride,
            is_view: view.first().is_some_and(|view| *pickle.get(*view) != Object::Other),
        })
    }

    /// Bytes of the tensor written out, for each element of which the storage must have bytes.
    pub fn size_in_bytes(&self) -> usize {
        let elements = self.shape.iter().fold(1usize, |product, &extent| product.saturating_mul(extent));
        elements.saturating_mul(dtype(&self.kind).map_or(1, |dtype| dtype.size_in_bytes()))
    }

    /// The tensor, of a storage of the content `bytes`, the lowest byte of an element first.
    ///
    /// Errors: element types that are not read; a storage that has too few elements.
    pub fn tensor(&self, bytes: &[u8], device: &Device) -> Result<Tensor, String> {
        let dtype = dtype(&self.kind)?;
        if self.is_view {
            return Err("its storage is a part of another, as PyTorch wrote before version 0.4".to_string());
        }
        let elements = bytes.len() / dtype.size_in_bytes();
        let shape = self.shape.as_slice();
        if shape.contains(&0) {
            return Tensor::zeros(shape, dtype, device).map_err(|error| error.to_string());
        }
        if !self.fits(elements) {
            return Err(format!("its storage has {elements} elements, too few for shape {shape:?}"));
        }
        let gathered = || {
            if self.is_contiguous() {
                let size = dtype.size_in_bytes();
                let wanted = &bytes[self.offset * size..][..self.size_in_bytes()];
                return Tensor::from_raw_buffer(wanted, dtype, shape, device);
            }
            let storage = Tensor::from_raw_buffer(bytes, dtype, &[elements], &Device::Cpu)?;
            let positions = self.positions();
            let count = positions.len();
            let positions = Tensor::from_vec(positions, count, &Device::Cpu)?;
            storage.index_select(&positions, 0)?.reshape(shape)?.to_device(device)
        };
        gathered().map_err(|error: candle_core::Error| error.to_string())
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.stride).rev().all(|(&extent, &stride)| {
            let follows = extent == 1 || stride == expected;
            expected *= extent;
            follows
        })
    }

    /// Positions of the elements in the storage, in the order of the shape.
    fn positions(&self) -> Vec<u32> {
        let mut positions = vec![self.offset as u32];
        for (&extent, &stride) in self.shape.iter().zip(&self.stride) {
            positions = positions
                .into_iter()
                .flat_map(|start| (0..extent).map(move |step| start.wrapping_add((step * stride) as u32)))
                .collect();
        }
        positions
    }

    /// Whether a storage of `elements` has room for the tensor. One that repeats elements (a stride of 0) has not: written
    /// out, a small file could ask for any amount of memory.
    fn fits(&self, elements: usize) -> bool {
        let wanted = self.shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
        wanted.is_some_and(|wanted| wanted <= elements) && self.last().is_some_and(|last| last < elements)
    }

    /// Position of the last element in the storage; `None` if there is none, or it is beyond any storage.
    fn last(&self) -> Option<usize> {
        let steps = self.shape.iter().zip(&self.stride);
        let mut last = steps.map(|(&extent, &stride)| extent.checked_sub(1)?.checked_mul(stride));
        let last = last.try_fold(self.offset, |sum, step| sum.checked_add(step?))?;
        u32::try_from(last).is_ok().then_some(last)
    }
}

/// Element type of a storage. Errors: one that is not read.
pub(super) fn dtype(kind: &str) -> Result<DType, String> {
    Ok(match kind {
        "FloatStorage" => DType::F32,
        "DoubleStorage" => DType::F64,
        "HalfStorage" => DType::F16,
        "BFloat16Storage" => DType::BF16,
        "ByteStorage" | "BoolStorage" => DType::U8,
        "ShortStorage" => DType::I16,
        "IntStorage" => DType::I32,
        "LongStorage" => DType::I64,
        other => return Err(format!("a {other} cannot be read")),
    })
}

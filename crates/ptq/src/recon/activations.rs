//! Activations of the calibration sample, one row per image: in memory within a budget, above it in a file. Those of a GPU are in its own
//! memory as far as the budget goes, then in page-locked memory of the host, which it reads by itself, and only then in a file.
//!
//! Rows of a file are read with plain reads: the system caches files as it does mappings, no unsafe code is needed, and a mini-batch
//! reads a few dozen rows of many pages each.

use super::event::Control;
use crate::error::{Error, Result};
use crate::ops::fake_quant::Mask;
use crate::ops::mix::{self, mix_rows};
use crate::ops::pinned::Pinned;
use candle_core::{DType, Device, Tensor};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Images per batch of a pass: enough for all cores, small beside the activations.
pub const BATCH: usize = 64;

/// How many bytes of activations may be in memory, and where others go; clones share both.
#[derive(Clone)]
pub struct Memory(Arc<Budget>);

struct Budget {
    /// On the device that computes.
    own: Limit,
    /// Page-locked, for GPUs.
    pinned: Limit,
    folder: PathBuf,
}

struct Limit {
    bytes: u64,
    used: AtomicU64,
}

impl Limit {
    fn new(bytes: u64) -> Self {
        Self { bytes, used: AtomicU64::new(0) }
    }
}

impl Memory {
    /// Files go to `folder`, which is made together with the first of them.
    pub fn new(limit_bytes: u64, folder: &Path) -> Self {
        Self::with_pinned(limit_bytes, 0, folder)
    }

    /// The same with `pinned_bytes` of page-locked memory of the host for a GPU whose own part of `limit_bytes` is full.
    pub fn with_pinned(limit_bytes: u64, pinned_bytes: u64, folder: &Path) -> Self {
        let [own, pinned] = [limit_bytes, pinned_bytes].map(Limit::new);
        Self(Arc::new(Budget { own, pinned, folder: folder.to_path_buf() }))
    }

    /// Everything stays in memory.
    pub fn unlimited() -> Self {
        Self::new(u64::MAX, Path::new("."))
    }

    fn reserve(&self, of: fn(&Budget) -> &Limit, bytes: u64) -> Option<Reservation> {
        let limit = of(&self.0);
        let add = |used: u64| used.checked_add(bytes).filter(|used| *used <= limit.bytes);
        limit.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        Some(Reservation { memory: self.clone(), of, bytes })
    }

    /// A file without a name: it is gone with its last handle, also when the process is killed.
    fn file(&self) -> Result<File> {
        let folder = &self.0.folder;
        std::fs::create_dir_all(folder).map_err(Error::io("cannot make folder", folder))?;
        tempfile::tempfile_in(folder).map_err(Error::io("cannot write into", folder))
    }
}

/// Bytes taken from a limit until this is dropped.
struct Reservation {
    memory: Memory,
    of: fn(&Budget) -> &Limit,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        (self.of)(&self.memory.0).used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// `(N, ...)`, f32; clones share the rows.
#[derive(Clone)]
pub struct Activations {
    rows: Arc<Stored>,
    memory: Memory,
}

enum Stored {
    InMemory {
        tensor: Tensor,
        _reservation: Option<Reservation>,
    },
    /// In page-locked memory of the host.
    Pinned {
        rows: Pinned,
        _reservation: Reservation,
    },
    /// In the byte order of the machine, row by row.
    InFile {
        file: Mutex<File>,
        shape: Vec<usize>,
        device: Device,
        folder: PathBuf,
    },
}

impl Activations {
    /// Of a `tensor` that its owner keeps in memory: it does not count against the budget, what is computed from it does.
    pub fn new(tensor: &Tensor, memory: &Memory) -> Self {
        let rows = Stored::InMemory { tensor: tensor.clone(), _reservation: None };
        Self { rows: Arc::new(rows), memory: memory.clone() }
    }

    /// `N`.
    pub fn images(&self) -> Result<usize> {
        match &*self.rows {
            Stored::InMemory { tensor, .. } => Ok(tensor.dim(0)?),
            Stored::Pinned { rows, .. } => Ok(rows.dims()[0]),
            Stored::InFile { shape, .. } => Ok(shape[0]),
        }
    }

    /// Whether they are in a file.
    pub fn is_spilled(&self) -> bool {
        matches!(&*self.rows, Stored::InFile { .. })
    }

    /// The device that reads them, if they are in page-locked memory.
    pub fn pinned_for(&self) -> Option<&Device> {
        match &*self.rows {
            Stored::Pinned { rows, .. } => Some(rows.device()),
            Stored::InMemory { .. } | Stored::InFile { .. } => None,
        }
    }

    /// Rows `start` to `start + len` `(len, ...)`.
    pub fn narrow(&self, start: usize, len: usize) -> Result<Tensor> {
        self.rows.narrow(start, len)
    }

    /// The given rows in this order `(rows.len(), ...)`.
    pub fn rows(&self, rows: &[u32]) -> Result<Tensor> {
        match self.rows.in_memory() {
            Some(stored) => Ok(mix_rows(stored, stored, rows, &Mask::All)?),
            None => self.rows.read(&rows.iter().map(|&row| (row as usize, 1)).collect::<Vec<_>>()),
        }
    }

    /// Rows of `self` where the mask selects, of `others` elsewhere ([`mix_rows`]).
    ///
    /// Errors: another number of rows; rows that are not there.
    pub fn mixed(&self, others: &Activations, rows: &[u32], mask: &Mask) -> Result<Tensor> {
        if let (Some(a), Some(b)) = (self.rows.in_memory(), others.rows.in_memory()) {
            return Ok(mix_rows(a, b, rows, mask)?);
        }
        if self.images()? != others.images()? {
            let problem = format!("{} rows beside {}", self.images()?, others.images()?);
            return Err(Error::Shape { op: "activations", problem });
        }
        let own = self.rows(rows)?;
        if matches!(mask, Mask::All) {
            return Ok(own);
        }
        let all: Vec<u32> = (0..rows.len() as u32).collect();
        Ok(mix_rows(&own, &others.rows(rows)?, &all, mask)?)
    }

    /// `f` of all rows, batch by batch.
    pub fn map(&self, control: &Control, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Activations> {
        let n = self.images()?;
        let mut collected = Collector::new(n, &self.memory);
        for start in (0..n).step_by(BATCH) {
            control.check()?;
            collected.push(&f(&self.narrow(start, BATCH.min(n - start))?)?)?;
        }
        collected.finish()
    }

    /// Followed by the rows of `others`.
    pub fn and(&self, others: &Activations) -> Result<Activations> {
        let n = self.images()? + others.images()?;
        let mut collected = Collector::new(n, &self.memory);
        for part in [self, others] {
            let n = part.images()?;
            for start in (0..n).step_by(BATCH) {
                collected.push(&part.narrow(start, BATCH.min(n - start))?)?;
            }
        }
        collected.finish()
    }

    /// The budget that they count against.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }
}

impl Stored {
    /// Where mini-batches are cut from; `None` if that is a file.
    fn in_memory(&self) -> Option<mix::Rows<'_>> {
        match self {
            Stored::InMemory { tensor, .. } => Some(tensor.into()),
            Stored::Pinned { rows, .. } => Some(rows.into()),
            Stored::InFile { .. } => None,
        }
    }

    fn narrow(&self, start: usize, len: usize) -> Result<Tensor> {
        match self {
            Stored::InMemory { tensor, .. } => Ok(tensor.narrow(0, start, len)?),
            Stored::Pinned { rows, .. } => Ok(rows.narrow(start, len)?),
            Stored::InFile { .. } => self.read(&[(start, len)]),
        }
    }

    /// Runs of rows, each its start and length, from the file.
    fn read(&self, runs: &[(usize, usize)]) -> Result<Tensor> {
        let Stored::InFile { file, shape, device, folder } = self else {
            return Err(Error::Shape { op: "activations", problem: "they are in no file".to_string() });
        };
        let images = runs.iter().map(|(_, len)| len).sum();
        if runs.iter().any(|(start, len)| start + len > shape[0]) {
            return Err(Error::Shape { op: "activations", problem: format!("rows out of {}", shape[0]) });
        }
        let row_bytes = shape[1..].iter().product::<usize>() * size_of::<f32>();
        let mut bytes = vec![0; images * row_bytes];
        let mut rest = &mut bytes[..];
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        for (start, len) in runs {
            let (run, behind) = rest.split_at_mut(len * row_bytes);
            let position = SeekFrom::Start((start * row_bytes) as u64);
            file.seek(position)
                .and_then(|_| file.read_exact(run))
                .map_err(Error::io("cannot read activations in", folder))?;
            rest = behind;
        }
        let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect();
        let mut shape = shape.clone();
        shape[0] = images;
        Ok(Tensor::from_vec(values, shape, device)?)
    }
}

/// Gathers activations that are computed batch by batch.
pub struct Collector {
    images: usize,
    memory: Memory,
    /// Rows so far.
    collected: usize,
    rows: Option<Stored>,
}

impl Collector {
    /// For `images` rows in all.
    pub fn new(images: usize, memory: &Memory) -> Self {
        Self { images, memory: memory.clone(), collected: 0, rows: None }
    }

    /// Appends the rows of `batch`, without its gradients. The first decides by its shape where all go.
    pub fn push(&mut self, batch: &Tensor) -> Result<()> {
        let batch = batch.detach().contiguous()?;
        let len = batch.dim(0)?;
        if self.collected + len > self.images {
            return Err(Error::Shape { op: "activations", problem: format!("more than {} rows", self.images) });
        }
        let mut rows = match self.rows.take() {
            Some(rows) => rows,
            None => Self::place(self.images, &batch, &self.memory)?,
        };
        match &mut rows {
            Stored::InMemory { tensor, .. } => tensor.slice_set(&batch, 0, self.collected)?,
            Stored::Pinned { rows, .. } => rows.write(self.collected, &batch)?,
            Stored::InFile { file, folder, .. } => {
                let values = batch.flatten_all()?.to_vec1::<f32>()?;
                let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_ne_bytes).collect();
                let file = file.get_mut().unwrap_or_else(PoisonError::into_inner);
                // Whoever looked at earlier ones left it elsewhere.
                file.seek(SeekFrom::End(0))
                    .and_then(|_| file.write_all(&bytes))
                    .map_err(Error::io("cannot write activations into", folder))?;
            }
        }
        self.collected += len;
        self.rows = Some(rows);
        Ok(())
    }

    /// Rows `start` to `start + len`, or to the last of all; they must be there.
    pub(super) fn narrow(&self, start: usize, len: usize) -> Result<Tensor> {
        let len = len.min(self.images.saturating_sub(start));
        match &self.rows {
            Some(rows) if start + len <= self.collected => rows.narrow(start, len),
            _ => {
                let problem = format!("row {} of {} so far", start + len, self.collected);
                Err(Error::Shape { op: "activations", problem })
            }
        }
    }

    /// Errors: fewer rows than announced.
    pub fn finish(self) -> Result<Activations> {
        match self.rows {
            Some(rows) if self.collected == self.images => {
                Ok(Activations { rows: Arc::new(rows), memory: self.memory })
            }
            _ => {
                let problem = format!("{} of {} rows", self.collected, self.images);
                Err(Error::Shape { op: "activations", problem })
            }
        }
    }

    fn place(images: usize, batch: &Tensor, memory: &Memory) -> Result<Stored> {
        let mut shape = batch.dims().to_vec();
        shape[0] = images;
        let bytes = shape.iter().product::<usize>() * size_of::<f32>();
        let device = batch.device();
        if let Some(reservation) = memory.reserve(|budget| &budget.own, bytes as u64) {
            let tensor = Tensor::zeros(shape, DType::F32, device)?;
            return Ok(Stored::InMemory { tensor, _reservation: Some(reservation) });
        }
        if let Some(reservation) = memory.reserve(|budget| &budget.pinned, bytes as u64)
            && let Some(rows) = Pinned::new(&shape, device)?
        {
            return Ok(Stored::Pinned { rows, _reservation: reservation });
        }
        let folder = memory.0.folder.clone();
        Ok(Stored::InFile { file: Mutex::new(memory.file()?), shape, device: device.clone(), folder })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};
    use std::sync::atomic::AtomicBool;

    static RUNNING: AtomicBool = AtomicBool::new(false);
    static CONTROL: Control = Control { observe: &|_| (), cancelled: &RUNNING };

    fn values(tensor: &Tensor) -> (Vec<usize>, Vec<f32>) {
        (tensor.dims().to_vec(), tensor.flatten_all().unwrap().to_vec1().unwrap())
    }

    #[test]
    fn a_file_gives_the_rows_that_memory_gives() {
        let folder = tempfile::tempdir().unwrap();
        let count = 2 * BATCH + 3;
        let x: Vec<f32> = (0..count * 6).map(|i| (i as f32).sin()).collect();
        let x = Tensor::from_vec(x, (count, 2, 3), &Device::Cpu).unwrap();
        let [memory, file] = [Memory::unlimited(), Memory::new(0, folder.path())].map(|memory| {
            let once = Activations::new(&x, &memory);
            let twice = once.map(&CONTROL, |x| Ok((x * 2.0)?)).unwrap();
            (twice.and(&twice).unwrap(), once.and(&twice).unwrap())
        });
        assert_eq!([&memory.0, &memory.1, &file.0, &file.1].map(Activations::is_spilled), [false, false, true, true]);
        let key = Stream::new(1).purpose(Purpose::DropInput).element_key();
        let mask = Mask::Keyed { key, threshold: 1 << 31 };
        let rows = [5, 0, count as u32 - 1, 5];
        let of = |(a, b): &(Activations, Activations)| {
            let tensors = [
                a.rows(&rows).unwrap(),
                a.narrow(count - 2, 7).unwrap(),
                a.mixed(b, &rows, &mask).unwrap(),
                a.mixed(b, &rows, &Mask::All).unwrap(),
                a.map(&CONTROL, |x| Ok(x.sum_keepdim(1)?)).unwrap().narrow(0, 2 * count).unwrap(),
            ];
            tensors.each_ref().map(values)
        };
        assert_eq!(of(&memory), of(&file));
        // One of both in the file.
        assert_eq!(values(&memory.0.mixed(&file.1, &rows, &mask).unwrap()), of(&file)[2]);
        assert!(file.0.rows(&[2 * count as u32]).is_err());
        let fewer = file.0.map(&CONTROL, |x| Ok(x.clone())).unwrap();
        let single = Activations::new(&x, file.0.memory());
        assert!(fewer.mixed(&single, &rows, &mask).is_err() && memory.0.mixed(&single, &rows, &mask).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "files have no names");
    }

    #[test]
    fn the_budget_holds_for_all_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(100, folder.path());
        let x = Activations::new(&Tensor::zeros((4, 5), DType::F32, &Device::Cpu).unwrap(), &memory);
        let copy = || x.map(&CONTROL, |x| Ok(x.clone())).unwrap();
        let first = copy();
        assert!(!first.is_spilled() && copy().is_spilled());
        let shared = first.clone();
        drop(first);
        assert!(copy().is_spilled());
        drop(shared);
        assert!(!copy().is_spilled());
    }

    #[test]
    fn rows_that_are_missing_or_too_many_are_an_error() {
        let batch = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
        let mut collector = Collector::new(3, &Memory::unlimited());
        collector.push(&batch).unwrap();
        assert!(collector.push(&batch).is_err());
        assert!(collector.finish().is_err_and(|error| error.to_string().contains("2 of 3 rows")));
    }
}

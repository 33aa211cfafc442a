//! Results of operations, made without a pass over memory before the one that computes them.
//!
//! `vec![0.0; n]` clears all of it on one thread, and by the time the values are written it has left the cache: an operation
//! that reads and writes as much as it clears spends a third of its time on that. Here each part is cleared by the task
//! that is about to write it.

use candle_core::WithDType;
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A vector being made, part by part.
pub struct Fresh<T> {
    values: Vec<T>,
    len: usize,
    /// Elements of the parts that were handed out.
    cleared: AtomicUsize,
}

impl<T: WithDType> Fresh<T> {
    pub fn new(len: usize) -> Self {
        Self { values: Vec::with_capacity(len), len, cleared: AtomicUsize::new(0) }
    }

    /// All of it in parts of `size` elements, the last one perhaps shorter, each of zeros when its turn comes.
    pub fn par_chunks_mut(&mut self, size: usize) -> impl IndexedParallelIterator<Item = &mut [T]> {
        let cleared = &self.cleared;
        cleared.store(0, Ordering::Relaxed);
        self.values.spare_capacity_mut()[..self.len].par_chunks_mut(size).map(|part| {
            let part = zeros(part);
            cleared.fetch_add(part.len(), Ordering::Relaxed);
            part
        })
    }

    /// The whole vector, once every part of it was asked for.
    pub fn finish(mut self) -> Vec<T> {
        assert_eq!(self.cleared.into_inner(), self.len, "parts of a result that nobody computed");
        // SAFETY: parts do not overlap and are counted after they were cleared, and the count is that of the last time they
        // were handed out: as many elements as there are means all of them.
        #[allow(unsafe_code)]
        unsafe {
            self.values.set_len(self.len);
        }
        self.values
    }
}

fn zeros<T: WithDType>(part: &mut [MaybeUninit<T>]) -> &mut [T] {
    part.fill(MaybeUninit::new(T::zero()));
    // SAFETY: every element was just written.
    #[allow(unsafe_code)]
    unsafe {
        &mut *(std::ptr::from_mut(part) as *mut [T])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_zeros_until_written() {
        let mut fresh = Fresh::<f32>::new(10);
        fresh.par_chunks_mut(4).enumerate().for_each(|(i, part)| part[0] += i as f32 + 1.0);
        assert_eq!(fresh.finish(), [1., 0., 0., 0., 2., 0., 0., 0., 3., 0.]);
        assert!(Fresh::<f64>::new(0).finish().is_empty());
    }

    #[test]
    #[should_panic(expected = "nobody computed")]
    fn parts_that_were_left_out_are_not_handed_over() {
        let mut fresh = Fresh::<f32>::new(8);
        // Twice the first half is not the whole.
        for _ in 0..2 {
            fresh.par_chunks_mut(4).zip([0].par_iter()).for_each(|(part, _)| part.fill(1.0));
        }
        fresh.finish();
    }
}

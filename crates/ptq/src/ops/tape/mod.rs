//! Gradients without Candle's zeros.
//!
//! Candle's `backward` fills a tensor with zeros for every value on the way, adds the gradient to it, and computes gradients of constants
//! that nobody asks for: half of what a training step launches on a GPU. While there is a [`Recording`], the operations here note on their
//! thread what they computed from what, and [`gradients`] goes back along these notes: the first gradient of a value is taken as it is,
//! further ones are added in Candle's order, so that results have the same bits.
//!
//! Candle keeps its own graph beside the notes. Where an operation that made no note is on the way, or nothing was recorded,
//! [`gradients`] is Candle's `backward`: slower, never wrong. The tests of the inner loops count these detours.

pub mod plain;
mod scalar;
#[cfg(test)]
pub(crate) mod tests;

pub use scalar::scalar;

use candle_core::backprop::GradStore;
use candle_core::{CustomOp1, CustomOp2, CustomOp3, Result, Tensor, TensorId};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

/// From the arguments of an operation, its result and the gradient of that: the gradients of the arguments, `None` for those that need none.
type Backward = Box<dyn Fn(&[Tensor], &Tensor, &Tensor) -> Result<Vec<Option<Tensor>>>>;

struct Note {
    args: Vec<Tensor>,
    backward: Backward,
}

#[derive(Default)]
struct Tape {
    notes: HashMap<TensorId, Rc<Note>>,
    /// Keys of `notes`, in the order in which they were made.
    order: Vec<TensorId>,
    recordings: usize,
    /// While gradients are computed: their own operations need no notes.
    is_paused: bool,
}

thread_local! {
    static TAPE: RefCell<Tape> = RefCell::default();
}

/// As long as it lives, operations on this thread make notes; when it ends, those made since it began are forgotten, and with them what
/// they hold in memory. Recordings may be nested.
#[must_use = "nothing is recorded once it is dropped"]
pub struct Recording {
    from: usize,
    /// Belongs to its thread.
    thread: PhantomData<*const ()>,
}

impl Recording {
    pub fn begin() -> Self {
        let from = TAPE.with_borrow_mut(|tape| {
            tape.recordings += 1;
            tape.order.len()
        });
        Self { from, thread: PhantomData }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let forgotten: Vec<Rc<Note>> = TAPE.with_borrow_mut(|tape| {
            tape.recordings -= 1;
            let ids = tape.order.split_off(self.from);
            ids.iter().filter_map(|id| tape.notes.remove(id)).collect()
        });
        drop(forgotten);
    }
}

/// While it lives, no notes are made.
struct Pause {
    was_paused: bool,
}

impl Pause {
    fn begin() -> Self {
        Self { was_paused: TAPE.with_borrow_mut(|tape| std::mem::replace(&mut tape.is_paused, true)) }
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        TAPE.with_borrow_mut(|tape| tape.is_paused = self.was_paused);
    }
}

/// Notes that `y`, which Candle tracks, came from `args`, if this is being recorded.
fn note(
    y: Tensor,
    args: &[&Tensor],
    backward: impl Fn(&[Tensor], &Tensor, &Tensor) -> Result<Vec<Option<Tensor>>> + 'static,
) -> Tensor {
    // What changes nothing gives its argument back, whose note says where that is from.
    let is_new = args.iter().all(|arg| arg.id() != y.id());
    if is_new && y.track_op() && !y.is_variable() {
        TAPE.with_borrow_mut(|tape| {
            if tape.recordings > 0 && !tape.is_paused {
                let args = args.iter().map(|&arg| arg.clone()).collect();
                tape.notes.insert(y.id(), Rc::new(Note { args, backward: Box::new(backward) }));
                tape.order.push(y.id());
            }
        });
    }
    y
}

/// `op` of `x`, as [`Tensor::apply_op1`] has it.
pub fn apply1(x: &Tensor, op: impl CustomOp1 + Send + Sync + 'static) -> Result<Tensor> {
    let op: Arc<Box<dyn CustomOp1 + Send + Sync>> = Arc::new(Box::new(op));
    let y = x.apply_op1_arc(op.clone())?;
    Ok(note(y, &[x], move |args, y, grad| Ok(vec![op.bwd(&args[0], y, grad)?])))
}

/// `op` of `a` and `b`, as [`Tensor::apply_op2`] has it.
pub fn apply2(a: &Tensor, b: &Tensor, op: impl CustomOp2 + Send + Sync + 'static) -> Result<Tensor> {
    let op: Arc<Box<dyn CustomOp2 + Send + Sync>> = Arc::new(Box::new(op));
    let y = a.apply_op2_arc(b, op.clone())?;
    Ok(note(y, &[a, b], move |args, y, grad| {
        let (of_a, of_b) = op.bwd(&args[0], &args[1], y, grad)?;
        Ok(vec![of_a, of_b])
    }))
}

/// `op` of `a`, `b` and `c`, as [`Tensor::apply_op3`] has it.
pub fn apply3(a: &Tensor, b: &Tensor, c: &Tensor, op: impl CustomOp3 + Send + Sync + 'static) -> Result<Tensor> {
    let op: Arc<Box<dyn CustomOp3 + Send + Sync>> = Arc::new(Box::new(op));
    let y = a.apply_op3_arc(b, c, op.clone())?;
    Ok(note(y, &[a, b, c], move |args, y, grad| {
        let (of_a, of_b, of_c) = op.bwd(&args[0], &args[1], &args[2], y, grad)?;
        Ok(vec![of_a, of_b, of_c])
    }))
}

/// The gradients of `loss`, one element, with respect to all variables that it depends on; constants.
///
/// Errors: those of the operations' gradients.
pub fn gradients(loss: &Tensor) -> Result<GradStore> {
    gradients_from(loss, &loss.ones_like()?)
}

/// The gradients of `sum of y * upstream`: what [`gradients`] goes on from where the gradient of `y` is known.
///
/// Shapes: `upstream` as `y`. Errors: as for [`gradients`].
pub fn gradients_from(y: &Tensor, upstream: &Tensor) -> Result<GradStore> {
    match sorted(y) {
        Some(order) => back(&order, y, upstream.detach()),
        None => {
            #[cfg(test)]
            tests::count_detour();
            (y * upstream.detach())?.sum_all()?.backward()
        }
    }
}

/// The values between `y` and the variables it depends on, each after all that were computed from it, in the order of
/// [`Tensor::sorted_nodes`], with their notes; `None` where one of them has none.
fn sorted(y: &Tensor) -> Option<Vec<(Tensor, Rc<Note>)>> {
    type Order = Vec<(Tensor, Rc<Note>)>;
    fn walk(y: &Tensor, tape: &Tape, seen: &mut HashSet<TensorId>, order: &mut Order) -> Option<()> {
        if y.is_variable() || !y.track_op() || !seen.insert(y.id()) {
            return Some(());
        }
        let note = tape.notes.get(&y.id())?;
        for arg in &note.args {
            walk(arg, tape, seen, order)?;
        }
        order.push((y.clone(), note.clone()));
        Some(())
    }
    let mut order = Vec::new();
    TAPE.with_borrow(|tape| walk(y, tape, &mut HashSet::new(), &mut order))?;
    order.reverse();
    Some(order)
}

fn back(order: &[(Tensor, Rc<Note>)], y: &Tensor, upstream: Tensor) -> Result<GradStore> {
    let _pause = Pause::begin();
    let mut grads = GradStore::default();
    grads.insert(y, upstream.contiguous()?);
    for (value, note) in order {
        let Some(grad) = grads.remove(value) else { continue };
        let of_args = (note.backward)(&note.args, value, &grad)?;
        for (arg, of_arg) in note.args.iter().zip(of_args) {
            if let Some(of_arg) = of_arg.filter(|_| arg.track_op()) {
                let sum = match grads.remove(arg) {
                    Some(sum) => (sum + of_arg)?,
                    None => of_arg.contiguous()?,
                };
                grads.insert(arg, sum.detach());
            }
        }
    }
    Ok(grads)
}

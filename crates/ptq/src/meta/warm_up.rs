//! Teaches a transform network to reproduce its input, so that it starts near the identity.

use super::nets::{NormStatistics, Transform, TransformNet};
use crate::error::{Error, Result};
use crate::ops::adam::{self, AdamState};
use crate::ops::device::Repeating;
use crate::ops::fake_quant::Mask;
use crate::ops::mix::mix_rows;
use crate::ops::tape::{self, Recording, scalar};
use crate::recipe::Sampling;
use crate::recon::batches;
use crate::recon::event::{Control, Event};
use crate::recon::schedule::LearningRate;
use crate::rng::{Purpose, Stream};
use candle_core::{DType, Tensor};

/// What the event of a warm-up step calls its phase.
const PHASE: &str = "warm-up";

/// A network for images like `images` `(N, C, H, W)`, warmed up on them: Adam on `mean((T(x) - x)^2)`.
///
/// Networks that start as the identity are not trained. Everything random comes from `stream`.
pub fn warmed_up(config: &Transform, images: &Tensor, stream: Stream, control: &Control) -> Result<TransformNet> {
    let net = untrained(config, images, stream)?;
    let n = images.dim(0)?;
    let steps = config.warmup_iterations;
    if !config.net.0.needs_warm_up || steps == 0 {
        return Ok(net);
    }
    control.unit(0, 1, "transform");
    let states = net.parameters.vars().map(AdamState::new).collect::<candle_core::Result<Vec<_>>>()?;
    for t in 1..=steps {
        control.check()?;
        let rows = batches::rows(Sampling::Permutation, n, config.warmup_batch, stream.purpose(Purpose::WarmUp), t);
        let x = mix_rows(images, images, &rows, &Mask::All)?;
        let (_recording, _repeating) = (Recording::begin(), Repeating::on(x.device()));
        let y = net.forward(&x, NormStatistics::Batch)?;
        let loss = scalar(&y, |y| (y - &x)?.sqr()?.mean_all())?;
        let value = f64::from(loss.to_scalar::<f32>()?);
        if !value.is_finite() {
            return Err(Error::Diverged { unit: "the transform network's warm-up".to_string(), iteration: t, value });
        }
        let gradients = tape::gradients(&loss)?;
        let lr = LearningRate::Cosine(config.warmup_lr).at(t, steps);
        let parts = states
            .iter()
            .filter_map(|state| gradients.get(state.var()).map(|gradient| adam::Step { state, gradient, lr }));
        adam::step(&parts.collect::<Vec<_>>(), t, 1.0)?;
        (control.observe)(Event::Step { phase: PHASE.to_string(), iteration: t, iterations: steps, loss: value });
    }
    Ok(net)
}

/// A network for such images as its parameters are drawn.
pub fn untrained(config: &Transform, images: &Tensor, stream: Stream) -> Result<TransformNet> {
    let channels = images.dim(1)?;
    TransformNet::new(config, channels, stream.purpose(Purpose::TransformInit), DType::F32, images.device())
}

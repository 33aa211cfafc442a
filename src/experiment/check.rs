//! Values that no run could use: refused before any work.

use super::cell::Cell;
use crate::data;
use crate::recon::recipe::Granularity;

/// The first value of `cell` that is out of range: its key and what is wrong.
pub fn check(cell: &Cell) -> Result<(), (&'static str, String)> {
    let pool = data::find(&cell.dataset).map_or(usize::MAX, |dataset| dataset.pool_images);
    if cell.calib_images == 0 || cell.calib_images > pool {
        return Err((
            "calib-images",
            format!("{} is not 1 to {pool}, the size of the pool of {}", cell.calib_images, cell.dataset),
        ));
    }
    let recipe = &cell.recipe;
    let optimised = recipe.granularity != Granularity::None;
    for (key, count, needed) in [
        ("recipe.act-search-images", recipe.act_search_images, true),
        ("recipe.iterations", recipe.iterations, optimised),
        ("recipe.batch", recipe.batch, optimised),
    ] {
        if needed && count == 0 {
            return Err((key, "0 is not allowed".to_string()));
        }
    }
    if optimised && recipe.batch > cell.calib_images {
        return Err(("recipe.batch", format!("{} is more than calib-images = {}", recipe.batch, cell.calib_images)));
    }
    for (key, fraction) in [
        ("recipe.drop-inside", recipe.drop_inside),
        ("recipe.drop-input", recipe.drop_input),
        ("recipe.round-warmup", recipe.round_warmup),
    ] {
        if !(0.0..=1.0).contains(&fraction) {
            return Err((key, format!("{fraction} is not a fraction from 0 to 1")));
        }
    }
    for (key, value) in [
        ("recipe.alpha-lr", recipe.alpha_lr),
        ("recipe.weight-scale-lr", recipe.weight_scale_lr),
        ("recipe.act-scale-lr", recipe.act_scale_lr),
        ("recipe.act-phase-lr", recipe.act_phase_lr),
        ("recipe.act-phase-frac", recipe.act_phase_frac),
        ("recipe.round-weight", recipe.round_weight),
        ("recipe.fisher-damping", recipe.fisher_damping),
    ] {
        if !(value.is_finite() && value >= 0.0) {
            return Err((key, format!("{value} is not a finite number from 0 on")));
        }
    }
    for (key, exponent) in [
        ("recipe.loss-exponent", recipe.loss_exponent),
        ("recipe.act-phase-exponent", recipe.act_phase_exponent),
        ("recipe.round-beta-start", recipe.round_beta_start),
        ("recipe.round-beta-end", recipe.round_beta_end),
    ] {
        if !(exponent.is_finite() && exponent >= 1.0) {
            return Err((key, format!("{exponent} is not a finite exponent from 1 on")));
        }
    }
    Ok(())
}

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
    if i64::try_from(cell.seed).is_err() {
        return Err(("seed", format!("{} is more than {}, the largest integer of TOML", cell.seed, i64::MAX)));
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
    for (key, count) in [
        ("recipe.iterations", recipe.iterations),
        ("recipe.batch", recipe.batch),
        ("recipe.act-phase-frac", recipe.act_phase_iterations()),
    ] {
        if u32::try_from(count).is_err() {
            return Err((key, format!("{count} is more than {}", u32::MAX)));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{Bits, Setting};
    use crate::{arch, methods};

    fn cell(method: &str) -> Cell {
        Cell {
            arch: "resnet20".into(),
            weights: "embedded".into(),
            dataset: "fashion-mnist".into(),
            bits: Bits { w: 2, a: 2 },
            method: method.into(),
            variant: None,
            setting: Setting::Qdrop,
            calib_images: 256,
            seed: 0,
            augment: Vec::new(),
            transform: None,
            meta: None,
            terms: None,
            recipe: (methods::find(method).unwrap().recipe)(arch::find("resnet20").unwrap()),
        }
    }

    #[test]
    fn published_recipes_pass() {
        for method in methods::METHODS {
            assert_eq!(check(&cell(method.name)), Ok(()), "{}", method.name);
        }
    }

    #[test]
    fn each_bound_is_refused_by_the_name_of_its_key() {
        type Edit = fn(&mut Cell);
        let edits: [(&str, Edit); 14] = [
            ("calib-images", |cell| cell.calib_images = 0),
            ("calib-images", |cell| cell.calib_images = 4097),
            ("seed", |cell| cell.seed = i64::MAX as u64 + 1),
            ("recipe.act-search-images", |cell| cell.recipe.act_search_images = 0),
            ("recipe.iterations", |cell| cell.recipe.iterations = 0),
            ("recipe.iterations", |cell| cell.recipe.iterations = 1 << 32),
            ("recipe.batch", |cell| cell.recipe.batch = 257),
            ("recipe.drop-inside", |cell| cell.recipe.drop_inside = 1.01),
            ("recipe.round-warmup", |cell| cell.recipe.round_warmup = f64::NAN),
            ("recipe.alpha-lr", |cell| cell.recipe.alpha_lr = f64::NAN),
            ("recipe.act-phase-lr", |cell| cell.recipe.act_phase_lr = f64::INFINITY),
            ("recipe.round-weight", |cell| cell.recipe.round_weight = -0.01),
            ("recipe.loss-exponent", |cell| cell.recipe.loss_exponent = 0.0),
            ("recipe.round-beta-end", |cell| cell.recipe.round_beta_end = f64::NAN),
        ];
        for (key, edit) in edits {
            let mut cell = cell("qdrop");
            edit(&mut cell);
            assert_eq!(check(&cell).map_err(|(key, _)| key), Err(key));
        }
    }

    #[test]
    fn what_rounding_to_nearest_does_not_use_may_be_anything() {
        let mut cell = cell("rtn");
        (cell.recipe.iterations, cell.recipe.batch, cell.calib_images) = (0, 512, 16);
        assert_eq!(check(&cell), Ok(()));
    }
}

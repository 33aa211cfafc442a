//! Values that no run could use: refused before any work.

use super::cell::Cell;
use crate::data;
use ptq::meta::config::Meta;
use ptq::meta::nets::{NetName, SPATIAL, Transform, too_small};
use ptq::recipe::{Bounds, Granularity, Number, Recipe, RoundingName};

/// What is wrong: the key of a value, and what about it.
type Problem = (String, String);

fn problem<T>(key: &str, text: impl Into<String>) -> Result<T, Problem> {
    Err((key.to_string(), text.into()))
}

/// The first value of `cell` that is out of range: its key and what is wrong.
pub fn check(cell: &Cell) -> Result<(), Problem> {
    let dataset = data::find(&cell.dataset);
    let pool = dataset.filter(|_| cell.data.is_none()).and_then(|dataset| dataset.embedded_pool());
    match pool {
        Some(pool) if cell.calib_images == 0 || cell.calib_images > pool => {
            let text = format!("{} is not 1 to {pool}, the size of the pool of {}", cell.calib_images, cell.dataset);
            return problem("calib-images", text);
        }
        None if cell.calib_images == 0 => return problem("calib-images", "0 is not allowed"),
        _ => {}
    }
    if i64::try_from(cell.seed).is_err() {
        return problem("seed", format!("{} is more than {}, the largest integer of TOML", cell.seed, i64::MAX));
    }
    cell.check_bounds()?;
    let recipe = &cell.recipe;
    let optimised = recipe.granularity != Granularity::None;
    for (key, count) in [("recipe.iterations", recipe.iterations), ("recipe.batch", recipe.batch)] {
        if optimised && count == 0 {
            return problem(key, "0 is not allowed");
        }
    }
    within("recipe.act-phase-frac", recipe.act_phase_iterations(), Bounds::counts_from(0))?;
    if optimised && recipe.batch > cell.calib_images {
        return problem("recipe.batch", format!("{} is more than calib-images = {}", recipe.batch, cell.calib_images));
    }
    check_pd_quant(recipe)?;
    if !cell.augment.is_empty() && !optimised {
        return problem("augment", format!("{} optimises nothing that could see more images", cell.method));
    }
    match (&cell.transform, &cell.meta, &cell.terms) {
        (Some(transform), Some(meta), Some(terms)) => {
            check_recipe_for_meta(recipe)?;
            check_transform(transform, calib_side(cell))?;
            check_meta(meta, cell.calib_images)?;
            match terms.weight("margin") > 0.0 {
                true => within("meta.eps", meta.eps, Bounds::Positive),
                false => Ok(()),
            }
        }
        (None, None, None) => Ok(()),
        _ => problem("transform", "transform, meta and terms go together"),
    }
}

/// What else of a grid may have made the value of `key` wrong, the likeliest first: a published value that nobody wrote is wrong only
/// beside one that somebody did.
pub fn causes(key: &str) -> &'static [&'static str] {
    match key {
        "recipe.granularity" | "recipe.loss-exponent" | "recipe.alpha-lr" | "recipe.rounding" | "transform.depth" => {
            &["transform.net", "method"]
        }
        "transform.start-warp" => &["transform.net"],
        "recipe.prediction-weight" | "recipe.correction-iterations" => &["recipe.granularity", "method"],
        "meta.batch" | "meta.outer-batch" => &["meta.validation", "calib-images"],
        "meta.unroll" => &["meta.iterations"],
        _ => &["calib-images"],
    }
}

fn within(key: &str, value: impl Number, bounds: Bounds) -> Result<(), Problem> {
    bounds.check(value).map_err(|problem| (key.to_string(), problem))
}

/// Height and width of the images, unless the checkpoint wants another size.
fn calib_side(cell: &Cell) -> Option<(usize, usize)> {
    data::find(&cell.dataset).map(|dataset| (dataset.preprocess)().crop)
}

/// What the prediction difference and the distribution correction need where they are on.
fn check_pd_quant(recipe: &Recipe) -> Result<(), Problem> {
    let (judges, corrects) = (recipe.prediction_weight > 0.0, recipe.correction_iterations > 0);
    if (judges || corrects) && recipe.granularity != Granularity::Block {
        let key = if judges { "recipe.prediction-weight" } else { "recipe.correction-iterations" };
        return problem(key, "works on whole units: recipe.granularity = \"block\"");
    }
    for (key, value, needed) in [
        ("recipe.prediction-temperature", recipe.prediction_temperature, judges),
        ("recipe.correction-lr", recipe.correction_lr, corrects),
        ("recipe.correction-lambda", recipe.correction_lambda, corrects),
    ] {
        if needed {
            within(key, value, Bounds::Positive)?;
        }
    }
    Ok(())
}

/// The virtual update is one of a unit's learned rounding under a squared error.
fn check_recipe_for_meta(recipe: &Recipe) -> Result<(), Problem> {
    match () {
        () if recipe.granularity != Granularity::Block => {
            problem("recipe.granularity", "a transform network is trained for whole units: \"block\"")
        }
        () if recipe.loss_exponent != 2.0 => {
            problem("recipe.loss-exponent", "a transform network is trained with exponent 2")
        }
        () if recipe.alpha_lr == 0.0 => {
            problem("recipe.alpha-lr", "a transform network is trained through soft rounding: more than 0")
        }
        () if recipe.rounding == RoundingName::Nearest => {
            problem("recipe.rounding", "a transform network is trained through a rounding that is learned")
        }
        () => Ok(()),
    }
}

fn check_transform(transform: &Transform, size: Option<(usize, usize)>) -> Result<(), Problem> {
    if transform.start_warp > 0.0 && transform.net != NetName(&SPATIAL) {
        let text = format!("{:?} does not warp: transform.net = \"spatial\"", transform.net);
        return problem("transform.start-warp", text);
    }
    match size.and_then(|(height, width)| too_small(transform, height, width)) {
        Some(text) => problem("transform.depth", text),
        None => Ok(()),
    }
}

fn check_meta(meta: &Meta, calib_images: usize) -> Result<(), Problem> {
    let (transformed, judging) = meta.validation.split(calib_images);
    for (key, count, from) in [("meta.batch", meta.batch, transformed), ("meta.outer-batch", meta.outer_batch, judging)]
    {
        if count > from.len() {
            let sample = format!("calib-images = {calib_images}");
            let of = match from.len() == calib_images {
                true => sample,
                false => format!("{}, its part of {sample} with meta.validation = \"held-out\"", from.len()),
            };
            return problem(key, format!("{count} is not 1 to {of}"));
        }
    }
    if meta.iterations > 0 && meta.unroll > meta.iterations {
        let text = format!("{} unrolled steps with meta.iterations = {}: 1 to that many", meta.unroll, meta.iterations);
        return problem("meta.unroll", text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ptq::meta::config::Validation;
    use ptq::meta::terms::{self, Terms};
    use ptq::recipe::{Bits, Setting};
    use ptq::{arch, methods};

    fn cell(method: &str) -> Cell {
        let method = methods::find(method).unwrap();
        let arch = arch::find("resnet20").unwrap();
        Cell {
            arch: "resnet20".into(),
            weights: "embedded".into(),
            dataset: "fashion-mnist".into(),
            data: None,
            corrupt: data::Corrupt::Error,
            preprocess: data::CardSize::Test,
            precision: Default::default(),
            bits: Bits { w: 2, a: 2 },
            method: method.name.into(),
            variant: None,
            setting: Setting::Qdrop,
            calib_images: 256,
            seed: 0,
            augment: Vec::new(),
            transform: method.transforms.then(Transform::published),
            meta: method.transforms.then(|| Meta::published(arch)),
            terms: method.transforms.then(Terms::published),
            recipe: (method.recipe)(arch),
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
        let edits: [(&str, Edit); 18] = [
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
            ("recipe.prediction-weight", |cell| cell.recipe.prediction_weight = -1.0),
            ("recipe.prediction-temperature", |cell| cell.recipe.prediction_weight = 1.0),
            ("recipe.correction-lr", |cell| cell.recipe.correction_iterations = 1),
            ("recipe.correction-iterations", |cell| {
                (cell.recipe.correction_iterations, cell.recipe.granularity) = (1, Granularity::Layer);
            }),
        ];
        for (key, edit) in edits {
            let mut cell = cell("qdrop");
            edit(&mut cell);
            assert_eq!(check(&cell).map_err(|(key, _)| key), Err(key.to_string()));
        }
    }

    #[test]
    fn each_bound_of_a_transform_and_its_training_is_refused_by_the_name_of_its_key() {
        type Edit = fn(&mut Transform, &mut Meta, &mut Terms, &mut Recipe);
        let edits: [(&str, Edit); 17] = [
            ("transform.base", |transform, _, _, _| transform.base = 0),
            ("transform.depth", |transform, _, _, _| transform.depth = 5),
            ("transform.warmup-batch", |transform, _, _, _| transform.warmup_batch = 0),
            ("transform.start-warp", |transform, _, _, _| transform.start_warp = 0.1),
            ("meta.batch", |_, meta, _, _| meta.batch = 257),
            ("meta.outer-batch", |_, meta, _, _| meta.outer_batch = 0),
            ("meta.outer-batch", |_, meta, _, _| {
                (meta.validation, meta.outer_batch) = (Validation::HeldOut, 129);
            }),
            ("meta.unroll", |_, meta, _, _| meta.unroll = 501),
            ("meta.inner-eps", |_, meta, _, _| meta.inner_eps = 0.0),
            ("meta.temperature", |_, meta, _, _| meta.temperature = f64::NAN),
            ("meta.lr", |_, meta, _, _| meta.lr = -1.0),
            ("meta.eps", |_, meta, _, _| meta.eps = 0.0),
            ("terms.val-kl", |_, _, terms, _| terms.set(terms::find("val-kl").unwrap(), -5.0)),
            ("terms.distribution", |_, _, terms, _| terms.set(terms::find("distribution").unwrap(), f64::NAN)),
            ("recipe.granularity", |_, _, _, recipe| recipe.granularity = Granularity::Layer),
            ("recipe.alpha-lr", |_, _, _, recipe| recipe.alpha_lr = 0.0),
            ("recipe.rounding", |_, _, _, recipe| recipe.rounding = RoundingName::Nearest),
        ];
        for (key, edit) in edits {
            let mut cell = cell("metaaug");
            if let (Some(transform), Some(meta), Some(terms)) = (&mut cell.transform, &mut cell.meta, &mut cell.terms) {
                edit(transform, meta, terms, &mut cell.recipe);
            }
            assert_eq!(check(&cell).map_err(|(key, _)| key), Err(key.to_string()));
        }
    }

    #[test]
    fn what_rounding_to_nearest_does_not_use_may_be_anything() {
        let mut cell = cell("rtn");
        (cell.recipe.iterations, cell.recipe.batch, cell.calib_images) = (0, 512, 16);
        assert_eq!(check(&cell), Ok(()));
    }
}

//! What figures of traces and pictures show, as data frames in long form.

use super::frame;
use super::losses::Losses;
use super::transform::TransformRun;
use crate::error::Result;
use crate::store::Colour;
use polars::prelude::{Column, DataFrame};
use ptq::recon::trace::UnitTrace;

/// Pixels at most along a side of an image.
const LARGEST: usize = 64;

/// One row per point of a trace.
pub fn losses_frame(losses: &Losses, ids: &[String]) -> Result<DataFrame> {
    let traces: Vec<(&String, &UnitTrace)> = ids
        .iter()
        .zip(&losses.runs)
        .flat_map(|(id, (_, traces))| traces.iter().map(move |trace| (id, trace)))
        .collect();
    let points: Vec<(&String, &UnitTrace, usize)> =
        traces.iter().flat_map(|(id, trace)| (0..trace.iterations.len()).map(move |at| (*id, *trace, at))).collect();
    let columns = vec![
        Column::new("run_id".into(), points.iter().map(|(id, ..)| id.as_str()).collect::<Vec<_>>()),
        Column::new("unit".into(), points.iter().map(|(_, trace, _)| trace.unit.as_str()).collect::<Vec<_>>()),
        Column::new("phase".into(), points.iter().map(|(_, trace, _)| trace.phase.as_str()).collect::<Vec<_>>()),
        Column::new(
            "iteration".into(),
            points.iter().map(|(_, trace, at)| trace.iterations[*at] as u64).collect::<Vec<_>>(),
        ),
        Column::new(
            "loss".into(),
            points.iter().map(|(_, trace, at)| trace.loss.get(*at).copied()).collect::<Vec<_>>(),
        ),
        Column::new(
            "regulariser".into(),
            points.iter().map(|(_, trace, at)| trace.regulariser.get(*at).copied()).collect::<Vec<_>>(),
        ),
    ];
    DataFrame::new(points.len(), columns).map_err(frame::failed)
}

/// One row per term and point of a trace; losses and norms without their weights.
pub fn terms_frame(runs: &[TransformRun]) -> Result<DataFrame> {
    type Point<'a> = (&'a str, &'a str, &'a str, f64, u64, Option<f64>, Option<f64>);
    let mut points: Vec<Point> = Vec::new();
    for run in runs {
        for trace in &run.traces {
            for term in &trace.terms {
                for (at, t) in trace.iterations.iter().enumerate() {
                    let (loss, norm) = (term.loss.get(at).copied(), term.gradient_norm.get(at).copied());
                    points.push((&run.title, &trace.unit, &term.name, term.weight, *t as u64, loss, norm));
                }
            }
        }
    }
    let columns = vec![
        Column::new("run_id".into(), points.iter().map(|point| point.0).collect::<Vec<_>>()),
        Column::new("unit".into(), points.iter().map(|point| point.1).collect::<Vec<_>>()),
        Column::new("term".into(), points.iter().map(|point| point.2).collect::<Vec<_>>()),
        Column::new("weight".into(), points.iter().map(|point| point.3).collect::<Vec<_>>()),
        Column::new("iteration".into(), points.iter().map(|point| point.4).collect::<Vec<_>>()),
        Column::new("loss".into(), points.iter().map(|point| point.5).collect::<Vec<_>>()),
        Column::new("gradient_norm".into(), points.iter().map(|point| point.6).collect::<Vec<_>>()),
    ];
    DataFrame::new(points.len(), columns).map_err(frame::failed)
}

/// One row per pixel: red, green and blue from 0 to 1, of images made smaller by a whole factor as in the figure.
pub fn pictures_frame(runs: &[TransformRun]) -> Result<DataFrame> {
    let mut pixels: Vec<(&str, [u64; 3], [Colour; 2])> = Vec::new();
    for run in runs {
        let Some(strip) = &run.pictures else { continue };
        let strip = strip.reduced(strip.height.max(strip.width).div_ceil(LARGEST));
        for (image, (x, t_x)) in strip.x.iter().zip(&strip.t_x).enumerate() {
            for (at, (x, t_x)) in x.iter().zip(t_x).enumerate() {
                let place = [image, at / strip.width, at % strip.width].map(|index| index as u64);
                pixels.push((&run.title, place, [*x, *t_x]));
            }
        }
    }
    let ids: Vec<&str> = pixels.iter().map(|(id, ..)| *id).collect();
    let mut columns = vec![Column::new("run_id".into(), ids)];
    for (index, name) in ["image", "row", "column"].into_iter().enumerate() {
        columns.push(Column::new(name.into(), pixels.iter().map(|(_, place, _)| place[index]).collect::<Vec<_>>()));
    }
    for (side, image) in ["x", "t_x"].into_iter().enumerate() {
        for (channel, name) in ["red", "green", "blue"].into_iter().enumerate() {
            let levels: Vec<f32> = pixels.iter().map(|(.., colours)| colours[side][channel]).collect();
            columns.push(Column::new(format!("{image}_{name}").into(), levels));
        }
    }
    DataFrame::new(pixels.len(), columns).map_err(frame::failed)
}

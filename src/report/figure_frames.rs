//! What figures of traces and pictures show, as data frames in long form.

use super::frame;
use super::losses::Losses;
use super::transform::TransformRun;
use crate::error::Result;
use crate::store::record::UnitTrace;
use polars::prelude::{Column, DataFrame};

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

/// One row per pixel: grey levels from 0 to 1.
pub fn pictures_frame(runs: &[TransformRun]) -> Result<DataFrame> {
    let mut pixels: Vec<(&str, u64, u64, u64, f32, f32)> = Vec::new();
    for run in runs {
        let Some(strip) = &run.pictures else { continue };
        for (image, (x, t_x)) in strip.x.iter().zip(&strip.t_x).enumerate() {
            for (at, (grey, transformed)) in x.iter().zip(t_x).enumerate() {
                let (row, column) = ((at / strip.width) as u64, (at % strip.width) as u64);
                pixels.push((&run.title, image as u64, row, column, *grey, *transformed));
            }
        }
    }
    let columns = vec![
        Column::new("run_id".into(), pixels.iter().map(|pixel| pixel.0).collect::<Vec<_>>()),
        Column::new("image".into(), pixels.iter().map(|pixel| pixel.1).collect::<Vec<_>>()),
        Column::new("row".into(), pixels.iter().map(|pixel| pixel.2).collect::<Vec<_>>()),
        Column::new("column".into(), pixels.iter().map(|pixel| pixel.3).collect::<Vec<_>>()),
        Column::new("x".into(), pixels.iter().map(|pixel| pixel.4).collect::<Vec<_>>()),
        Column::new("t_x".into(), pixels.iter().map(|pixel| pixel.5).collect::<Vec<_>>()),
    ];
    DataFrame::new(pixels.len(), columns).map_err(frame::failed)
}

//! What transform networks did: pictures of the images beside their transforms, and how strongly each term of the
//! meta-loss pulled.

use super::canvas::{COLOURS, Drawing, GRID_LINE, Panel, TEXT, failed, png, segments, write};
use crate::error::Result;
use crate::store::{Colour, Pictures, Stored, Strip, read_traces};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};
use ptq::recon::trace::{TermTrace, UnitTrace};
use std::path::PathBuf;

/// Height of one run.
const HEIGHT: u32 = 400;
/// Runs after these are not drawn: a figure is looked at.
const SHOWN: usize = 12;
/// Height of the run's name.
const TITLE: i32 = 44;
/// Room for the names of the rows of pictures.
const ROW_NAMES: i32 = 110;
/// Values below this are not drawn: the term does not reach the transform there.
const SMALLEST: f64 = 1e-9;

/// One run with a transform network.
pub struct TransformRun {
    pub title: String,
    pub pictures: Option<Strip>,
    pub traces: Vec<UnitTrace>,
}

/// A run's folder, and why what is stored there beside its record is left out.
pub type Unreadable = (PathBuf, String);

/// Those of `runs` that trained a transform network, with their pictures; what cannot be read goes to `unreadable`.
pub fn read_runs(runs: &[&Stored], unreadable: &mut Vec<Unreadable>) -> Vec<TransformRun> {
    let read = |run: &Stored| -> Result<TransformRun> {
        let pictures = match (Pictures::read(&run.folder)?, run.preprocess()) {
            (Some(pictures), Some(preprocess)) => Some(pictures.strip(&preprocess.mean, &preprocess.std)?),
            _ => None,
        };
        Ok(TransformRun { title: run.record.run_id.clone(), pictures, traces: read_traces(&run.folder)? })
    };
    let trained = runs.iter().filter(|run| run.record.cell.transform.as_ref().is_some_and(|t| t.net.0.is_trainable));
    trained.filter_map(|run| readable(read(run), run, unreadable)).collect()
}

/// What was read of `run`; an error is noted once per run.
pub fn readable<T>(read: Result<T>, run: &Stored, unreadable: &mut Vec<Unreadable>) -> Option<T> {
    read.map_err(|error| {
        if unreadable.iter().all(|(folder, _)| *folder != run.folder) {
            unreadable.push((run.folder.clone(), error.to_string()));
        }
    })
    .ok()
}

/// What is drawn of each run, from left to right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Pictures,
    /// The terms of the meta-loss, weighted.
    Losses,
    /// The norms of their gradients, weighted.
    Norms,
}

impl Part {
    fn width(self) -> u32 {
        match self {
            Part::Pictures => 840,
            Part::Losses | Part::Norms => 800,
        }
    }
}

/// Runs below each other.
pub struct Transforms<'a> {
    pub runs: &'a [TransformRun],
    pub parts: &'a [Part],
}

impl Transforms<'_> {
    fn shown(&self) -> &[TransformRun] {
        &self.runs[..self.runs.len().min(SHOWN)]
    }

    /// What there is something to draw of: runs whose images may not be passed on come without pictures.
    fn parts(&self) -> impl Iterator<Item = Part> {
        let has_pictures = self.shown().iter().any(|run| run.pictures.is_some());
        self.parts.iter().copied().filter(move |part| has_pictures || *part != Part::Pictures)
    }
}

impl Drawing for Transforms<'_> {
    fn size(&self) -> (u32, u32) {
        let more = if self.runs.len() > SHOWN { TITLE as u32 } else { 0 };
        (self.parts().map(Part::width).sum(), HEIGHT * self.shown().len().max(1) as u32 + more)
    }

    fn draw<D: DrawingBackend>(&self, area: &Panel<D>) -> Result<()>
    where
        D::ErrorType: 'static,
    {
        if self.runs.is_empty() {
            return write(area, "no runs with a transform network", (40, 60), (HPos::Left, VPos::Top));
        }
        let height = HEIGHT as i32 * self.shown().len() as i32;
        let (runs, below) = area.split_vertically(height);
        for (panel, run) in runs.split_evenly((self.shown().len(), 1)).iter().zip(self.shown()) {
            write(panel, &run.title, (16, 10), (HPos::Left, VPos::Top))?;
            let mut rest = panel.clone();
            for part in self.parts() {
                let (part_area, right) = rest.split_horizontally(part.width());
                match (part, &run.pictures) {
                    (Part::Pictures, Some(strip)) => draw_pictures(&part_area, strip)?,
                    (Part::Pictures, None) => {}
                    (Part::Losses, _) => {
                        draw_terms(&part_area, &run.traces, |term| &term.loss, "weighted term")?;
                    }
                    (Part::Norms, _) => {
                        draw_terms(&part_area, &run.traces, |term| &term.gradient_norm, "weighted norm")?;
                    }
                }
                rest = right;
            }
        }
        if self.runs.len() > SHOWN {
            let left_out = format!("and {} more runs", self.runs.len() - SHOWN);
            write(&below, &left_out, (16, 10), (HPos::Left, VPos::Top))?;
        }
        Ok(())
    }
}

/// PNG of pictures and norms of `runs`; `None` if there are none.
pub fn draw(runs: &[TransformRun]) -> Result<Option<Vec<u8>>> {
    if runs.is_empty() {
        return Ok(None);
    }
    Ok(Some(png(&Transforms { runs, parts: &[Part::Pictures, Part::Norms] })?))
}

/// Rows: images, transforms, differences (grey where nothing changed).
fn draw_pictures<D: DrawingBackend>(area: &Panel<D>, strip: &Strip) -> Result<()>
where
    D::ErrorType: 'static,
{
    let columns = strip.x.len().max(1) as i32;
    let (width, height) = area.dim_in_pixel();
    let (across, down) = ((width as i32 - ROW_NAMES) / columns - 1, (height as i32 - TITLE) / 3 - 1);
    let factor = (strip.width.div_ceil(across.max(1) as usize)).max(strip.height.div_ceil(down.max(1) as usize));
    let strip = strip.reduced(factor);
    let difference: Vec<Vec<Colour>> = strip
        .x
        .iter()
        .zip(&strip.t_x)
        .map(|(x, t_x)| x.iter().zip(t_x).map(|(x, t)| [0, 1, 2].map(|c| 0.5 + (t[c] - x[c]) / 2.0)).collect())
        .collect();
    let across = (width as i32 - ROW_NAMES) / (columns * (strip.width as i32 + 1));
    let down = (height as i32 - TITLE) / (3 * (strip.height as i32 + 1));
    let zoom = across.min(down).max(1);
    for (row, (name, images)) in [("x", &strip.x), ("T(x)", &strip.t_x), ("T(x) - x", &difference)].iter().enumerate() {
        let top = TITLE + row as i32 * zoom * (strip.height as i32 + 1);
        let middle = top + zoom * strip.height as i32 / 2 - TEXT / 2;
        area.draw(&Text::new(*name, (10, middle), ("sans-serif", TEXT - 2).into_font())).map_err(failed)?;
        for (column, image) in images.iter().enumerate() {
            let left = ROW_NAMES + column as i32 * zoom * (strip.width as i32 + 1);
            for (index, colour) in image.iter().enumerate() {
                let (y, x) = ((index / strip.width) as i32, (index % strip.width) as i32);
                let corner = (left + x * zoom, top + y * zoom);
                let [red, green, blue] = colour.map(|level| (level.clamp(0.0, 1.0) * 255.0).round() as u8);
                let corners = [corner, (corner.0 + zoom, corner.1 + zoom)];
                let pixel = Rectangle::new(corners, RGBColor(red, green, blue).filled());
                area.draw(&pixel).map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// What `values` gives of all terms, times their weight, over the meta iterations of all units in order.
fn draw_terms<D: DrawingBackend>(
    area: &Panel<D>,
    traces: &[UnitTrace],
    values: fn(&TermTrace) -> &Vec<f64>,
    title: &str,
) -> Result<()>
where
    D::ErrorType: 'static,
{
    let traces: Vec<&UnitTrace> = traces.iter().filter(|trace| !trace.terms.is_empty()).collect();
    let Some(names) = traces.first().map(|trace| trace.terms.iter().map(|term| term.name.clone())) else {
        return Ok(());
    };
    let names: Vec<String> = names.collect();
    let mut series: Vec<Vec<(f64, f64)>> = vec![Vec::new(); names.len()];
    let (mut start, mut borders) = (0.0, Vec::new());
    for trace in &traces {
        for (points, term) in series.iter_mut().zip(&trace.terms) {
            for (t, norm) in trace.iterations.iter().zip(values(term)) {
                points.push((start + *t as f64, term.weight * norm));
            }
        }
        start += trace.iterations.last().copied().unwrap_or(0) as f64;
        borders.push(start);
    }
    let largest = series.iter().flatten().map(|(_, norm)| *norm).filter(|norm| norm.is_finite()).fold(1.0, f64::max);
    let (chart_area, legend) = area.split_horizontally(area.dim_in_pixel().0 - 190);
    let mut chart = ChartBuilder::on(&chart_area)
        .margin(14)
        .margin_top(TITLE)
        .x_label_area_size(56)
        .y_label_area_size(110)
        .build_cartesian_2d(0.0..start.max(1.0), (SMALLEST..largest * 3.0).log_scale())
        .map_err(failed)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(5)
        .y_labels(6)
        .x_label_formatter(&|x| format!("{x:.0}"))
        // Adding 0 turns the -0 that rounding leaves into 0.
        .y_label_formatter(&|y| format!("1e{:.0}", y.log10().round() + 0.0))
        .x_desc("meta iterations, all units")
        .y_desc(title)
        .label_style(("sans-serif", TEXT - 4))
        .light_line_style(WHITE)
        .bold_line_style(GRID_LINE)
        .draw()
        .map_err(failed)?;
    for border in borders {
        let line = [(border, SMALLEST), (border, largest * 3.0)];
        chart.draw_series(LineSeries::new(line, GRID_LINE)).map_err(failed)?;
    }
    for (index, (points, name)) in series.into_iter().zip(&names).enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        // Separate pieces around what is not drawn; one of a single point is a dot.
        for piece in points.split(|(_, norm)| norm.is_nan() || *norm < SMALLEST) {
            chart.draw_series(segments(piece, colour)).map_err(failed)?;
            let dots = piece.iter().filter(|_| piece.len() == 1).map(|point| Circle::new(*point, 2, colour.filled()));
            chart.draw_series(dots).map_err(failed)?;
        }
        let y = TITLE + 16 + 44 * index as i32;
        legend.draw(&PathElement::new(vec![(4, y), (30, y)], colour.stroke_width(4))).map_err(failed)?;
        let text = Text::new(name.clone(), (38, y - TEXT / 3), ("sans-serif", TEXT - 4).into_font());
        legend.draw(&text).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ptq::recon::trace::TermTrace;

    #[test]
    fn a_reduced_picture_is_made_of_means_and_keeps_its_colours() {
        let x = vec![
            [0.0, 0.5, 1.0],
            [1.0, 0.5, 0.0],
            [0.2; 3],
            [0.4; 3],
            [0.0, 0.5, 1.0],
            [1.0, 0.5, 0.0],
            [0.6; 3],
            [0.8; 3],
        ];
        let reduced = Strip { height: 2, width: 4, x: vec![x], t_x: Vec::new() }.reduced(2);
        assert_eq!((reduced.height, reduced.width), (1, 2));
        assert_eq!(reduced.x, [[[0.5; 3], [0.5; 3]]]);
    }

    #[test]
    fn no_more_runs_are_drawn_than_can_be_looked_at() {
        let run = || TransformRun { title: "run".into(), pictures: None, traces: Vec::new() };
        let size = |count: usize| {
            let runs: Vec<TransformRun> = (0..count).map(|_| run()).collect();
            Transforms { runs: &runs, parts: &[Part::Norms] }.size()
        };
        assert_eq!((size(1), size(SHOWN).1), ((800, HEIGHT), HEIGHT * SHOWN as u32));
        assert!(size(10_000).1 < HEIGHT * (SHOWN as u32 + 1));
    }

    #[test]
    fn runs_with_and_without_pictures_are_drawn() {
        let mut trace = UnitTrace::new("layer1.0", "meta");
        (trace.iterations, trace.loss) = (vec![1, 2], vec![2.0, 1.0]);
        trace.terms = vec![TermTrace {
            name: "margin".into(),
            weight: 0.5,
            loss: vec![0.1, 0.2],
            gradient_norm: vec![0.0, f64::NAN],
        }];
        let strip = Strip { height: 2, width: 3, x: vec![vec![[0.0; 3]; 6]], t_x: vec![vec![[2.0; 3]; 6]] };
        let run = |pictures| TransformRun { title: "run".into(), pictures, traces: vec![trace.clone()] };
        // Larger than the panel.
        let large =
            Strip { height: 500, width: 300, x: vec![vec![[0.5; 3]; 150_000]], t_x: vec![vec![[0.0; 3]; 150_000]] };
        let both = draw(&[run(Some(strip)), run(Some(large)), run(None)]).unwrap().unwrap();
        assert!(both.starts_with(b"\x89PNG"));
        assert!(draw(&[]).unwrap().is_none());
    }
}

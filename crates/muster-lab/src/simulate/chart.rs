//! A picture of a simulation: demand, fleet and wait over time.

use std::path::Path;

use anyhow::Context;
use muster_fleet::simulate::Outcome;
use plotters::coord::Shift;
use plotters::prelude::*;

use super::trace::Trace;

const SIZE: (u32, u32) = (1200, 900);
/// Points of each line.
const BUCKETS: usize = 300;
/// Colours that stay apart for most colour-blind readers (Okabe and Ito, "Color universal design",
/// 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
];

/// One line: a name and `(second, value)`.
type Line<'a> = (&'a str, Vec<(f64, f64)>);

/// Draws the trace and what each policy made of it.
///
/// # Errors
/// When the file can not be written.
pub fn draw(path: &Path, trace: &Trace, outcomes: &[Outcome]) -> anyhow::Result<()> {
    let mut svg = String::new();
    draw_into(&mut svg, trace, outcomes).context("draw the picture")?;
    std::fs::write(path, svg).with_context(|| format!("write the picture {}", path.display()))
}

fn draw_into(svg: &mut String, trace: &Trace, outcomes: &[Outcome]) -> anyhow::Result<()> {
    let width_s = (trace.length_s / BUCKETS as f64).max(1.0);
    let bucket = |at: f64| (at / width_s) as usize;
    let buckets = bucket(trace.length_s) + 1;
    let line = |values: Vec<f64>| -> Vec<(f64, f64)> {
        let at = |i: usize| i as f64 * width_s;
        values
            .into_iter()
            .enumerate()
            .map(|(i, v)| (at(i), v))
            .collect()
    };
    let mut demand = vec![0.0; buckets];
    for at in &trace.arrivals {
        demand[bucket(*at)] += 1.0 / width_s;
    }
    let fleets = outcomes.iter().map(|outcome| {
        let mut most = vec![0.0f64; buckets];
        let mut changes = outcome.fleet.iter().peekable();
        let mut now = 0.0;
        for (i, most) in most.iter_mut().enumerate() {
            *most = now;
            while let Some((_, ready, _)) = changes.next_if(|(at, _, _)| bucket(at.max(0.0)) <= i) {
                now = f64::from(*ready);
                *most = most.max(now);
            }
        }
        (outcome.name.as_str(), line(most))
    });
    let waits = outcomes.iter().map(|outcome| {
        let mut longest = vec![0.0f64; buckets];
        for (at, wait) in trace.arrivals.iter().zip(&outcome.waits) {
            let longest = &mut longest[bucket(*at)];
            *longest = longest.max(*wait);
        }
        (outcome.name.as_str(), line(longest))
    });
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let panels = area.split_evenly((3, 1));
    let [first, second, third] = &panels[..] else {
        anyhow::bail!("three panels were asked for");
    };
    let minutes = trace.length_s / 60.0;
    panel(
        first,
        "arrivals a second",
        minutes,
        &[("demand", line(demand))],
    )?;
    panel(
        second,
        "instances ready",
        minutes,
        &fleets.collect::<Vec<_>>(),
    )?;
    panel(
        third,
        "longest wait, s",
        minutes,
        &waits.collect::<Vec<_>>(),
    )?;
    area.present()?;
    Ok(())
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    minutes: f64,
    lines: &[Line<'_>],
) -> anyhow::Result<()> {
    let values = lines.iter().flat_map(|(_, points)| points);
    let top = values.map(|(_, value)| *value).fold(1.0, f64::max) * 1.05;
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .caption(title, ("sans-serif", 16))
        .x_label_area_size(30)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..minutes, 0.0..top)?;
    chart
        .configure_mesh()
        .x_desc("minutes")
        .light_line_style(WHITE)
        .draw()?;
    for ((name, points), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let points = points.iter().map(|(at, value)| (at / 60.0, *value));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(1)))?
            .label(*name)
            .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    if lines.len() > 1 {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .draw()?;
    }
    Ok(())
}

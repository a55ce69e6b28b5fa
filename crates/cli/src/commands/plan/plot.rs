//! The lengths of a workload and the programs over them, as SVG.

use std::fmt::Write as _;

use shapeyard_core::plan::{Histogram, RoutingPlan, Workload};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 70.0;
const BOTTOM: f64 = 50.0;
const N_BARS: usize = 128;
const N_TICKS: usize = 8;
/// Labels of programs that lie close together take turns on so many lines.
const N_LABEL_LINES: usize = 3;

/// A histogram of the rows by length; a line at the length of each program.
pub(super) fn svg(workload: &Workload, plan: &RoutingPlan) -> String {
    let histogram = workload.work.histogram();
    let lengths = lengths(workload, plan);
    let longest = lengths.iter().map(|(length, _)| *length).max().unwrap_or(0);
    let longest = longest.max(histogram.longest()).max(1);
    let bars = bars(&histogram, longest);
    let most = bars.iter().map(|(_, _, n)| *n).max().unwrap_or(0).max(1);
    let mut svg = String::new();
    // Writing to a string does not fail.
    let _ = header(&mut svg, workload);
    let _ = bars.iter().try_for_each(|bar| rectangle(&mut svg, bar, longest, most));
    let _ = axes(&mut svg, longest, most);
    let lines = lengths.iter().enumerate();
    let _ = lines.into_iter().try_for_each(|(nth, it)| line(&mut svg, nth, it, longest));
    svg.push_str("</svg>\n");
    svg
}

/// The lengths of the plan's programs, ascending, and the share of the tokens that each serves.
fn lengths(workload: &Workload, plan: &RoutingPlan) -> Vec<(usize, f64)> {
    let mut lengths: Vec<(usize, f64)> = Vec::new();
    for it in &plan.buckets {
        let length = it.bucket.get(&workload.length).unwrap_or(1);
        match lengths.iter_mut().find(|(known, _)| *known == length) {
            Some((_, share)) => *share += it.share,
            None => lengths.push((length, it.share)),
        }
    }
    lengths.sort_by_key(|(length, _)| *length);
    lengths
}

/// First and last length of each bar, and its rows.
fn bars(histogram: &Histogram, longest: usize) -> Vec<(usize, usize, u64)> {
    let width = longest.div_ceil(N_BARS).max(1);
    let mut bars: Vec<(usize, usize, u64)> =
        (0..longest.div_ceil(width)).map(|nth| (nth * width + 1, (nth + 1) * width, 0)).collect();
    for &(length, n) in histogram.entries() {
        if let Some((_, _, rows)) = bars.get_mut(length.saturating_sub(1) / width) {
            *rows = rows.saturating_add(n);
        }
    }
    bars
}

fn x(length: usize, longest: usize) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * length as f64 / longest as f64
}

fn y(share: f64) -> f64 {
    HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share
}

fn header(svg: &mut String, workload: &Workload) -> std::fmt::Result {
    let symbol = if workload.length.is_empty() { "length" } else { workload.length.as_str() };
    writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">
<title>Rows by length, and the lengths that get programs</title>
<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>
<text x="{LEFT}" y="18" font-size="14">Rows by length (bars), programs (lines, with their share of the tokens)</text>
<text x="{}" y="{}" text-anchor="middle">{} in tokens</text>"##,
        f64::midpoint(LEFT, WIDTH - RIGHT),
        HEIGHT - 12.0,
        escaped(symbol),
    )
}

fn rectangle(
    svg: &mut String,
    &(first, last, n): &(usize, usize, u64),
    longest: usize,
    most: u64,
) -> std::fmt::Result {
    if n == 0 {
        return Ok(());
    }
    let (left, right) = (x(first - 1, longest), x(last.min(longest), longest));
    let top = y(n as f64 / most as f64);
    let (width, height) = ((right - left - 0.5).max(0.5), y(0.0) - top);
    let range = if first == last { first.to_string() } else { format!("{first} to {last}") };
    writeln!(
        svg,
        r##"<rect x="{left:.1}" y="{top:.1}" width="{width:.1}" height="{height:.1}" fill="#7a9cc6"><title>{range}: {n} rows</title></rect>"##
    )
}

fn axes(svg: &mut String, longest: usize, most: u64) -> std::fmt::Result {
    let (floor, right) = (y(0.0), WIDTH - RIGHT);
    writeln!(
        svg,
        r##"<path d="M{LEFT} {TOP}V{floor}H{right}" fill="none" stroke="#333333"/>
<text x="{:.1}" y="{:.1}" text-anchor="end">{most}</text>
<text x="{:.1}" y="{floor:.1}" text-anchor="end">0</text>"##,
        LEFT - 6.0,
        TOP + 4.0,
        LEFT - 6.0,
    )?;
    let step = longest.div_ceil(N_TICKS).max(1);
    (0..=longest).step_by(step).try_for_each(|length| {
        let (at, below) = (x(length, longest), floor + 18.0);
        writeln!(svg, r##"<text x="{at:.1}" y="{below:.1}" text-anchor="middle">{length}</text>"##)
    })
}

fn line(
    svg: &mut String,
    nth: usize,
    &(length, share): &(usize, f64),
    longest: usize,
) -> std::fmt::Result {
    let (at, floor) = (x(length, longest), y(0.0));
    let label = 32.0 + 12.0 * (nth % N_LABEL_LINES) as f64;
    let percent = 100.0 * share;
    writeln!(
        svg,
        r##"<path d="M{at:.1} {:.1}V{floor:.1}" stroke="#b5452c" stroke-dasharray="4 3"/>
<text x="{at:.1}" y="{label:.1}" text-anchor="end" font-size="10" fill="#b5452c">{length} ({percent:.0}%)</text>"##,
        label + 3.0,
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use shapeyard_core::plan::{PlanOptions, Prices, Stock, Work, plan};

    use super::*;

    fn drawn(lengths: &[usize]) -> String {
        let workload =
            Workload { work: Work::Items(lengths.to_vec()), ..Workload::items("batch", "a<b", []) };
        let plan = plan(&workload, &PlanOptions::default(), &Prices::default(), &Stock::default());
        svg(&workload, &plan.unwrap())
    }

    #[test]
    fn every_length_is_in_a_bar() {
        for longest in [1, 127, 128, 129, 1000, 4001] {
            let histogram: Histogram = (0..=longest).map(|length| (length, 1)).collect();
            let bars = bars(&histogram, longest);
            assert_eq!(bars.iter().map(|(_, _, n)| n).sum::<u64>(), longest as u64 + 1);
            assert!(bars.len() <= N_BARS);
        }
    }

    #[test]
    fn a_plot_has_a_line_for_each_length_and_no_loose_text() {
        let svg = drawn(&[3, 3, 9, 200]);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a&lt;b in tokens"));
        assert_eq!(svg.matches("stroke-dasharray").count(), svg.matches("%)</text>").count());
        assert!(drawn(&[]).ends_with("</svg>\n"));
    }
}

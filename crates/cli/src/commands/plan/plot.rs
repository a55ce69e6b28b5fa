//! The lengths of a workload and the programs over them, as SVG.

use std::fmt::Write as _;

use shapeyard_core::plan::{Histogram, RoutingPlan, Workload};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 96.0;
const BOTTOM: f64 = 52.0;
const N_BARS: usize = 128;
const N_TICKS: usize = 8;
/// Lines of labels; labels that lie close together take turns on them.
const N_LABEL_LINES: usize = 3;
const LABEL_WIDTH: f64 = 58.0;

/// The colours of neighbouring programs' bars, and of what no program serves.
const BARS: [&str; 2] = ["#4a78b0", "#86aed6"];
const UNSERVED: &str = "#b8b8b8";
const LINE: &str = "#a33d22";

/// A histogram of the rows by length, in the colour of the program that is long enough; over it the programs'
/// lengths, with the share of the tokens that each serves.
pub(super) fn svg(workload: &Workload, plan: &RoutingPlan) -> String {
    let histogram = workload.work.histogram();
    let lengths = lengths(workload, plan);
    let longest = lengths.iter().map(|(length, _)| *length).max().unwrap_or(0);
    let longest = longest.max(histogram.longest()).max(1);
    let bars = bars(&histogram, longest);
    let most = bars.iter().map(|(_, _, n)| *n).max().unwrap_or(0).max(1);
    let mut svg = String::new();
    // Writing to a string does not fail.
    let _ = header(&mut svg, workload, plan);
    let _ = axes(&mut svg, longest, most);
    let _ = bars.iter().try_for_each(|bar| rectangle(&mut svg, bar, &lengths, longest, most));
    let mut last = [f64::NEG_INFINITY; N_LABEL_LINES];
    for it in &lengths {
        let at = x(it.0, longest);
        // The lowest line with room, or else the one whose last label is farthest away.
        let free = last.iter().position(|before| at - before >= LABEL_WIDTH);
        let farthest = (0..N_LABEL_LINES).min_by(|&a, &b| last[a].total_cmp(&last[b]));
        let nth = free.or(farthest).unwrap_or(0);
        last[nth] = at;
        let _ = line(&mut svg, nth, it, at);
    }
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

fn header(svg: &mut String, workload: &Workload, plan: &RoutingPlan) -> std::fmt::Result {
    let symbol = if workload.length.is_empty() { "length" } else { workload.length.as_str() };
    let totals = &plan.totals;
    let on_cpu = 100.0 * totals.n_cpu_tokens as f64 / totals.n_real_tokens.max(1) as f64;
    writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12" fill="#333333">
<title>Rows by length, and the lengths that get programs</title>
<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>
<text x="{LEFT}" y="22" font-size="15">Rows by length, and the programs that serve them</text>
<text x="{LEFT}" y="40">{} rows; {:.3} tokens run for each real one; {on_cpu:.1}% of the tokens on the CPU. At each line: a length, its share of the tokens</text>
<text x="{}" y="{}" text-anchor="middle">{} in tokens</text>"##,
        totals.n_rows,
        totals.padded_over_real(),
        f64::midpoint(LEFT, WIDTH - RIGHT),
        HEIGHT - 12.0,
        escaped(symbol),
    )
}

fn rectangle(
    svg: &mut String,
    &(first, last, n): &(usize, usize, u64),
    lengths: &[(usize, f64)],
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
    let held_by = lengths.iter().position(|(length, _)| *length >= first);
    let colour = held_by.map_or(UNSERVED, |nth| BARS[nth % BARS.len()]);
    writeln!(
        svg,
        r##"<rect x="{left:.1}" y="{top:.1}" width="{width:.1}" height="{height:.1}" fill="{colour}"><title>{range}: {n} rows</title></rect>"##
    )
}

fn axes(svg: &mut String, longest: usize, most: u64) -> std::fmt::Result {
    let (floor, right) = (y(0.0), WIDTH - RIGHT);
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let (at, rows) = (y(share), (share * most as f64).round());
        writeln!(
            svg,
            r##"<path d="M{LEFT} {at:.1}H{right}" stroke="#e4e4e4"/><text x="{:.1}" y="{:.1}" text-anchor="end">{rows}</text>"##,
            LEFT - 8.0,
            at + 4.0,
        )?;
    }
    let middle = f64::midpoint(TOP, floor);
    writeln!(
        svg,
        r##"<path d="M{LEFT} {floor}H{right}" stroke="#333333"/>
<text x="18" y="{middle:.1}" text-anchor="middle" transform="rotate(-90 18 {middle:.1})">rows</text>"##
    )?;
    let step = longest.div_ceil(N_TICKS).max(1);
    (0..=longest).step_by(step).try_for_each(|length| {
        let (at, below) = (x(length, longest), floor + 18.0);
        writeln!(svg, r##"<text x="{at:.1}" y="{below:.1}" text-anchor="middle">{length}</text>"##)
    })
}

/// `nth` counts lines of labels from the lowest.
fn line(
    svg: &mut String,
    nth: usize,
    &(length, share): &(usize, f64),
    at: f64,
) -> std::fmt::Result {
    let floor = y(0.0);
    let label = TOP - 8.0 - 13.0 * nth as f64;
    let percent = 100.0 * share;
    // A label in the middle would leave the picture at its edge.
    let (anchor, label_at) =
        if at > WIDTH - RIGHT - LABEL_WIDTH / 2.0 { ("end", at + 4.0) } else { ("middle", at) };
    writeln!(
        svg,
        r##"<path d="M{at:.1} {:.1}V{floor:.1}" stroke="{LINE}" stroke-dasharray="4 3"/>
<text x="{label_at:.1}" y="{label:.1}" text-anchor="{anchor}" font-size="11" fill="{LINE}">{length} ({percent:.0}%)</text>"##,
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

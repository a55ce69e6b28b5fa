//! The lengths of a workload and the programs over them, as SVG.

use shapeyard_bench::plot::{Anchor, GRID, INK, MARK, OTHER, OURS, OURS_TOO, Svg, WIDTH};
use shapeyard_core::plan::{Histogram, RoutingPlan, Workload};

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

/// The colours of neighbouring programs' bars.
const BARS: [&str; 2] = [OURS, OURS_TOO];

/// A histogram of the rows by length, in the colour of the program that is long enough; over it the programs'
/// lengths, with the share of the tokens that each serves.
pub(super) fn svg(workload: &Workload, plan: &RoutingPlan) -> String {
    let histogram = workload.work.histogram();
    let lengths = lengths(workload, plan);
    let longest = lengths.iter().map(|(length, _)| *length).max().unwrap_or(0);
    let longest = longest.max(histogram.longest()).max(1);
    let bars = bars(&histogram, longest);
    let most = bars.iter().map(|(_, _, n)| *n).max().unwrap_or(0).max(1);
    let mut svg = header(workload, plan);
    axes(&mut svg, longest, most);
    bars.iter().for_each(|bar| rectangle(&mut svg, bar, &lengths, longest, most));
    let mut last = [f64::NEG_INFINITY; N_LABEL_LINES];
    for it in &lengths {
        let at = x(it.0, longest);
        // The lowest line with room, or else the one whose last label is farthest away.
        let free = last.iter().position(|before| at - before >= LABEL_WIDTH);
        let farthest = (0..N_LABEL_LINES).min_by(|&a, &b| last[a].total_cmp(&last[b]));
        let nth = free.or(farthest).unwrap_or(0);
        last[nth] = at;
        line(&mut svg, nth, it, at);
    }
    svg.finish()
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

fn header(workload: &Workload, plan: &RoutingPlan) -> Svg {
    let symbol = if workload.length.is_empty() { "length" } else { workload.length.as_str() };
    let totals = &plan.totals;
    let on_cpu = 100.0 * totals.n_cpu_tokens as f64 / totals.n_real_tokens.max(1) as f64;
    let title = "Rows by length, and the programs that serve them";
    let mut svg = Svg::new(HEIGHT, title);
    svg.heading(LEFT, 22.0, title);
    let words = format!(
        "{} rows; {:.3} tokens run for each real one; {on_cpu:.1}% of the tokens on the CPU. At each line: a length, \
         its share of the tokens",
        totals.n_rows,
        totals.padded_over_real(),
    );
    svg.text((LEFT, 40.0), Anchor::Start, INK, &words);
    let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
    svg.text((middle, HEIGHT - 12.0), Anchor::Middle, INK, &format!("{symbol} in tokens"));
    svg
}

fn rectangle(
    svg: &mut Svg,
    &(first, last, n): &(usize, usize, u64),
    lengths: &[(usize, f64)],
    longest: usize,
    most: u64,
) {
    if n == 0 {
        return;
    }
    let (left, right) = (x(first - 1, longest), x(last.min(longest), longest));
    let top = y(n as f64 / most as f64);
    let size = ((right - left - 0.5).max(0.5), y(0.0) - top);
    let range = if first == last { first.to_string() } else { format!("{first} to {last}") };
    let held_by = lengths.iter().position(|(length, _)| *length >= first);
    let colour = held_by.map_or(OTHER, |nth| BARS[nth % BARS.len()]);
    svg.rectangle((left, top), size, colour, &format!("{range}: {n} rows"));
}

fn axes(svg: &mut Svg, longest: usize, most: u64) {
    let (floor, right) = (y(0.0), WIDTH - RIGHT);
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let (at, rows) = (y(share), (share * most as f64).round());
        svg.across(at, (LEFT, right), if share == 0.0 { INK } else { GRID });
        svg.text((LEFT - 8.0, at + 4.0), Anchor::End, INK, &rows.to_string());
    }
    svg.text_upwards((18.0, f64::midpoint(TOP, floor)), "rows");
    let step = longest.div_ceil(N_TICKS).max(1);
    for length in (0..=longest).step_by(step) {
        let below = (x(length, longest), floor + 18.0);
        svg.text(below, Anchor::Middle, INK, &length.to_string());
    }
}

/// `nth` counts lines of labels from the lowest.
fn line(svg: &mut Svg, nth: usize, &(length, share): &(usize, f64), at: f64) {
    let label = TOP - 8.0 - 13.0 * nth as f64;
    svg.dashes_down(at, (label + 3.0, y(0.0)), MARK);
    // A label in the middle would leave the picture at its edge.
    let is_at_edge = at > WIDTH - RIGHT - LABEL_WIDTH / 2.0;
    let (anchor, x) = if is_at_edge { (Anchor::End, at + 4.0) } else { (Anchor::Middle, at) };
    svg.text((x, label), anchor, MARK, &format!("{length} ({:.0}%)", 100.0 * share));
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

//! Bars of a contest, and ratios of many contests, as SVG.

use crate::contest::{Contest, Measured, Role};
use crate::plot::{Anchor, INK, LIMIT, OTHER, OURS, Svg, WIDTH};
use crate::table::Unit;

/// Where bars begin: names stand before.
const LEFT: f64 = 430.0;
/// Room for the number behind the longest bar.
const RIGHT: f64 = 200.0;
const ROW: f64 = 26.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 14.0;
/// Characters of a name that fit before the bars.
const N_NAME: usize = 66;

/// One bar: a name, a value, what stands behind it, and the values between which it was seen.
struct Bar {
    name: String,
    value: f64,
    label: String,
    range: Option<(f64, f64)>,
    colour: &'static str,
}

/// A bar for each contender: its median time, with a line from its fastest to its slowest round.
pub(super) fn bars(contest: &Contest) -> String {
    let shown: Vec<&Measured> =
        contest.contenders.iter().filter(|it| it.role != Role::Yardstick).collect();
    let unit = Unit::of(shown.iter().map(|it| it.rounds.median).fold(0.0, f64::max));
    let bar = |it: &&Measured| {
        let ratio = contest.ratio_of(it).filter(|ratio| ratio.of.name != ratio.over.name);
        let ratio = match (&it.beside, ratio) {
            (Some(_), Some(ratio)) => format!(", this / beside {:.2}", ratio.median),
            (None, Some(ratio)) => format!(", ours / this {:.2}", ratio.median),
            (_, None) => String::new(),
        };
        Bar {
            name: it.name.clone(),
            value: it.rounds.median,
            label: format!("{} {}{ratio}", unit.show(it.rounds.median), unit.name),
            range: Some((it.rounds.least, it.rounds.most)),
            colour: colour(it.role),
        }
    };
    let bars: Vec<Bar> = shown.iter().map(bar).collect();
    let title = format!("{}: {} (shorter is better)", contest.name, contest.title);
    chart(&title, &bars, None)
}

const fn colour(role: Role) -> &'static str {
    match role {
        Role::Ours => OURS,
        Role::Limit => LIMIT,
        Role::Rival | Role::Yardstick => OTHER,
    }
}

/// A bar for each contest: how many times as long ours takes as the best alternative, or else the limit.
pub(super) fn overview(ratios: &[(String, f64)]) -> String {
    let bar = |(name, ratio): &(String, f64)| Bar {
        name: name.clone(),
        value: *ratio,
        label: format!("{ratio:.2}"),
        range: None,
        colour: if *ratio <= 1.05 { OURS } else { OTHER },
    };
    let bars: Vec<Bar> = ratios.iter().map(bar).collect();
    chart(
        "Ours over the best alternative: below 1 ours is faster; grey where it is slower by more than 5%",
        &bars,
        Some(1.0),
    )
}

fn chart(title: &str, bars: &[Bar], mark: Option<f64>) -> String {
    let most = |bar: &Bar| bar.range.map_or(bar.value, |(_, most)| most.min(2.0 * bar.value));
    let most = bars.iter().map(most).chain(mark).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let x = |value: f64| LEFT + (WIDTH - LEFT - RIGHT) * (value / most).clamp(0.0, 1.0);
    let height = TOP + ROW * bars.len() as f64 + BOTTOM;
    let mut svg = Svg::new(height, title);
    svg.heading(12.0, 24.0, title);
    if let Some(mark) = mark {
        svg.dashes_down(x(mark), (TOP, height - BOTTOM), INK);
    }
    for (nth, bar) in bars.iter().enumerate() {
        row(&mut svg, TOP + ROW * nth as f64, bar, &x);
    }
    svg.finish()
}

fn row(svg: &mut Svg, top: f64, bar: &Bar, x: &dyn Fn(f64) -> f64) {
    let (middle, end) = (top + ROW / 2.0, x(bar.value));
    let base = middle + 4.0;
    svg.text((LEFT - 8.0, base), Anchor::End, INK, &shortened(&bar.name));
    svg.rectangle((LEFT, top + 4.0), ((end - LEFT).max(1.0), ROW - 8.0), bar.colour, "");
    let mut right = end;
    if let Some((least, most)) = bar.range {
        right = x(most).max(end);
        svg.across(middle, (x(least), right), INK);
    }
    svg.text((right + 8.0, base), Anchor::Start, INK, &bar.label);
}

fn shortened(name: &str) -> String {
    if name.chars().count() <= N_NAME {
        return name.to_owned();
    }
    name.chars().take(N_NAME - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_a_bar_for_each_contender_and_no_loose_text() {
        let contenders = vec![
            Measured::new("ours <b>", Role::Ours, vec![1.0, 2.0]),
            Measured::new("a rival", Role::Rival, vec![3.0, 3.0]),
            Measured::new("a stick", Role::Yardstick, vec![9.0, 9.0]),
        ];
        let svg = bars(&Contest { contenders, ..Contest::default() });
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<rect").count(), 1 + 2);
        assert!(svg.contains("ours &lt;b>") && svg.contains("ours / this 0.5"));
        assert!(overview(&[]).ends_with("</svg>\n"));
    }
}

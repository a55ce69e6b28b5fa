//! By how much two samples differ, whatever their distribution.

/// How far the values of one sample lie above another's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shift {
    /// The median of all differences between a value of one and a value of the other.
    pub(super) estimate: f64,
    /// The least that the samples allow.
    pub(super) low: f64,
    /// The most.
    pub(super) high: f64,
}

/// What an interval may miss.
const MISSED: f64 = 0.01;

impl Shift {
    /// Whether samples of these sizes can give an interval of 99%: even the whole range of the differences is
    /// wrong in two of the `(m + n) choose m` orders that equal samples have. Five and five can, three and nine too, four and four not.
    pub(super) fn can_rule_out_chance(m: usize, n: usize) -> bool {
        let orders: f64 = (1..=m).map(|i| (n + i) as f64 / i as f64).product();
        2.0 / orders <= MISSED
    }
}

/// Standard normal quantile of a two-sided interval that misses in one case of a hundred.
const Z: f64 = 2.576;

/// The Hodges-Lehmann estimate of how far `b` lies above `a`, and the interval of 99% that goes with the
/// rank-sum test; `None` where a sample is empty or not finite.
///
/// Hollander, Wolfe and Chicken, *Nonparametric Statistical Methods*, 3rd edition, section 4.2 and 4.3, with the
/// normal approximation of the interval's ranks. One wild round moves neither, unlike a mean. Samples too
/// small for the interval give the whole range of the differences, and [`Shift::can_rule_out_chance`] says so.
pub(super) fn shift(a: &[f64], b: &[f64]) -> Option<Shift> {
    if a.is_empty() || b.is_empty() || !a.iter().chain(b).all(|it| it.is_finite()) {
        return None;
    }
    let mut differences: Vec<f64> = a.iter().flat_map(|a| b.iter().map(move |b| b - a)).collect();
    differences.sort_by(f64::total_cmp);
    let (m, n) = (a.len() as f64, b.len() as f64);
    let rank = m * n / 2.0 - Z * (m * n * (m + n + 1.0) / 12.0).sqrt();
    // `as` saturates: a rank below 0 is 0.
    let cut = (rank.floor() as usize).min((differences.len() - 1) / 2);
    Some(Shift {
        estimate: crate::measure::median(&differences),
        low: differences[cut],
        high: differences[differences.len() - 1 - cut],
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_estimate_is_the_median_of_the_differences() {
        let found = shift(&[1.0, 2.0, 3.0], &[11.0, 12.0, 13.0]).unwrap();
        assert_eq!(found, Shift { estimate: 10.0, low: 8.0, high: 12.0 });
        assert_eq!(shift(&[], &[1.0]), None);
        assert_eq!(shift(&[f64::NAN], &[1.0]), None);
    }

    #[test]
    fn few_rounds_cannot_rule_out_chance() {
        let pairs = [(1, 1), (3, 3), (4, 4), (5, 5), (3, 9), (2, 19)];
        let found = pairs.map(|(m, n)| Shift::can_rule_out_chance(m, n));
        assert_eq!(found, [false, false, false, true, true, true]);
        assert!(!Shift::can_rule_out_chance(0, 9) && Shift::can_rule_out_chance(500, 500));
    }

    #[test]
    fn one_wild_round_moves_nothing() {
        let a: Vec<f64> = (0..15).map(|nth| f64::from(nth) * 1e-3).collect();
        let mut b = a.clone();
        b[14] = 100.0;
        let found = shift(&a, &b).unwrap();
        assert!(found.estimate.abs() < 2e-3 && found.high < 0.02, "{found:?}");
    }

    proptest! {
        #[test]
        fn a_shift_is_found_whatever_the_samples(
            a in proptest::collection::vec(-1.0_f64..1.0, 1..20),
            by in -5.0_f64..5.0,
        ) {
            let b: Vec<f64> = a.iter().map(|it| it + by).collect();
            let found = shift(&a, &b).unwrap();
            prop_assert!((found.estimate - by).abs() < 1e-9);
            prop_assert!(found.low <= by + 1e-9 && by - 1e-9 <= found.high);
        }

        #[test]
        fn the_other_way_round_is_the_opposite(
            a in proptest::collection::vec(-1.0_f64..1.0, 1..20),
            b in proptest::collection::vec(-1.0_f64..1.0, 1..20),
        ) {
            let (forth, back) = (shift(&a, &b).unwrap(), shift(&b, &a).unwrap());
            prop_assert!((forth.estimate + back.estimate).abs() < 1e-9);
            prop_assert!((forth.low + back.high).abs() < 1e-9);
        }
    }
}

//! What a process can say about itself, and what many measurements say together.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Processor time of all threads of this process so far.
#[must_use]
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The most memory that this process has had resident, in bytes.
///
/// # Errors
///
/// Where the system does not tell.
pub fn peak_memory() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")
        .context("peak memory is read from /proc/self/status, which only Linux has")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.context("/proc/self/status has no VmHWM")? * 1024)
}

/// How measurements are spread; all NaN where there are none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many there are.
    pub n: usize,
    /// The least.
    #[serde(with = "number_or_null")]
    pub least: f64,
    /// What a tenth does not exceed.
    #[serde(with = "number_or_null")]
    pub p10: f64,
    /// [`median`].
    #[serde(with = "number_or_null")]
    pub median: f64,
    /// What nine in ten do not exceed.
    #[serde(with = "number_or_null")]
    pub p90: f64,
    /// What 99 in a hundred do not exceed.
    #[serde(with = "number_or_null")]
    pub p99: f64,
    /// The most.
    #[serde(with = "number_or_null")]
    pub most: f64,
}

/// JSON has no NaN.
pub(crate) mod number_or_null {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        value.is_finite().then_some(*value).serialize(to)
    }

    pub(crate) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<f64, D::Error> {
        Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
    }
}

impl Percentiles {
    /// Of values in any order.
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |share| quantile(&sorted, share);
        Self {
            n: values.len(),
            least: at(0.0),
            p10: at(0.1),
            median: median(values),
            p90: at(0.9),
            p99: at(0.99),
            most: at(1.0),
        }
    }
}

/// The median; of an even number of values the mean of the middle two.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The value that this share of values in rising order does not exceed.
#[must_use]
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// Largest less smallest, as a share of the median.
#[must_use]
pub fn spread(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let smallest = values.iter().copied().fold(f64::INFINITY, f64::min);
    (largest - smallest) / median(values)
}

/// Each round starts with another contender and every second one runs backwards, so that nobody always
/// comes after the same one and the memory that it leaves.
pub fn order(round: usize, n: usize) -> impl Iterator<Item = usize> {
    (0..n).map(move |nth| {
        let nth = if round.is_multiple_of(2) { nth } else { n - 1 - nth };
        (round + nth) % n
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_every_contender_in_another_order() {
        let rounds: Vec<Vec<usize>> = (0..4).map(|round| order(round, 3).collect()).collect();
        assert_eq!(rounds, [[0, 1, 2], [0, 2, 1], [2, 0, 1], [2, 1, 0]]);
    }

    #[test]
    fn quantiles_are_values() {
        let values: Vec<f64> = (0..=10).map(f64::from).collect();
        assert_eq!(
            [0.0, 0.1, 0.5, 0.9, 1.0].map(|it| quantile(&values, it)),
            [0.0, 1.0, 5.0, 9.0, 10.0]
        );
        assert_eq!(quantile(&[4.0], 0.9), 4.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn the_median_of_any_number_of_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
        assert_eq!(spread(&[8.0, 10.0, 11.0]), 0.3);
    }
}

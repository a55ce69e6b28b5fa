//! Sizes and durations as people write them.

use std::str::FromStr;
use std::time::Duration;

/// A number of bytes, such as `20GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

/// A time span, such as `30d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

const BYTES: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];
const SECONDS: [(&str, u64); 5] =
    [("s", 1), ("min", 60), ("h", 3_600), ("d", 86_400), ("w", 604_800)];

/// Why a text is no size or time span.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QuantityError {
    #[error("it starts with no number; write one such as {example}")]
    NoNumber { example: &'static str },
    #[error("it has no unit; write one of {units}, such as {example}")]
    NoUnit { units: String, example: &'static str },
    #[error("`{unit}` is no unit; known are {units}")]
    UnknownUnit { unit: String, units: String },
    #[error("it is larger than can be counted")]
    TooLarge,
}

impl FromStr for Size {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse(text, &BYTES, "20GiB").map(Self)
    }
}

impl FromStr for Span {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse(text, &SECONDS, "30d").map(|seconds| Self(Duration::from_secs(seconds)))
    }
}

fn parse(text: &str, units: &[(&str, u64)], example: &'static str) -> Result<u64, QuantityError> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start();
    if number.is_empty() {
        return Err(QuantityError::NoNumber { example });
    }
    let known = || units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    if unit.is_empty() {
        return Err(QuantityError::NoUnit { units: known(), example });
    }
    let factor = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
    let Some((_, factor)) = factor else {
        return Err(QuantityError::UnknownUnit { unit: unit.to_owned(), units: known() });
    };
    times(number, *factor, example)
}

/// Whole numbers are counted exactly; of others, what is less than one of the smallest unit is dropped.
fn times(number: &str, factor: u64, example: &'static str) -> Result<u64, QuantityError> {
    if number.bytes().all(|digit| digit.is_ascii_digit()) {
        let whole = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
        return whole.ok_or(QuantityError::TooLarge);
    }
    let number: f64 = number.parse().map_err(|_| QuantityError::NoNumber { example })?;
    let product = number * factor as f64;
    if product < u64::MAX as f64 { Ok(product as u64) } else { Err(QuantityError::TooLarge) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let sizes = [("20GiB", 20 << 30), ("1.5 kB", 1_500), ("0B", 0), ("7mb", 7_000_000)];
        for (text, n_bytes) in sizes {
            assert_eq!(text.parse(), Ok(Size(n_bytes)), "{text}");
        }
        let refused = |text: &str| text.parse::<Size>().unwrap_err().to_string();
        assert!(refused("20").contains("no unit"));
        assert!(refused("20G").contains("`G` is no unit"));
        assert!(refused("GiB").contains("no number"));
        assert!(refused("-1GiB").contains("no number"));
        assert!(refused("1.2.3GiB").contains("no number"));
        assert_eq!("99999999TiB".parse::<Size>(), Err(QuantityError::TooLarge));
        assert_eq!("99999999999999999999B".parse::<Size>(), Err(QuantityError::TooLarge));
        assert_eq!("99999999.5TiB".parse::<Size>(), Err(QuantityError::TooLarge));
    }

    #[test]
    fn time_spans_have_units() {
        let spans = [("30d", 30 * 86_400), ("90 min", 5_400), ("0.5h", 1_800), ("2w", 1_209_600)];
        for (text, seconds) in spans {
            assert_eq!(text.parse(), Ok(Span(Duration::from_secs(seconds))), "{text}");
        }
        // Minutes or months: nobody should have to guess.
        assert!("5m".parse::<Span>().unwrap_err().to_string().contains("s, min, h, d, w"));
        assert!("".parse::<Span>().is_err());
    }
}

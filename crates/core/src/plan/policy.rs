//! Which lengths, and which rows, get programs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::fitted::{self, Filling};
use super::{Histogram, InvalidSteps, Steps};

/// Which extents of a symbol get programs.
///
/// As text: `auto:8` is the 8 that suit the workload best, `auto:8..512` the same with 512 as the longest whatever was
/// observed, `pow2` powers of two up to the longest observed; all else is a set of [`Steps`], such as `..512`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Policy {
    /// These, whatever the workload is: a list, powers of two, or equal steps.
    Steps(Steps),
    /// Powers of two and the largest that was observed.
    PowersOfTwo,
    /// Those that are optimal for the workload.
    Fitted {
        /// How many at most.
        n: usize,
        /// What the longest is at least, so that work longer than any observed is held too.
        max: Option<usize>,
    },
}

/// What becomes of rows that do not fill a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tail {
    /// They run in the program for full batches.
    Full,
    /// They run in a program of the next power of two of rows.
    #[default]
    PowerOfTwo,
    /// They run in several programs of powers of two of rows, none padded.
    Split,
}

impl Tail {
    /// Rows that run for `n` rows that are left of batches of `full` rows.
    #[must_use]
    pub fn padded_rows(self, n: u64, full: u64) -> u64 {
        match self {
            _ if n == 0 => 0,
            Self::Full => full,
            Self::PowerOfTwo => n.checked_next_power_of_two().map_or(full, |rows| rows.min(full)),
            Self::Split => n,
        }
    }

    /// Batches that are started for `n` rows that are left.
    #[must_use]
    pub fn n_launches(self, n: u64) -> u64 {
        match self {
            Self::Full | Self::PowerOfTwo => u64::from(n > 0),
            Self::Split => u64::from(n.count_ones()),
        }
    }
}

impl Policy {
    /// At most so many, fitted to the workload.
    #[must_use]
    pub const fn fitted(n: usize) -> Self {
        Self::Fitted { n, max: None }
    }

    /// The extents for what was observed, smallest first; of an observed extent of 0 nothing is made.
    ///
    /// # Errors
    ///
    /// As [`Steps::extents`].
    pub fn extents(
        &self,
        observed: &Histogram,
        filling: Option<&Filling>,
    ) -> Result<Vec<usize>, InvalidSteps> {
        Ok(self.proposals(observed, filling)?.pop().unwrap_or_default())
    }

    /// Extents to choose from: where they are fitted, the best for every number of them, fewest first.
    pub(super) fn proposals(
        &self,
        observed: &Histogram,
        filling: Option<&Filling>,
    ) -> Result<Vec<Vec<usize>>, InvalidSteps> {
        let (n, max) = match self {
            Self::Steps(steps) => return Ok(vec![steps.extents()?]),
            Self::PowersOfTwo if observed.longest() == 0 => return Ok(Vec::new()),
            Self::PowersOfTwo => {
                let steps = Steps::PowersOfTwo { max: observed.longest() };
                return Ok(vec![steps.extents()?]);
            }
            Self::Fitted { n, max } => (*n, *max),
        };
        let mut proposals = fitted::each(observed, n, filling);
        for extents in &mut proposals {
            // An extent of 0 needs no program of its own: the next one holds it.
            extents.retain(|&extent| extent > 0);
            if let (Some(longest), Some(max)) = (extents.last_mut(), max) {
                *longest = max.max(*longest);
            }
        }
        Ok(proposals)
    }
}

impl Default for Policy {
    /// Eight, fitted: on code and prose what more of them save is soon less than what they cost.
    fn default() -> Self {
        Self::fitted(8)
    }
}

impl From<Steps> for Policy {
    fn from(steps: Steps) -> Self {
        Self::Steps(steps)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps(steps) => steps.fmt(f),
            Self::PowersOfTwo => f.write_str("pow2"),
            Self::Fitted { n, max: None } => write!(f, "auto:{n}"),
            Self::Fitted { n, max: Some(max) } => write!(f, "auto:{n}..{max}"),
        }
    }
}

impl FromStr for Policy {
    type Err = InvalidPolicy;

    fn from_str(text: &str) -> Result<Self, InvalidPolicy> {
        let refuse = |reason: String| InvalidPolicy { text: text.to_owned(), reason };
        if text.trim() == "pow2" {
            return Ok(Self::PowersOfTwo);
        }
        let Some(fitted) = text.trim().strip_prefix("auto:") else {
            let steps = text.parse::<Steps>().map_err(|error| refuse(error.reason))?;
            return Ok(Self::Steps(steps));
        };
        let number = |part: &str| match part.trim().parse::<usize>() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(refuse(format!("`{}` is no number from 1", part.trim()))),
        };
        Ok(match fitted.split_once("..") {
            None => Self::fitted(number(fitted)?),
            Some((n, max)) => Self::Fitted { n: number(n)?, max: Some(number(max)?) },
        })
    }
}

/// A text that is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` names no extents: {reason}; write `auto:8` for the 8 that suit best, `pow2` or `..64` for powers of \
     two, `16..128:16` for steps, or `1,4,16`"
)]
pub struct InvalidPolicy {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_as_they_are_written() {
        for text in ["auto:8", "auto:8..512", "pow2", "..512", "16..512:16", "16,32,64"] {
            assert_eq!(text.parse::<Policy>().unwrap().to_string(), text);
        }
        for text in ["auto:0", "auto:", "auto:x", "auto:4..", "auto", "pow3"] {
            text.parse::<Policy>().unwrap_err();
        }
    }

    #[test]
    fn the_longest_is_what_was_asked_for() {
        let observed = Histogram::of(&[0, 3, 9, 9]);
        let extents =
            |text: &str| text.parse::<Policy>().unwrap().extents(&observed, None).unwrap();
        assert_eq!(extents("auto:4"), [3, 9]);
        assert_eq!(extents("auto:4..512"), [3, 512]);
        assert_eq!(extents("auto:4..5"), [3, 9]);
        assert_eq!(extents("4,16"), [4, 16]);
        assert_eq!(extents("pow2"), [1, 2, 4, 8, 9]);
        let none = Policy::PowersOfTwo.extents(&Histogram::default(), None).unwrap();
        assert_eq!(none, [0; 0]);
    }
}

//! Which extents of a symbol get a program.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Bucket;
use super::cover::Freedom;

/// More extents than anybody compiles for; a step of 1 up to a million is a mistake.
const MOST: usize = 4096;

/// Which extents of one symbol get a program.
///
/// As text: `1,4,16` is a list, `..100` powers of two capped exactly at 100, `16..128:16` steps of 16
/// from 16 to 128.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Steps {
    /// These.
    List(Vec<usize>),
    /// 1, 2, 4, ... and the maximum itself, which need not be a power of two.
    PowersOfTwo {
        /// The largest extent.
        max: usize,
    },
    /// From a first extent in equal steps to the maximum, which is always one of them.
    Linear {
        /// The smallest extent.
        first: usize,
        /// The largest extent.
        max: usize,
        /// The distance.
        step: usize,
    },
}

/// Steps that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no set of extents: {reason}; write `1,4,16`, `..64` for powers of two, or `16..128:16`"
)]
pub struct InvalidSteps {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Steps {
    /// The extents, smallest first, each once.
    ///
    /// # Errors
    ///
    /// [`InvalidSteps`]: an extent or a step of 0, no extent at all, or more than 4,096.
    pub fn extents(&self) -> Result<Vec<usize>, InvalidSteps> {
        let invalid =
            |reason: &str| InvalidSteps { text: self.to_string(), reason: reason.to_owned() };
        let mut extents = match self {
            Self::List(extents) => extents.clone(),
            Self::PowersOfTwo { max } => powers_of_two(*max),
            Self::Linear { step: 0, .. } => return Err(invalid("the step is 0")),
            Self::Linear { first, max, .. } if first > max => {
                return Err(invalid("the first extent is larger than the last"));
            }
            Self::Linear { first, max, step } if (max - first) / step >= MOST => {
                return Err(invalid("that is more than 4096 extents"));
            }
            Self::Linear { first, max, step } => {
                (*first..*max).step_by(*step).chain([*max]).collect()
            }
        };
        extents.sort_unstable();
        extents.dedup();
        match extents.first() {
            None => Err(invalid("it is empty")),
            Some(0) => Err(invalid("an extent is 0")),
            Some(_) if extents.len() > MOST => Err(invalid("that is more than 4096 extents")),
            Some(_) => Ok(extents),
        }
    }
}

fn powers_of_two(max: usize) -> Vec<usize> {
    let powers = (0..usize::BITS).map(|n| 1_usize << n).take_while(|&power| power < max);
    powers.chain([max]).collect()
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(extents) => {
                let texts: Vec<String> = extents.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join(","))
            }
            Self::PowersOfTwo { max } => write!(f, "..{max}"),
            Self::Linear { first, max, step } => write!(f, "{first}..{max}:{step}"),
        }
    }
}

impl FromStr for Steps {
    type Err = InvalidSteps;

    fn from_str(text: &str) -> Result<Self, InvalidSteps> {
        let number = |part: &str| {
            part.trim().parse::<usize>().map_err(|_| InvalidSteps {
                text: text.to_owned(),
                reason: format!("`{}` is no whole number", part.trim()),
            })
        };
        let steps = match text.split_once("..") {
            None => Self::List(text.split(',').map(number).collect::<Result<_, _>>()?),
            Some(("", max)) => Self::PowersOfTwo { max: number(max)? },
            Some((first, rest)) => {
                let Some((max, step)) = rest.split_once(':') else {
                    let reason = "a range needs a step".to_owned();
                    return Err(InvalidSteps { text: text.to_owned(), reason });
                };
                Self::Linear { first: number(first)?, max: number(max)?, step: number(step)? }
            }
        };
        let named = |error: InvalidSteps| InvalidSteps { text: text.to_owned(), ..error };
        steps.extents().map_err(named)?;
        Ok(steps)
    }
}

/// Every combination of the symbols' extents: one bucket each, in the order of symbols and extents.
///
/// # Errors
///
/// As [`Steps::extents`].
pub fn grid(steps: &BTreeMap<String, Steps>) -> Result<Vec<Bucket>, InvalidSteps> {
    let mut buckets = vec![Bucket::default()];
    for (symbol, steps) in steps {
        let extents = steps.extents()?;
        if buckets.len() * extents.len() > MOST {
            let reason = "with the other symbols that is more than 4096 shapes".to_owned();
            return Err(InvalidSteps { text: steps.to_string(), reason });
        }
        buckets = buckets
            .iter()
            .flat_map(|bucket| extents.iter().map(|&extent| bucket.clone().with(symbol, extent)))
            .collect();
    }
    Ok(buckets)
}

/// The shape to make a program of for a request that finds none: along each symbol the next step that holds
/// it, so that requests of ever new shapes do not each get a program. Rows that no step holds take the
/// largest where they can be split; a rigid symbol stays as it is, and one without steps takes the next power
/// of two.
#[must_use]
pub fn bucket_for(
    wanted: &Bucket,
    steps: &BTreeMap<String, Steps>,
    freedom: &Freedom<'_>,
) -> Bucket {
    let extents = wanted.iter().map(|(symbol, extent)| {
        if freedom.rigid.iter().any(|rigid| rigid == symbol) {
            return (symbol, extent);
        }
        let Some(steps) = steps.get(symbol).and_then(|steps| steps.extents().ok()) else {
            return (symbol, extent.checked_next_power_of_two().unwrap_or(extent));
        };
        let largest = steps.last().copied().filter(|_| freedom.rows == Some(symbol));
        let fits = steps.into_iter().find(|&step| step >= extent);
        (symbol, fits.or(largest).unwrap_or(extent))
    });
    extents.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn extents(text: &str) -> Result<Vec<usize>, String> {
        text.parse::<Steps>().and_then(|steps| steps.extents()).map_err(|error| error.reason)
    }

    #[test]
    fn pitfall_33_powers_of_two_end_exactly_at_the_maximum() {
        assert_eq!(extents("..100").unwrap(), [1, 2, 4, 8, 16, 32, 64, 100]);
        assert_eq!(extents("..64").unwrap(), [1, 2, 4, 8, 16, 32, 64]);
        assert_eq!(extents("..1").unwrap(), [1]);
    }

    #[test]
    fn pitfall_32_a_list_is_taken_whole_or_refused() {
        assert_eq!(extents("4, 1,4").unwrap(), [1, 4]);
        assert_eq!(extents("1, 4, x, 0, 4").unwrap_err(), "`x` is no whole number");
        assert_eq!(extents("1,0").unwrap_err(), "an extent is 0");
        assert_eq!(extents("").unwrap_err(), "`` is no whole number");
    }

    #[test]
    fn a_range_has_its_ends() {
        assert_eq!(extents("16..60:16").unwrap(), [16, 32, 48, 60]);
        assert_eq!(extents("8..8:1").unwrap(), [8]);
        for wrong in ["1..9", "1..9:0", "9..1:1", "0..4:1", "..0", "1..9999999:1"] {
            extents(wrong).unwrap_err();
        }
    }

    #[test]
    fn a_grid_has_every_combination() {
        let steps = [("batch", "1,2"), ("sequence", "16,32")];
        let steps = steps.map(|(symbol, text)| (symbol.to_owned(), text.parse().unwrap()));
        let texts: Vec<String> =
            grid(&steps.into()).unwrap().iter().map(ToString::to_string).collect();
        let wanted = [
            "batch=1,sequence=16",
            "batch=1,sequence=32",
            "batch=2,sequence=16",
            "batch=2,sequence=32",
        ];
        assert_eq!(texts, wanted);
        let steps = ["a", "b"].map(|symbol| (symbol.to_owned(), Steps::List((1..100).collect())));
        grid(&steps.into()).unwrap_err();
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_back(
            list in proptest::collection::vec(1usize..1000, 1..9),
            first in 1usize..100, more in 0usize..100, step in 1usize..50,
        ) {
            let linear = Steps::Linear { first, max: first + more, step };
            for steps in [Steps::List(list), Steps::PowersOfTwo { max: first }, linear] {
                prop_assert_eq!(steps.to_string().parse::<Steps>().unwrap(), steps);
            }
        }

        #[test]
        fn every_extent_up_to_the_maximum_finds_one(max in 1usize..5000, wanted in 1usize..5000) {
            let extents = Steps::PowersOfTwo { max }.extents().unwrap();
            let fit = extents.iter().find(|&&extent| extent >= wanted);
            prop_assert_eq!(fit.is_some(), wanted <= max);
            prop_assert!(fit.is_none_or(|&fit| fit < 2 * wanted));
        }
    }
}

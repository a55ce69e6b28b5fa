//! What work costs, in seconds, as data.
//!
//! * device = load, if the program is not resident, + launch + padded tokens × token
//! * CPU = load, if the model is not, + launch + real tokens × token
//!
//! Where rows of different lengths are stacked for the CPU, those of the longest of the batch count as real for all of
//! it: a program's padding is taken off before, but a batch is a rectangle.
//!
//! To each token's cost, attention adds one that grows with the length of its row. [`crate::measure`] runs
//! what there is to measure; [`Samples`] keeps it in bounded memory, and [`fit`] finds the prices that
//! explain it best.

mod fit;
mod measured;
mod samples;

use serde::{Deserialize, Serialize};

use super::Histogram;

pub use fit::{Fit, fit, fit_for};
pub use measured::{Choice, Measurements, OfSplit};
pub use samples::{Sample, Samples};

/// What running on one backend costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Price {
    /// Seconds until the first run: of a device for each program, of the CPU for the model.
    pub load: f64,
    /// Seconds to start a batch.
    pub launch: f64,
    /// Seconds a token.
    pub token: f64,
    /// Seconds a token for every token of its row.
    pub token_length: f64,
}

impl Price {
    /// Seconds to run `rows` rows of `length` tokens.
    #[must_use]
    pub fn batch(&self, rows: usize, length: usize) -> f64 {
        let (tokens, length) = ((rows as f64) * (length as f64), length as f64);
        self.launch + self.tokens(tokens, tokens * length)
    }

    /// Seconds that tokens take once their batch is started; `squares` is the sum of the rows' squared
    /// lengths.
    #[must_use]
    pub fn tokens(&self, n_tokens: f64, squares: f64) -> f64 {
        n_tokens * self.token + squares * self.token_length
    }

    /// Seconds for items of these lengths, one load included: stacked under a token budget, none padded.
    #[must_use]
    pub fn work(&self, lengths: &Histogram, token_budget: usize) -> f64 {
        let item = |&(length, n): &(usize, u64)| {
            let n_rows = (token_budget / length.max(1)).max(1) as f64;
            let (n, length) = (n as f64, length as f64);
            (n / n_rows).ceil() * self.launch + n * self.tokens(length, length * length)
        };
        self.load + lengths.entries().iter().map(item).sum::<f64>()
    }

    /// The tokens that could run in the time that starting a batch takes.
    #[must_use]
    pub fn launch_tokens(&self) -> u64 {
        if self.token > 0.0 { (self.launch / self.token).round() as u64 } else { 0 }
    }
}

/// A cost that has a fixed part and one that grows with the tokens of a program's shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PerProgram {
    /// For any program.
    pub fixed: f64,
    /// For each token of its shape.
    pub token: f64,
}

impl PerProgram {
    /// For a program of that shape.
    #[must_use]
    pub fn of(&self, rows: usize, length: usize) -> f64 {
        self.fixed + self.token * rows as f64 * length as f64
    }
}

/// All that a plan weighs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Prices {
    /// The backend whose programs have fixed shapes.
    pub device: Price,
    /// The backend that takes any shape; padding is taken off before.
    pub cpu: Price,
    /// Seconds to compile a program.
    pub compile: PerProgram,
    /// Bytes of device memory that a loaded program takes.
    pub memory: PerProgram,
}

impl Prices {
    /// Where nobody measured: programs take all that they hold. A run on the CPU is worth more padding than
    /// any program has.
    pub const PROGRAMS_FIRST: Self = Self {
        device: Price { load: 0.0, launch: 1e-4, token: 1e-6, token_length: 0.0 },
        cpu: Price { load: 0.0, launch: 1e3, token: 1e3, token_length: 0.0 },
        compile: PerProgram { fixed: 0.0, token: 0.0 },
        memory: PerProgram { fixed: 0.0, token: 0.0 },
    };

    /// The first price that costs nothing real, negative or not finite, with its name as in JSON.
    #[must_use]
    pub fn unreal(&self) -> Option<(String, f64)> {
        let of_batch = |it: &Price| {
            let Price { load, launch, token, token_length } = *it;
            vec![
                ("load", load),
                ("launch", launch),
                ("token", token),
                ("token_length", token_length),
            ]
        };
        let of_program = |it: &PerProgram| vec![("fixed", it.fixed), ("token", it.token)];
        let all = [
            ("device", of_batch(&self.device)),
            ("cpu", of_batch(&self.cpu)),
            ("compile", of_program(&self.compile)),
            ("memory", of_program(&self.memory)),
        ];
        let mut named = all.into_iter().flat_map(|(of, prices)| {
            prices.into_iter().map(move |(name, price)| (format!("{of}.{name}"), price))
        });
        named.find(|(_, price)| !price.is_finite() || *price < 0.0)
    }
}

/// After how many runs a compilation has paid; `None` is never.
#[must_use]
pub fn break_even(compile_seconds: f64, saved_seconds: f64) -> Option<u64> {
    match compile_seconds {
        free if free <= 0.0 => Some(0),
        seconds if saved_seconds > 0.0 => Some((seconds / saved_seconds).ceil() as u64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_finite_and_not_negative() {
        assert_eq!(Prices::PROGRAMS_FIRST.unreal(), None);
        let mut prices = Prices::PROGRAMS_FIRST;
        prices.compile.token = -1.0;
        assert_eq!(prices.unreal(), Some(("compile.token".to_owned(), -1.0)));
        prices.cpu.token_length = f64::INFINITY;
        assert_eq!(prices.unreal(), Some(("cpu.token_length".to_owned(), f64::INFINITY)));
    }

    #[test]
    fn a_misspelt_price_is_no_price() {
        for text in [r#"{"gpu": {}}"#, r#"{"cpu": {"tokens": 1}}"#, r#"{"memory": {"load": 1}}"#] {
            let error = serde_json::from_str::<Prices>(text).unwrap_err();
            assert!(error.to_string().contains("unknown field"), "{error}");
        }
    }

    #[test]
    fn what_never_saves_never_pays() {
        // The experience report: 136.7 s of compiling, 3.641 s on the CPU, 3.172 s with programs.
        assert_eq!(break_even(136.7, 3.641 - 3.172), Some(292));
        assert_eq!(break_even(10.0, 0.0), None);
        assert_eq!(break_even(10.0, -1.0), None);
        assert_eq!(break_even(0.0, -1.0), Some(0));
    }
}

//! Shapes as people write them: `batch=1,2,4 sequence=32,64` is a grid of six, `batch=..64` powers of two
//! up to 64, `sequence=16..128:16` steps of 16.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use shapeyard_core::Signature;
use shapeyard_core::backend::{Backend, ShapeSupport};
use shapeyard_core::plan::{Bucket, InvalidSteps, Steps};

use crate::output::Output;

/// More shapes than anybody compiles are a slip of the keyboard.
const MOST_BUCKETS: usize = 100_000;

/// What a command that takes shapes takes.
#[derive(Debug, clap::Args)]
pub(crate) struct BucketArgs {
    /// The shapes: extents of each symbol, such as batch=1,2,4 sequence=32,64. Every combination counts
    ///
    /// `batch=..64` stands for powers of two up to 64, `sequence=16..128:16` for every 16th from 16 to 128.
    #[arg(long, value_name = "SYMBOL=N,...", num_args = 1..)]
    buckets: Vec<Axis>,
}

impl BucketArgs {
    pub(crate) const fn is_given(&self) -> bool {
        !self.buckets.is_empty()
    }
}

/// `SYMBOL=N,...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Axis {
    symbol: String,
    extents: BTreeSet<usize>,
}

/// A value that is no `SYMBOL=N,...`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AxisError {
    #[error("expected SYMBOL=N,..., such as batch=1,2,4 (no space after a comma)")]
    NotAnAxis,
    #[error("`{part}` is no extent: expected are whole numbers from 1, such as batch=1,2,4")]
    NotAnExtent { part: String },
    #[error("an extent is missing beside a comma: expected is something like batch=1,2,4")]
    EmptyExtent,
    #[error("an extent of 0 holds nothing; the least is 1")]
    Zero,
    #[error(transparent)]
    Steps(#[from] InvalidSteps),
}

impl FromStr for Axis {
    type Err = AxisError;

    fn from_str(text: &str) -> Result<Self, AxisError> {
        let (symbol, extents) = text.split_once('=').ok_or(AxisError::NotAnAxis)?;
        let (symbol, extents) = (symbol.trim(), extents.trim());
        if symbol.is_empty() || extents.is_empty() {
            return Err(AxisError::NotAnAxis);
        }
        let extents = if extents.contains("..") {
            extents.parse::<Steps>()?.extents()?.into_iter().collect()
        } else {
            extents.split(',').map(|part| extent(part.trim())).collect::<Result<_, _>>()?
        };
        Ok(Self { symbol: symbol.to_owned(), extents })
    }
}

fn extent(part: &str) -> Result<usize, AxisError> {
    match part.parse() {
        Ok(0) => Err(AxisError::Zero),
        Ok(extent) => Ok(extent),
        Err(_) if part.is_empty() => Err(AxisError::EmptyExtent),
        Err(_) => Err(AxisError::NotAnExtent { part: part.to_owned() }),
    }
}

/// Why axes make no grid for a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BucketsError {
    #[error("the model has no symbol `{symbol}`; {}", have(known))]
    UnknownSymbol { symbol: String, known: Vec<String> },
    #[error("no extent is given for {}; add --buckets {}", named(missing), wanted(missing))]
    MissingSymbols { missing: Vec<String> },
    #[error(
        "these are {n_buckets} shapes, and at most {MOST_BUCKETS} are taken; name fewer extents"
    )]
    TooMany { n_buckets: u128 },
}

impl BucketArgs {
    /// The shapes whose artifacts are meant: those that were named, or the one that serves them all where
    /// the backend's programs take every shape.
    pub(crate) fn shapes(
        &self,
        signature: &Signature,
        backend: &dyn Backend,
        output: &Output,
    ) -> Result<Vec<Bucket>, BucketsError> {
        if backend.capabilities().shapes == ShapeSupport::Static {
            return self.grid(signature);
        }
        if !self.buckets.is_empty() {
            self.grid(signature)?;
            output.note(format_args!("one artifact of {} serves every shape", backend.id()));
        }
        Ok(vec![Bucket::default()])
    }

    /// Every combination of extents for the symbols that a request binds; the last symbol varies fastest.
    /// A model without symbols has one shape, which needs no name.
    fn grid(&self, signature: &Signature) -> Result<Vec<Bucket>, BucketsError> {
        grid_of(&self.buckets, signature)
    }
}

/// Every combination of extents for the symbols that a request of the model binds.
pub(crate) fn grid_of(axes: &[Axis], signature: &Signature) -> Result<Vec<Bucket>, BucketsError> {
    let symbols = signature.bound_symbols().map(|symbol| signature.symbol_name(symbol));
    let symbols: Vec<String> = symbols.map(str::to_owned).collect();
    grid(axes, &symbols)
}

fn grid(axes: &[Axis], symbols: &[String]) -> Result<Vec<Bucket>, BucketsError> {
    let mut extents: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for axis in axes {
        if !symbols.contains(&axis.symbol) {
            let (symbol, known) = (axis.symbol.clone(), symbols.to_vec());
            return Err(BucketsError::UnknownSymbol { symbol, known });
        }
        extents.entry(&axis.symbol).or_default().extend(&axis.extents);
    }
    let is_missing = |symbol: &&String| !extents.contains_key(symbol.as_str());
    let missing: Vec<String> = symbols.iter().filter(is_missing).cloned().collect();
    if !missing.is_empty() {
        return Err(BucketsError::MissingSymbols { missing });
    }
    let lengths = extents.values().map(|extents| extents.len() as u128);
    let n_buckets = lengths.fold(1, u128::saturating_mul);
    if n_buckets > MOST_BUCKETS as u128 {
        return Err(BucketsError::TooMany { n_buckets });
    }
    Ok(combinations(symbols, &extents))
}

fn combinations(symbols: &[String], extents: &BTreeMap<&str, BTreeSet<usize>>) -> Vec<Bucket> {
    let mut grid: Vec<Vec<(&str, usize)>> = vec![Vec::new()];
    for symbol in symbols {
        let of_symbol = extents.get(symbol.as_str()).into_iter().flatten();
        let of_symbol: Vec<usize> = of_symbol.copied().collect();
        let longer = |row: Vec<_>| {
            let one_more = |extent: &usize| [&row[..], &[(symbol.as_str(), *extent)]].concat();
            of_symbol.iter().map(one_more).collect::<Vec<_>>()
        };
        grid = grid.into_iter().flat_map(longer).collect();
    }
    grid.into_iter().map(|row| row.into_iter().collect()).collect()
}

fn have(known: &[String]) -> String {
    if known.is_empty() {
        "all its shapes are fixed".to_owned()
    } else {
        format!("it has {}", named(known))
    }
}

fn named(symbols: &[String]) -> String {
    symbols.iter().map(|symbol| format!("`{symbol}`")).collect::<Vec<_>>().join(", ")
}

fn wanted(missing: &[String]) -> String {
    missing.iter().map(|symbol| format!("{symbol}=N")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(axes: &[&str], symbols: &[&str]) -> Result<Vec<String>, BucketsError> {
        let axes: Vec<Axis> = axes.iter().map(|axis| axis.parse().unwrap()).collect();
        let symbols: Vec<String> = symbols.iter().map(|symbol| (*symbol).to_owned()).collect();
        Ok(grid(&axes, &symbols)?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_grid_has_every_combination_once() {
        let wanted = [
            "batch=1,sequence=32",
            "batch=1,sequence=64",
            "batch=2,sequence=32",
            "batch=2,sequence=64",
        ];
        let symbols = ["batch", "sequence"];
        assert_eq!(of(&["sequence=64,32", "batch=2,1,2"], &symbols).unwrap(), wanted);
        assert_eq!(of(&["batch=1", "sequence=32,64", "batch=2,1"], &symbols).unwrap(), wanted);
    }

    #[test]
    fn symbols_are_those_of_the_model() {
        let refused = |axes: &[&str]| of(axes, &["batch", "sequence"]).unwrap_err().to_string();
        let unknown = refused(&["batch=1", "seq=32"]);
        assert_eq!(unknown, "the model has no symbol `seq`; it has `batch`, `sequence`");
        let missing = refused(&["batch=1"]);
        assert_eq!(missing, "no extent is given for `sequence`; add --buckets sequence=N");
        assert_eq!(of(&[], &[]).unwrap(), [""]);
        let fixed = of(&["batch=1"], &[]).unwrap_err().to_string();
        assert!(fixed.contains("all its shapes are fixed"), "{fixed}");
    }

    #[test]
    fn steps_are_written_out() {
        let wanted = ["batch=1", "batch=2", "batch=4", "batch=6"];
        assert_eq!(of(&["batch=..6"], &["batch"]).unwrap(), wanted);
        let wanted = ["batch=3", "batch=16", "batch=32", "batch=40"];
        assert_eq!(of(&["batch=16..40:16", "batch=3"], &["batch"]).unwrap(), wanted);
        for text in ["batch=1..4", "batch=..0", "batch=4..1:1", "batch=..x", "batch=..4,8"] {
            assert!(matches!(text.parse::<Axis>(), Err(AxisError::Steps(_))), "{text}");
        }
    }

    #[test]
    fn a_slip_does_not_fill_the_memory() {
        let thousand = (1..=1000).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let axes = ["a", "b", "c"].map(|symbol| format!("{symbol}={thousand}"));
        let axes: Vec<&str> = axes.iter().map(String::as_str).collect();
        let refused = of(&axes, &["a", "b", "c"]);
        assert_eq!(refused, Err(BucketsError::TooMany { n_buckets: 1_000_000_000 }));
    }

    #[test]
    fn nonsense_is_named() {
        let refused = |text: &str| text.parse::<Axis>().unwrap_err();
        assert_eq!(refused("batch=1,x,4"), AxisError::NotAnExtent { part: "x".to_owned() });
        assert_eq!(refused("batch=-1"), AxisError::NotAnExtent { part: "-1".to_owned() });
        assert_eq!(refused("batch=1,0,4"), AxisError::Zero);
        for text in ["batch=1,", "batch=,1", "batch=1,,2"] {
            assert_eq!(refused(text), AxisError::EmptyExtent);
        }
        for text in ["batch", "=1", "batch=", "", "4"] {
            assert_eq!(refused(text), AxisError::NotAnAxis);
        }
        let far = "batch=99999999999999999999999".parse::<Axis>();
        assert!(matches!(far, Err(AxisError::NotAnExtent { .. })));
    }
}

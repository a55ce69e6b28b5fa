//! One assignment of extents to symbols.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Extents by symbol: the shape of one static program, or of one batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bucket(BTreeMap<String, usize>);

impl Bucket {
    /// The extent of a symbol.
    #[must_use]
    pub fn get(&self, symbol: &str) -> Option<usize> {
        self.0.get(symbol).copied()
    }

    /// Symbols and extents, ordered by symbol.
    pub fn iter(&self) -> impl Iterator<Item = (&str, usize)> {
        self.0.iter().map(|(symbol, extent)| (symbol.as_str(), *extent))
    }

    /// Whether a request of that shape fits: every symbol that both name is at least as large here.
    #[must_use]
    pub fn holds(&self, request: &Self) -> bool {
        request.iter().all(|(symbol, extent)| self.get(symbol).is_none_or(|ours| ours >= extent))
    }

    /// The product of all extents: what a program of this shape costs, more or less.
    #[must_use]
    pub fn volume(&self) -> u128 {
        self.0.values().fold(1, |product: u128, &extent| product.saturating_mul(extent as u128))
    }

    /// The same bucket with another extent for one symbol.
    #[must_use]
    pub fn with(mut self, symbol: &str, extent: usize) -> Self {
        self.0.insert(symbol.to_owned(), extent);
        self
    }

    /// Whether no symbol is bound.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<S: Into<String>> FromIterator<(S, usize)> for Bucket {
    fn from_iter<I: IntoIterator<Item = (S, usize)>>(extents: I) -> Self {
        Self(extents.into_iter().map(|(symbol, extent)| (symbol.into(), extent)).collect())
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (symbol, extent)) in self.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            write!(f, "{comma}{symbol}={extent}")?;
        }
        Ok(())
    }
}

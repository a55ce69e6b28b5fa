//! Names for axes that a model leaves without one.

use std::path::Path;
use std::str::FromStr;

use anyhow::Result;
use shapeyard_core::{AxisSymbol, Dim, Model, Signature};

use crate::exit::BadInput;

/// What a command that opens a model takes.
#[derive(Debug, clap::Args)]
pub(crate) struct AxisArgs {
    /// A name for an axis that the model leaves without one, counted from 0, such as x:0=batch; may be
    /// repeated
    ///
    /// Axes with one name have one extent in every request. Only an axis that has a name can be padded or
    /// compiled for; `shapeyard inspect` shows those without as `?`.
    #[arg(long = "axis", value_name = "TENSOR:AXIS=SYMBOL")]
    axes: Vec<NamedAxis>,
}

impl AxisArgs {
    /// Opens a model and names its axes.
    pub(crate) fn open(&self, path: &Path) -> Result<Model> {
        let axes: Vec<AxisSymbol> = self.axes.iter().map(|axis| axis.0.clone()).collect();
        Ok(Model::open(path)?.declare(&axes)?)
    }

    /// The options that say the same.
    pub(crate) fn words(&self) -> Vec<String> {
        let value = |AxisSymbol { tensor, axis, symbol }: &AxisSymbol| {
            ["--axis".to_owned(), format!("{tensor}:{axis}={symbol}")]
        };
        self.axes.iter().flat_map(|axis| value(&axis.0)).collect()
    }
}

/// Says which axes still need a name before anything can be compiled.
pub(crate) fn check_named(signature: &Signature) -> Result<(), BadInput> {
    let nameless = signature.inputs.iter().find_map(|input| {
        let axis = input.shape.as_ref()?.iter().position(|dim| *dim == Dim::Unnamed)?;
        Some((&input.name, axis))
    });
    match nameless {
        Some((name, axis)) => Err(BadInput::new(format!(
            "axis {axis} of input `{name}` has neither an extent nor a name; name it with --axis {name}:{axis}=SYMBOL"
        ))),
        None => Ok(()),
    }
}

/// `TENSOR:AXIS=SYMBOL`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NamedAxis(AxisSymbol);

/// A value that is no `TENSOR:AXIS=SYMBOL`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected TENSOR:AXIS=SYMBOL, such as x:0=batch")]
struct NotANamedAxis;

impl FromStr for NamedAxis {
    type Err = NotANamedAxis;

    fn from_str(text: &str) -> Result<Self, NotANamedAxis> {
        // Names of tensors have colons, as in `x:0`.
        let (place, symbol) = text.rsplit_once('=').ok_or(NotANamedAxis)?;
        let (tensor, axis) = place.rsplit_once(':').ok_or(NotANamedAxis)?;
        if tensor.is_empty() || symbol.is_empty() {
            return Err(NotANamedAxis);
        }
        let axis = axis.parse().map_err(|_| NotANamedAxis)?;
        Ok(Self(AxisSymbol { tensor: tensor.to_owned(), axis, symbol: symbol.to_owned() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_axis_is_split_at_the_last_signs() {
        let NamedAxis(axis) = "model/x:0:1=batch".parse().unwrap();
        let wanted = ("model/x:0", 1, "batch");
        assert_eq!((axis.tensor.as_str(), axis.axis, axis.symbol.as_str()), wanted);
        for text in ["", "x", "x:0", "x=batch", "x:0=", ":0=batch", "x:-1=batch", "x:a=batch"] {
            assert_eq!(text.parse::<NamedAxis>(), Err(NotANamedAxis), "{text}");
        }
    }
}

//! The options that say along which symbols work is stacked and varies.

use shapeyard_core::{Dim, Signature};

use crate::exit::BadInput;

/// What a command takes that plans or measures work of varying length.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct WorkSymbolArgs {
    /// The symbol along which rows are stacked [default: the first of the model's inputs]
    #[arg(long, value_name = "SYMBOL")]
    rows_symbol: Option<String>,
    /// The symbol along which they vary in length [default: the second of the model's inputs]
    #[arg(long, value_name = "SYMBOL")]
    length_symbol: Option<String>,
}

/// The symbols of rows and of their length; empty where the model has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WorkSymbols {
    pub(crate) rows: String,
    pub(crate) length: String,
}

impl WorkSymbolArgs {
    /// The symbols of a model.
    pub(crate) fn of(&self, signature: &Signature) -> Result<WorkSymbols, BadInput> {
        let mut free = symbols(signature).into_iter();
        let mut symbol = |named: &Option<String>| match named {
            None => Ok(free.next().unwrap_or_default()),
            Some(name) if signature.symbol(name).is_some() => {
                free.next();
                Ok(name.clone())
            }
            Some(name) => {
                let known = signature.symbols.join("`, `");
                Err(BadInput::new(format!("the model has no symbol `{name}`; it has `{known}`")))
            }
        };
        let (rows, length) = (symbol(&self.rows_symbol)?, symbol(&self.length_symbol)?);
        Ok(WorkSymbols { rows, length })
    }
}

impl WorkSymbols {
    /// Whether the model has neither, so that it always does the same work.
    pub(crate) const fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.length.is_empty()
    }
}

/// The symbols of the inputs, in the order in which they first stand there.
fn symbols(signature: &Signature) -> Vec<String> {
    let mut symbols = Vec::new();
    for dim in signature.inputs.iter().flat_map(|spec| spec.shape.iter().flatten()) {
        if let Dim::Symbol(id) = dim {
            let name = signature.symbol_name(*id).to_owned();
            if !symbols.contains(&name) {
                symbols.push(name);
            }
        }
    }
    symbols
}

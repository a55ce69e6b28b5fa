//! Which of a model's inputs and outputs is which.

use shapeyard_core::{DataType, Dim, Signature, SymbolId, Tensor, TensorError};

use crate::EncodeError;
use crate::tokens::Tokens;

/// The names under which encoders take tokens, in the order of preference.
const IDS: [&str; 2] = ["input_ids", "ids"];
const MASK: [&str; 1] = ["attention_mask"];
const TYPES: [&str; 1] = ["token_type_ids"];

/// What an input of an encoder is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Ids,
    Mask,
    Types,
}

/// How an encoder takes tokens and gives vectors.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// For each input, in the signature's order: what it is for, and its type.
    inputs: Vec<(Role, DataType)>,
    /// The symbol along which texts are stacked.
    pub(crate) batch: SymbolId,
    /// The symbol along which texts vary.
    pub(crate) sequence: SymbolId,
    /// Which output holds one vector a token, `[batch, sequence, dims]`.
    pub(crate) output: usize,
    pub(crate) output_name: String,
    /// Numbers in a vector.
    pub(crate) n_dims: usize,
}

/// The symbols along which an encoder stacks texts and along which texts vary, in this order.
///
/// # Errors
///
/// [`EncodeError::NotAnEncoder`], naming what is missing.
pub fn axes(signature: &Signature) -> Result<(&str, &str), EncodeError> {
    let layout = Layout::of(signature)?;
    Ok((signature.symbol_name(layout.batch), signature.symbol_name(layout.sequence)))
}

impl Layout {
    pub(crate) fn of(signature: &Signature) -> Result<Self, EncodeError> {
        let not = |reason: String| EncodeError::NotAnEncoder { reason };
        let Some(ids) = IDS.iter().find_map(|name| signature.input_index(name)) else {
            return Err(not("it has no input `input_ids`".to_owned()));
        };
        let inputs =
            signature.inputs.iter().map(role).collect::<Result<Vec<_>, _>>().map_err(not)?;
        let ids = &signature.inputs[ids];
        let Some([Dim::Symbol(batch), Dim::Symbol(sequence)]) = ids.shape.as_deref() else {
            let shape = signature.shape_text(ids);
            let reason = format!("`{}` is {shape}, expected are two free symbols", ids.name);
            return Err(not(reason));
        };
        let wanted = [Dim::Symbol(*batch), Dim::Symbol(*sequence)];
        let vectors = signature.outputs.iter().enumerate().find_map(|(index, output)| match output
            .shape
            .as_deref()?
        {
            [rows, length, Dim::Fixed(n_dims)]
                if [*rows, *length] == wanted && output.dtype == DataType::F32 =>
            {
                Some((index, *n_dims))
            }
            _ => None,
        });
        let Some((output, n_dims)) = vectors.filter(|(_, n_dims)| *n_dims > 0) else {
            let reason = "it has no f32 output with one vector a token";
            return Err(not(format!("{reason} ([batch, sequence, a fixed extent])")));
        };
        let output_name = signature.outputs[output].name.clone();
        Ok(Self { inputs, batch: *batch, sequence: *sequence, output, output_name, n_dims })
    }

    /// Whether texts of different lengths may stand in one batch: the model must be told what is padding.
    pub(crate) fn has_mask(&self) -> bool {
        self.inputs.iter().any(|(role, _)| *role == Role::Mask)
    }

    /// Fills the inputs of a batch: one row a text, padded to `length` with `pad_id` under mask 0.
    pub(crate) fn fill(
        &self,
        inputs: &mut Vec<Tensor>,
        rows: &[&Tokens],
        length: usize,
        pad_id: u32,
    ) -> Result<(), TensorError> {
        inputs.resize_with(self.inputs.len(), Tensor::empty);
        for (tensor, &(role, dtype)) in inputs.iter_mut().zip(&self.inputs) {
            tensor.reset(dtype, &[rows.len(), length])?;
            let value = |tokens: &Tokens, at: usize| match role {
                Role::Ids => tokens.ids.get(at).copied().unwrap_or(pad_id),
                Role::Mask => u32::from(at < tokens.ids.len()),
                Role::Types => tokens.type_ids.get(at).copied().unwrap_or(0),
            };
            if dtype == DataType::I64 {
                let cells = tensor.as_mut_slice::<i64>()?;
                write_rows(cells, rows, length, |tokens, at| value(tokens, at).into());
            } else {
                let cells = tensor.as_mut_slice::<i32>()?;
                write_rows(cells, rows, length, |tokens, at| value(tokens, at).cast_signed());
            }
        }
        Ok(())
    }
}

fn role(input: &shapeyard_core::TensorSpec) -> Result<(Role, DataType), String> {
    let name = input.name.as_str();
    let is = |names: &[&str]| names.contains(&name);
    let role = if is(&IDS) {
        Role::Ids
    } else if is(&MASK) {
        Role::Mask
    } else if is(&TYPES) {
        Role::Types
    } else {
        return Err(format!(
            "it also takes `{name}`, and only ids, an attention mask and token types can be given"
        ));
    };
    match input.dtype {
        DataType::I64 | DataType::I32 => Ok((role, input.dtype)),
        other => Err(format!("`{name}` holds {other}, expected is i64 or i32")),
    }
}

fn write_rows<T>(
    cells: &mut [T],
    rows: &[&Tokens],
    length: usize,
    value: impl Fn(&Tokens, usize) -> T,
) {
    for (cells, tokens) in cells.chunks_exact_mut(length.max(1)).zip(rows) {
        for (at, cell) in cells.iter_mut().enumerate() {
            *cell = value(tokens, at);
        }
    }
}

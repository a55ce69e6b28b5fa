//! The rows that requests are made of, and the answers that they have alone.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use shapeyard_core::backend::{Executable, SessionOptions};
use shapeyard_core::plan::Bucket;
use shapeyard_core::{Outputs, Request, Shape, Signature, Tensor, TensorView};

use crate::inputs::inputs;

/// Different rows.
pub(crate) const N_ROWS: usize = 64;

/// How far fp32 may be from the answer that a row has alone: another program may add in another order.
const TOLERANCE: f32 = 1e-3;

/// Rows by number: inputs, and the outputs that each has alone.
pub(crate) struct Rows {
    inputs: Vec<Vec<Tensor>>,
    answers: Vec<Vec<Tensor>>,
}

impl Rows {
    /// Makes rows for a shape, and runs each by itself.
    pub(crate) fn of(executable: &Arc<dyn Executable>, shape: &Bucket) -> Result<Self> {
        let signature = executable.signature();
        let mut session = executable.session(&SessionOptions::threads(1))?;
        let (mut inputs, mut answers) = (Vec::new(), Vec::new());
        for row in 0..N_ROWS {
            let given = row_inputs(signature, shape, row)?;
            let views: Vec<TensorView<'_>> = given.iter().map(Tensor::view).collect();
            let mut outputs = Outputs::new();
            session.run(&Request::bind(signature, &views)?, &mut outputs)?;
            ensure!(
                outputs.tensors().iter().all(|output| output.shape().first() == Some(&1)),
                "an output has no rows along its first axis; measure another model"
            );
            answers.push(outputs.into_tensors());
            inputs.push(given);
        }
        Ok(Self { inputs, answers })
    }

    /// The inputs of a request for these rows.
    pub(crate) fn request(&self, rows: &[usize]) -> Result<Vec<Tensor>> {
        let stack = |n: usize| {
            let one = &self.inputs[0][n];
            let mut shape: Shape = one.shape().into();
            shape[0] = rows.len();
            let mut tensor = Tensor::zeroed(one.dtype(), &shape)?;
            let slots = tensor.bytes_mut().chunks_exact_mut(one.bytes().len());
            slots.zip(rows).for_each(|(slot, &row)| {
                slot.copy_from_slice(self.inputs[row][n].bytes());
            });
            Ok(tensor)
        };
        (0..self.inputs[0].len()).map(stack).collect()
    }

    /// How many of these rows have the very bytes of their answers alone.
    ///
    /// # Errors
    ///
    /// Names a row that is not even near.
    pub(crate) fn n_equal(&self, rows: &[usize], outputs: &[Tensor]) -> Result<usize> {
        let mut n_equal = 0;
        for (at, &row) in rows.iter().enumerate() {
            let mut equal = true;
            for (output, alone) in outputs.iter().zip(&self.answers[row]) {
                let n_bytes = alone.bytes().len();
                let found = output.bytes().get(at * n_bytes..(at + 1) * n_bytes);
                let found = found.context("an output has too few rows")?;
                if found != alone.bytes() {
                    equal = false;
                    ensure!(is_near(found, alone), "row {row} of {rows:?} has another answer");
                }
            }
            n_equal += usize::from(equal);
        }
        Ok(n_equal)
    }
}

fn is_near(found: &[u8], alone: &Tensor) -> bool {
    let Ok(alone) = alone.as_slice::<f32>() else { return false };
    let (found, _) = found.as_chunks::<4>();
    found.iter().zip(alone).all(|(found, alone)| {
        (f32::from_ne_bytes(*found) - alone).abs() <= TOLERANCE * alone.abs().max(1.0)
    })
}

fn row_inputs(signature: &Signature, shape: &Bucket, row: usize) -> Result<Vec<Tensor>> {
    let inputs = inputs(signature, shape, row)?;
    for (spec, input) in signature.inputs.iter().zip(&inputs) {
        ensure!(input.shape().first() == Some(&1), "input `{}` has no rows", spec.name);
    }
    Ok(inputs)
}

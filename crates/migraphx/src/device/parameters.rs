//! A program's parameters, pointed to memory of a device.

use crate::feed::FeedError;
use crate::native::Places;
use crate::programs::BucketProgram;

/// A program's parameters, each for an input or an output.
pub(crate) struct Parameters {
    places: Places,
    /// Which tensor each parameter is for: the program's inputs are numbered first, then its outputs.
    tensors: Vec<usize>,
}

impl Parameters {
    /// The parameters point nowhere yet.
    pub(crate) fn new(program: &BucketProgram) -> Result<Self, FeedError> {
        let (n_inputs, outputs) = (program.inputs.len(), &program.output_places);
        for (output, name, shape) in outputs {
            let known = program.feed.output_shapes().nth(*output);
            if known.is_none_or(|known| known.n_bytes < shape.n_bytes) {
                return Err(FeedError::Mismatch(format!("the program has no output for `{name}`")));
            }
        }
        let inputs = program.inputs.iter().map(|(name, shape)| (name.as_str(), shape));
        let named = outputs.iter().map(|(_, name, shape)| (name.as_str(), shape));
        let places = Places::new(program.library, inputs.chain(named))?;
        let outputs = outputs.iter().map(|(output, ..)| n_inputs + output);
        Ok(Self { places, tensors: (0..n_inputs).chain(outputs).collect() })
    }

    /// Points every parameter to the address of its tensor, of which there are all inputs and outputs.
    pub(crate) fn point(&mut self, addresses: &[usize]) -> Result<&Places, FeedError> {
        for (parameter, &tensor) in self.tensors.iter().enumerate() {
            let address = addresses.get(tensor).copied().ok_or_else(|| {
                FeedError::Mismatch(format!("parameter {parameter} has no address"))
            })?;
            self.places.point(parameter, address)?;
        }
        Ok(&self.places)
    }
}

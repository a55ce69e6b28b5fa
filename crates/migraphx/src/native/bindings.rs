//! Input buffers that a program reads, bound once and filled before every run.

use migraphx_sys::migraphx_program_parameters;
use shapeyard_core::{Tensor, byte_len};

use super::NativeError;
use super::handle::{Handle, call, create};
use super::library::{Migraphx, c_text};
use super::program::ValueShape;

/// Buffers for the inputs of a program, and the library's object that points to them.
///
/// The buffers stay where they are, so that nothing is made anew for a run.
pub(crate) struct Bindings {
    parameters: Handle<migraphx_program_parameters>,
    buffers: Vec<Tensor>,
}

impl Bindings {
    /// Buffers for inputs of these shapes, in that order; all 0.
    pub(crate) fn new(
        library: &'static Migraphx,
        inputs: &[(String, ValueShape)],
    ) -> Result<Self, NativeError> {
        let api = library.api();
        let parameters = create!(api, program_parameters_create => program_parameters_destroy)?;
        let mut buffers = Vec::with_capacity(inputs.len());
        for (name, shape) in inputs {
            let mut buffer = buffer_for(shape)?;
            let number = library.number(shape.dtype)?;
            let (mut lengths, mut strides) = (shape.lengths.clone(), shape.strides.clone());
            let (lengths, n) = (lengths.as_mut_ptr(), lengths.len());
            let (strides, m) = (strides.as_mut_ptr(), strides.len());
            // With its strides: those of a scalar are 0, and the library insists on that.
            let shape = create!(
                api,
                shape_create_with_strides => shape_destroy,
                number,
                lengths,
                n,
                strides,
                m
            )?;
            let memory = buffer.bytes_mut().as_mut_ptr().cast();
            let argument = create!(api, argument_create => argument_destroy, shape.get(), memory)?;
            let name = c_text(name)?;
            let pointer = parameters.get();
            call!(api, program_parameters_add(pointer, name.as_ptr(), argument.get()))?;
            buffers.push(buffer);
        }
        Ok(Self { parameters, buffers })
    }

    /// The bytes of an input, to be filled. The buffer itself cannot be reached, since it must not move.
    pub(crate) fn buffer_mut(&mut self, index: usize) -> Option<&mut [u8]> {
        self.buffers.get_mut(index).map(Tensor::bytes_mut)
    }

    pub(super) fn parameters(&self) -> *mut migraphx_program_parameters {
        self.parameters.get()
    }
}

/// A buffer is never empty: the library refuses to run with memory that is nowhere.
fn buffer_for(shape: &ValueShape) -> Result<Tensor, NativeError> {
    let unknown = |error: shapeyard_core::TensorError| NativeError::Unknown(error.to_string());
    let n_bytes = byte_len(shape.dtype, &shape.lengths).map_err(unknown)?;
    if n_bytes == 0 {
        return Tensor::zeroed(shape.dtype, &[1]).map_err(unknown);
    }
    Tensor::zeroed(shape.dtype, &shape.lengths).map_err(unknown)
}

//! Input buffers that a program reads, bound once and filled before every run.

use std::ffi::{CStr, c_void};
use std::ptr::{self, NonNull};
use std::slice;

use migraphx_sys::{migraphx_program_parameters, migraphx_shape};
use shapeyard_core::byte_len;

use super::NativeError;
use super::handle::{Handle, call, create};
use super::library::{Migraphx, c_text};
use super::program::ValueShape;

/// Buffers for the inputs of a program, and the library's object that points to them.
///
/// The buffers stay where they are, so that nothing is made anew for a run.
pub(crate) struct Bindings {
    // Before the buffers: it points to them.
    parameters: Handle<migraphx_program_parameters>,
    buffers: Vec<Buffer>,
}

impl Bindings {
    /// Buffers for inputs of these shapes, in that order; all 0.
    pub(crate) fn new(
        library: &'static Migraphx,
        inputs: &[(String, ValueShape)],
    ) -> Result<Self, NativeError> {
        let parameters = none(library)?;
        let mut buffers = Vec::with_capacity(inputs.len());
        for (name, shape) in inputs {
            let n_bytes = byte_len(shape.dtype, &shape.lengths)
                .map_err(|error| NativeError::Unknown(error.to_string()))?;
            let buffer = Buffer::zeroed(n_bytes);
            let handle = shape_handle(library, shape)?;
            add(library, &parameters, &c_text(name)?, &handle, buffer.memory().cast())?;
            buffers.push(buffer);
        }
        Ok(Self { parameters, buffers })
    }

    /// The bytes of an input, to be filled. No run is under way, since one borrows the bindings.
    pub(crate) fn buffer_mut(&mut self, index: usize) -> Option<&mut [u8]> {
        self.buffers.get_mut(index).map(Buffer::bytes_mut)
    }

    pub(super) fn parameters(&self) -> *mut migraphx_program_parameters {
        self.parameters.get()
    }
}

/// An object that points nowhere yet.
pub(super) fn none(
    library: &'static Migraphx,
) -> Result<Handle<migraphx_program_parameters>, NativeError> {
    let api = library.api();
    create!(api, program_parameters_create => program_parameters_destroy)
}

/// A shape with its strides: those of a scalar are 0, and the library insists on that.
pub(super) fn shape_handle(
    library: &'static Migraphx,
    shape: &ValueShape,
) -> Result<Handle<migraphx_shape>, NativeError> {
    let (api, number) = (library.api(), library.number(shape.dtype)?);
    let (mut lengths, mut strides) = (shape.lengths.clone(), shape.strides.clone());
    let (lengths, n) = (lengths.as_mut_ptr(), lengths.len());
    let (strides, m) = (strides.as_mut_ptr(), strides.len());
    create!(api, shape_create_with_strides => shape_destroy, number, lengths, n, strides, m)
}

/// Lets a parameter point to memory, wherever it pointed before.
pub(super) fn add(
    library: &'static Migraphx,
    parameters: &Handle<migraphx_program_parameters>,
    name: &CStr,
    shape: &Handle<migraphx_shape>,
    memory: *mut c_void,
) -> Result<(), NativeError> {
    let api = library.api();
    let argument = create!(api, argument_create => argument_destroy, shape.get(), memory)?;
    call!(api, program_parameters_add(parameters.get(), name.as_ptr(), argument.get()))
}

/// The unit of a buffer: its alignment suffices for every data type.
type Block = u128;

/// Memory that stays where it is and that the library reads while we do not write. It is reached by its
/// address alone, so that no reference of ours stands against the library's.
struct Buffer {
    blocks: NonNull<[Block]>,
    n_bytes: usize,
}

// SAFETY: the memory is owned and belongs to no thread.
unsafe impl Send for Buffer {}

impl Buffer {
    /// At least one block: the library refuses to run with memory that is nowhere.
    fn zeroed(n_bytes: usize) -> Self {
        let n = n_bytes.div_ceil(size_of::<Block>()).max(1);
        let blocks = Box::into_raw(vec![0; n].into_boxed_slice());
        // SAFETY: a box is never null.
        let blocks = unsafe { NonNull::new_unchecked(blocks) };
        Self { blocks, n_bytes }
    }

    const fn memory(&self) -> *mut Block {
        self.blocks.as_ptr().cast()
    }

    const fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the memory has at least so many bytes, all of them initialised, and is borrowed with
        // `self`.
        unsafe { slice::from_raw_parts_mut(self.memory().cast(), self.n_bytes) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let blocks = ptr::slice_from_raw_parts_mut(self.memory(), self.blocks.len());
        // SAFETY: the memory came from a box of so many blocks and is freed here alone.
        drop(unsafe { Box::from_raw(blocks) });
    }
}

//! Addresses on a device that a program reads and writes.

use std::ffi::CString;
use std::ptr;

use migraphx_sys::{migraphx_program_parameters, migraphx_shape};

use super::NativeError;
use super::bindings::{add, none, shape_handle};
use super::handle::Handle;
use super::library::{Migraphx, c_text};
use super::program::ValueShape;

/// The library's object that points to memory of a device, a place a parameter.
///
/// A parameter is told its address once, and again only when that is another.
pub(crate) struct Places {
    library: &'static Migraphx,
    parameters: Handle<migraphx_program_parameters>,
    places: Vec<Place>,
}

struct Place {
    name: CString,
    shape: Handle<migraphx_shape>,
    address: usize,
}

impl Places {
    /// Places for parameters of these names and shapes, in that order; they point nowhere yet.
    pub(crate) fn new<'a>(
        library: &'static Migraphx,
        parameters: impl IntoIterator<Item = (&'a str, &'a ValueShape)>,
    ) -> Result<Self, NativeError> {
        let place = |(name, shape)| {
            Ok(Place { name: c_text(name)?, shape: shape_handle(library, shape)?, address: 0 })
        };
        let places = parameters.into_iter().map(place).collect::<Result<_, NativeError>>()?;
        Ok(Self { library, parameters: none(library)?, places })
    }

    /// Lets a parameter point to an address. It is followed only by [`Program::enqueue`](super::Program).
    pub(crate) fn point(&mut self, index: usize, address: usize) -> Result<(), NativeError> {
        let Some(place) = self.places.get_mut(index) else {
            return Err(NativeError::Unknown(format!("the program has no parameter {index}")));
        };
        if place.address != address {
            let memory = ptr::without_provenance_mut(address);
            add(self.library, &self.parameters, &place.name, &place.shape, memory)?;
            place.address = address;
        }
        Ok(())
    }

    pub(super) fn parameters(&self) -> *mut migraphx_program_parameters {
        self.parameters.get()
    }
}

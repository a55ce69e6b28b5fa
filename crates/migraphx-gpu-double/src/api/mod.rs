//! The functions of `migraphx_c` that `migraphx-sys` looks up.
//!
//! What a caller does wrong here is what it would do wrong with the real library: handles are taken at
//! their word, and null is a bad parameter.

#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "all rest on the callers' word about handles"
)]

mod absent;
mod compiling;
mod running;
mod shapes;

use std::ffi::{CStr, c_char};
use std::io::Write as _;
use std::panic::{self, AssertUnwindSafe};

use crate::error::Error;
use crate::settings::{self, Settings};

/// `migraphx_status`.
type Status = u32;

/// Defines functions of the C API, whose bodies answer a `Result`.
macro_rules! c_functions {
    ($($name:ident($($parameter:ident: $type:ty),* $(,)?) $body:block)*) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($parameter: $type),*) -> $crate::api::Status {
                $crate::api::answer(stringify!($name), || {
                    // SAFETY: the C API asks its callers for handles that it made and that were not
                    // destroyed, for places that can be written, and for texts that end in a zero.
                    #[allow(unused_unsafe, reason = "some bodies need none")]
                    unsafe { $body }
                })
            }
        )*
    };
}
use c_functions;

/// Makes a status of an answer; the words of a failure go where MIGraphX's go.
fn answer(function: &str, body: impl FnOnce() -> Result<(), Error>) -> Status {
    let outcome = panic::catch_unwind(AssertUnwindSafe(body));
    let error = match outcome {
        Ok(Ok(())) => return 0,
        Ok(Err(error)) => error,
        Err(_) => Error::failed("the double panicked"),
    };
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr(), "{function}: Error: {error}");
    error.status()
}

/// Writes a new object to a caller's place.
///
/// # Safety
///
/// The place is null or can be written.
unsafe fn give<T>(place: *mut *mut T, value: T) -> Result<(), Error> {
    // SAFETY: the caller vouches for the place.
    unsafe { put(place, Box::into_raw(Box::new(value))) }
}

/// Writes a value to a caller's place.
///
/// # Safety
///
/// As for [`give`].
unsafe fn put<T>(place: *mut T, value: T) -> Result<(), Error> {
    if place.is_null() {
        return Err(Error::BadParameter("out"));
    }
    // SAFETY: the caller vouches for the place.
    unsafe { place.write(value) };
    Ok(())
}

/// The object behind a handle.
///
/// # Safety
///
/// The handle is null or that of an object that is alive during `'a`.
unsafe fn object<'a, T>(handle: *const T) -> Result<&'a T, Error> {
    // SAFETY: the caller vouches for the handle.
    unsafe { handle.as_ref() }.ok_or(Error::BadParameter(std::any::type_name::<T>()))
}

/// As [`object`], to be changed.
///
/// # Safety
///
/// As for [`object`], and nobody else looks at it.
unsafe fn object_mut<'a, T>(handle: *mut T) -> Result<&'a mut T, Error> {
    // SAFETY: the caller vouches for the handle.
    unsafe { handle.as_mut() }.ok_or(Error::BadParameter(std::any::type_name::<T>()))
}

/// Ends an object. Null is none.
///
/// # Safety
///
/// The handle is null or came from [`give`], and is not used after this.
unsafe fn destroy<T>(handle: *mut T) -> Result<(), Error> {
    if !handle.is_null() {
        // SAFETY: the caller vouches for the handle.
        drop(unsafe { Box::from_raw(handle) });
    }
    Ok(())
}

/// A text of the caller.
///
/// # Safety
///
/// The pointer is null or leads to a text that ends in a zero.
unsafe fn text(pointer: *const c_char) -> Result<String, Error> {
    if pointer.is_null() {
        return Err(Error::BadParameter("name"));
    }
    // SAFETY: the caller vouches for the text.
    Ok(unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
}

c_functions! {
    migraphx_gpu_double_change(settings: *const c_char) {
        let settings = Settings::parse(&text(settings)?).map_err(Error::Failed)?;
        settings::change(settings);
        Ok(())
    }
}

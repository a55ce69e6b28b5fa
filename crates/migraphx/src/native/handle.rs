//! Handles that are destroyed once, when they go.

use std::ptr::NonNull;

use migraphx_sys::{Api, migraphx_status};

use super::{NativeError, gate};

/// A handle that this crate made and has to destroy.
pub(super) struct Handle<T> {
    pointer: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T) -> migraphx_status,
}

// SAFETY: MIGraphX's objects belong to no thread; the types around this one let only one thread at a time
// change an object.
unsafe impl<T> Send for Handle<T> {}
// SAFETY: `&Handle` gives the pointer away to this crate only, which takes a lock wherever the library
// writes to what is behind it.
unsafe impl<T> Sync for Handle<T> {}

impl<T> Handle<T> {
    /// Calls `create`, which writes a handle, and keeps what it wrote.
    pub(super) fn create(
        function: &'static str,
        destroy: unsafe extern "C" fn(*mut T) -> migraphx_status,
        create: impl FnOnce(*mut *mut T) -> migraphx_status,
    ) -> Result<Self, NativeError> {
        let _pass = gate::enter().ok_or(NativeError::Ending)?;
        let mut pointer = std::ptr::null_mut();
        check(function, create(&mut pointer))?;
        let pointer = NonNull::new(pointer).ok_or(NativeError::Status { function, status: 0 })?;
        Ok(Self { pointer, destroy })
    }

    pub(super) fn get(&self) -> *mut T {
        self.pointer.as_ptr()
    }
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        // While the process ends, memory needs no freeing any more.
        if let Some(_pass) = gate::enter() {
            // SAFETY: the handle was made by the function that belongs to `destroy`, nothing borrows from
            // it any more, and it is not used after this.
            let _: migraphx_status = unsafe { (self.destroy)(self.pointer.as_ptr()) };
        }
    }
}

/// An error for every status but success.
pub(super) fn check(function: &'static str, status: migraphx_status) -> Result<(), NativeError> {
    if status.is_success() {
        Ok(())
    } else {
        Err(NativeError::Status { function, status: status.0 })
    }
}

/// Makes a handle: `create!(api, shape_create => shape_destroy, arguments...)`.
macro_rules! create {
    ($api:expr, $create:ident => $destroy:ident $(, $argument:expr)* $(,)?) => {
        // SAFETY: the place for the handle is valid, every other argument is alive and of the kind that
        // the function takes, and texts end in a zero.
        crate::native::handle::Handle::create(stringify!($create), $api.$destroy, |out| unsafe {
            ($api.$create)(out $(, $argument)*)
        })
    };
}

/// Calls a function: `call!(api, program_sort(program))`.
macro_rules! call {
    ($api:expr, $function:ident($($argument:expr),* $(,)?)) => {{
        let pass = crate::native::gate::enter().ok_or(crate::native::NativeError::Ending);
        pass.and_then(|_pass| {
            // SAFETY: handles are alive and of the kind that the function takes, places that it writes
            // to are valid, and texts end in a zero.
            let status = unsafe { ($api.$function)($($argument),*) };
            crate::native::handle::check(stringify!($function), status)
        })
    }};
}

/// As [`call`], for a function that not every release has.
macro_rules! call_late {
    ($api:expr, $function:ident($($argument:expr),* $(,)?)) => {
        match $api.$function {
            Some(function) => {
                let pass = crate::native::gate::enter().ok_or(crate::native::NativeError::Ending);
                pass.and_then(|_pass| {
                    // SAFETY: as in `call`.
                    let status = unsafe { function($($argument),*) };
                    crate::native::handle::check(stringify!($function), status)
                })
            }
            None => Err(crate::native::handle::missing(stringify!($function))),
        }
    };
}

pub(super) use {call, call_late, create};

/// The error for a function that this library lacks.
pub(super) fn missing(function: &'static str) -> NativeError {
    let named = |name: &&(&std::ffi::CStr, &'static str)| {
        name.0.to_str().is_ok_and(|name| name.strip_prefix("migraphx_") == Some(function))
    };
    let since = Api::OPTIONAL.iter().find(named).map_or("a later release", |(_, since)| since);
    NativeError::Missing { function, since }
}

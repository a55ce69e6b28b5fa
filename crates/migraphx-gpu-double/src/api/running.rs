//! Running programs.

use std::ffi::{c_char, c_void};

use super::shapes::Arguments;
use super::{c_functions, give, object, object_mut, put, text};
use crate::error::Error;
use crate::program::{Parameters, Program};

/// The type that a queue has to be declared with.
const QUEUE_TYPE: &str = "ihipStream_t";

c_functions! {
    migraphx_program_run(
        out: *mut *mut Arguments,
        program: *mut Program,
        parameters: *mut Parameters,
    ) {
        let made = object_mut(program)?.run(object(parameters)?)?;
        give(out, Arguments(made))
    }

    migraphx_program_run_async(
        out: *mut *mut Arguments,
        program: *mut Program,
        parameters: *mut Parameters,
        queue: *mut c_void,
        queue_type: *const c_char,
    ) {
        let queue_type = text(queue_type)?;
        if queue_type != QUEUE_TYPE {
            let words = format!("any_ptr: Type mismatch: {QUEUE_TYPE} != {queue_type}");
            return Err(Error::failed(words));
        }
        let made = object_mut(program)?.run_async(object(parameters)?, queue.cast())?;
        give(out, Arguments(made))
    }

    // A context is the program itself: neither is ever destroyed by the one that asked for it.
    migraphx_program_experimental_get_context(out: *mut *const Program, program: *const Program) {
        object(program)?.loaded()?;
        put(out, program)
    }

    migraphx_context_finish(context: *const Program) { object(context)?.loaded()?.finish() }

    migraphx_context_get_queue(out: *mut *mut c_void, context: *mut Program) {
        put(out, object(context)?.loaded()?.stream().cast())
    }
}

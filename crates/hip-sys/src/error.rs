//! Why a library cannot be had, and what a call answered.

use std::ffi::c_int;
use std::path::PathBuf;

use shapeyard_dylib::{SearchStep, list};

/// Why no runtime, or no run-time compiler, was loaded; each variant asks for another reaction.
///
/// Where several places were tried, the variant tells of the first file that was there and could not
/// be used, and `steps` of every place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Nothing is at any of the places: install ROCm or CUDA, or say where it is.
    #[error("there is no such library at any of these places: {}", list(.steps))]
    #[non_exhaustive]
    NotFound {
        /// Every place that was tried.
        steps: Vec<SearchStep>,
    },
    /// A file is there and cannot be loaded.
    #[error("`{}` cannot be loaded: {reason}", .path.display())]
    #[non_exhaustive]
    Unloadable {
        /// The file, or the name that the system's loader was asked for.
        path: PathBuf,
        /// The system's words.
        reason: String,
        /// Every place that was tried.
        steps: Vec<SearchStep>,
    },
    /// A library is there and is another one, or one that is too old: correct the path, or update.
    #[error("`{}` has no `{}`, and lacks {} functions in all", .path.display(), .missing.first().copied().unwrap_or_default(), .missing.len())]
    #[non_exhaustive]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// The HIP names of the functions that it lacks.
        missing: Vec<&'static str>,
        /// Every place that was tried.
        steps: Vec<SearchStep>,
    },
    /// `HIP_PLATFORM` has a value that names no platform.
    #[error("HIP_PLATFORM is `{value}`, which is neither `amd` nor `nvidia`")]
    #[non_exhaustive]
    UnknownPlatform {
        /// The variable's value.
        value: String,
    },
}

impl LoadError {
    /// Every place that was tried, in order.
    #[must_use]
    pub fn steps(&self) -> &[SearchStep] {
        match self {
            Self::NotFound { steps }
            | Self::Unloadable { steps, .. }
            | Self::Incomplete { steps, .. } => steps,
            Self::UnknownPlatform { .. } => &[],
        }
    }
}

/// What a call answered that did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {name} ({code}): {message}")]
#[non_exhaustive]
pub struct HipError {
    /// The function's HIP name, on either platform.
    pub call: &'static str,
    /// What it means to the caller.
    pub fault: Fault,
    /// The runtime's number.
    pub code: c_int,
    /// The runtime's name for the number: `hipErrorNoDevice`, `cudaErrorNoDevice`.
    pub name: String,
    /// The runtime's sentence.
    pub message: String,
}

impl HipError {
    /// A fault that was seen before anything was called.
    #[must_use]
    pub fn without_call(fault: Fault, message: String) -> Self {
        let code = fault.code();
        Self { call: "checked before the call", fault, code, name: format!("{fault:?}"), message }
    }
}

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// The kinds of failure that callers react to. Both platforms use the same numbers for them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Fault {
            $($(#[$doc])* $name,)*
            /// Another one, by its number.
            Other(c_int),
        }

        impl Fault {
            /// The fault that a number stands for.
            #[must_use]
            pub fn from_code(code: c_int) -> Self {
                match code {
                    $($code => Self::$name,)*
                    other => Self::Other(other),
                }
            }

            /// The number that stands for the fault.
            #[must_use]
            pub fn code(self) -> c_int {
                match self {
                    $(Self::$name => $code,)*
                    Self::Other(code) => code,
                }
            }
        }
    };
}

faults! {
    /// An argument is outside of what the function takes.
    InvalidValue = 1,
    /// The device, or the host for pinned memory, has no such room.
    OutOfMemory = 2,
    /// The runtime was not or cannot be initialised.
    NotInitialized = 3,
    /// The runtime is being taken down, as at the end of the process.
    Deinitialized = 4,
    /// The driver is older than the runtime needs; without a driver CUDA says so too.
    InsufficientDriver = 35,
    /// No device is there.
    NoDevice = 100,
    /// No device has this number.
    InvalidDevice = 101,
    /// The code is none.
    InvalidImage = 200,
    /// No context is current, or one of another device.
    InvalidContext = 201,
    /// The code is for another architecture.
    NoBinaryForGpu = 209,
    /// The handle is none, or no longer one.
    InvalidHandle = 400,
    /// The module has no such function.
    NotFound = 500,
    /// The work is not done yet; no failure.
    NotReady = 600,
    /// A kernel touched memory that is not its own; the device is lost to this process.
    IllegalAddress = 700,
    /// A kernel failed; the device is lost to this process.
    LaunchFailure = 719,
    /// The platform or the device does not do this.
    NotSupported = 801,
    /// The call cannot be recorded, or may not be made while a capture goes on.
    StreamCaptureUnsupported = 900,
    /// Something spoilt the capture earlier.
    StreamCaptureInvalidated = 901,
    /// Two captures would have become one.
    StreamCaptureMerge = 902,
    /// The capture was not begun on this stream.
    StreamCaptureUnmatched = 903,
    /// A stream that joined the capture was not joined back.
    StreamCaptureUnjoined = 904,
    /// The capture would depend on work outside of it.
    StreamCaptureIsolation = 905,
    /// The default stream would have become part of a capture.
    StreamCaptureImplicit = 906,
    /// The event was recorded in a capture and cannot be waited for outside.
    CapturedEvent = 907,
    /// The capture was begun by another thread.
    StreamCaptureWrongThread = 908,
    /// The graph cannot be updated in place.
    GraphExecUpdateFailure = 910,
}

impl Fault {
    /// Whether the fault tells of a capture rather than of the work.
    #[must_use]
    pub fn is_of_capture(self) -> bool {
        (900..=908).contains(&self.code())
    }

    /// Whether the device runs nothing any more that this process gave it.
    #[must_use]
    pub fn is_end_of_work(self) -> bool {
        matches!(self, Self::IllegalAddress | Self::LaunchFailure | Self::Deinitialized)
    }

    /// Whether there is no usable device, whatever the reason.
    #[must_use]
    pub fn is_no_device(self) -> bool {
        matches!(self, Self::NoDevice | Self::InsufficientDriver | Self::NotInitialized)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_faults_are_the_same_both_ways() {
        for code in -1..1100 {
            assert_eq!(Fault::from_code(code).code(), code);
        }
        assert_eq!(Fault::from_code(100), Fault::NoDevice);
        assert_eq!(Fault::from_code(1052), Fault::Other(1052));
    }

    #[test]
    fn captures_have_their_own_numbers() {
        assert!(Fault::StreamCaptureWrongThread.is_of_capture());
        assert!(!Fault::GraphExecUpdateFailure.is_of_capture());
        assert!(!Fault::OutOfMemory.is_of_capture());
    }
}

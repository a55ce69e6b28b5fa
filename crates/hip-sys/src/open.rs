//! Choosing a runtime, and asking it the first questions.

use std::ffi::{CStr, c_char, c_int};
use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

use shapeyard_dylib::{Failure, Library, OpenError, Refusal, SearchStep, Trace};

use crate::api::Api;
use crate::compiler::Compiler;
use crate::device::{self, DeviceProperties};
use crate::differing::Differing;
use crate::error::{Fault, HipError, LoadError};
use crate::platform::Platform;
use crate::search::SearchOptions;
use crate::table::text_at;
use crate::types::Status;

/// A loaded HIP runtime. It stays loaded until the process ends.
///
/// The functions of the C API are its methods, each `unsafe`, each with an answer that is a
/// [`HipError`] or nothing; [`api`](Self::api) has them as they are.
#[derive(Debug)]
pub struct Hip {
    pub(crate) api: Api,
    pub(crate) differing: Differing,
    platform: Platform,
    runtime: Library,
    compiler: OnceLock<Result<Compiler, LoadError>>,
    steps: Vec<SearchStep>,
}

impl Hip {
    /// Looks for a runtime where `options` say.
    ///
    /// The first that sees a device is taken, or else the first that loads: a machine may have the
    /// libraries of one platform and the device of the other.
    ///
    /// Loading runs the library's own start-up code. As with every program that a `PATH` or an
    /// `LD_LIBRARY_PATH` leads to, whoever names a file vouches for it.
    ///
    /// # Errors
    ///
    /// See [`LoadError`]; it lists every place that was tried.
    pub fn open(options: &SearchOptions) -> Result<Self, LoadError> {
        if let Some(value) = options.unknown_platform() {
            return Err(LoadError::UnknownPlatform { value: value.to_owned() });
        }
        let mut trace = Trace::default();
        let mut idle: Option<Self> = None;
        for (platform, candidate) in options.candidates() {
            // A second runtime of the same platform would see the same devices.
            if idle.as_ref().is_some_and(|hip| hip.platform == platform) {
                continue;
            }
            match Self::load(platform, &candidate.path) {
                Ok(hip) if hip.device_count().is_ok_and(|count| count > 0) => {
                    trace.loaded(candidate);
                    return Ok(Self { steps: trace.into_steps(), ..hip });
                }
                Ok(hip) => {
                    trace.set_aside(candidate, "it sees no device");
                    idle = idle.or(Some(hip));
                }
                Err(refusal) => trace.refused(candidate, refusal),
            }
        }
        match idle {
            Some(hip) => Ok(Self { steps: trace.into_steps(), ..hip }),
            None => Err(error(trace)),
        }
    }

    fn load(platform: Platform, path: &Path) -> Result<Self, Refusal<Missing>> {
        let runtime = Library::open(path)?;
        let missing = |names| Refusal::Unfit(Missing(names));
        if runtime.symbol(platform.telling_function()).is_none() {
            return Err(missing(vec![platform.telling_function()]));
        }
        let driver = platform.driver_file().map(|name| open_driver(path, name)).transpose()?;
        let find = |hip: &str, cuda: &str| match platform {
            Platform::Amd => runtime.symbol(hip),
            Platform::Nvidia if cuda.starts_with("cuda") => runtime.symbol(cuda),
            Platform::Nvidia => driver.as_ref()?.symbol(cuda),
        };
        // SAFETY: the names are those of the platform's C API, whose functions keep their signatures
        // as long as the soname stays, and libraries are never unloaded.
        let api = unsafe { Api::resolve(find) }.map_err(missing)?;
        // SAFETY: as above.
        let differing = unsafe { Differing::resolve(platform, &runtime) };
        let differing = differing.map_err(|name| missing(vec![name]))?;
        let compiler = OnceLock::new();
        Ok(Self { api, differing, platform, runtime, compiler, steps: Vec::new() })
    }

    /// The functions as they are, without a look at their answers.
    #[must_use]
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Whose runtime this is.
    #[must_use]
    pub fn platform(&self) -> Platform {
        self.platform
    }

    /// The file that was loaded, links followed; where the system does not say, the name that the
    /// loader was asked for.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.runtime.path()
    }

    /// Every place that was looked at.
    #[must_use]
    pub fn steps(&self) -> &[SearchStep] {
        &self.steps
    }

    /// Makes an error of what a call answered, with the runtime's own words. The runtime's note of
    /// the last error is cleared then, so that nobody takes it for his own.
    ///
    /// # Errors
    ///
    /// For every status but success.
    pub fn check(&self, call: &'static str, status: Status) -> Result<(), HipError> {
        if status.is_success() { Ok(()) } else { Err(self.failure(call, status)) }
    }

    #[cold]
    fn failure(&self, call: &'static str, status: Status) -> HipError {
        // SAFETY: it takes no argument and answers a number.
        let _cleared = unsafe { (self.api.get_last_error)() };
        // SAFETY: it takes any number.
        let name = unsafe { (self.api.get_error_name)(status) };
        // SAFETY: it takes any number.
        let message = unsafe { (self.api.get_error_string)(status) };
        HipError {
            call,
            fault: Fault::from_code(status.0),
            code: status.0,
            // SAFETY: the runtime answers static text or null.
            name: unsafe { text_at(name) },
            // SAFETY: as above.
            message: unsafe { text_at(message) },
        }
    }

    /// How many devices the runtime sees.
    ///
    /// # Errors
    ///
    /// [`Fault::NoDevice`] where there is none, or another fault that [`Fault::is_no_device`].
    pub fn device_count(&self) -> Result<usize, HipError> {
        let mut count = 0;
        // SAFETY: the place is valid during the call.
        unsafe { self.get_device_count(&mut count) }?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// The runtime's version: on AMD's platform `major * 10_000_000 + minor * 100_000 + build`, on
    /// NVIDIA's `major * 1000 + minor * 10`.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    pub fn runtime_version(&self) -> Result<c_int, HipError> {
        let mut version = 0;
        // SAFETY: the place is valid during the call.
        unsafe { self.runtime_get_version(&mut version) }?;
        Ok(version)
    }

    /// The version of the driver, numbered as the runtime's.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    pub fn driver_version(&self) -> Result<c_int, HipError> {
        let mut version = 0;
        // SAFETY: the place is valid during the call.
        unsafe { self.driver_get_version(&mut version) }?;
        Ok(version)
    }

    /// What the runtime says about a device.
    ///
    /// # Errors
    ///
    /// [`Fault::InvalidDevice`] for a number that no device has.
    pub fn device_properties(&self, device: usize) -> Result<DeviceProperties, HipError> {
        device::properties(self, ordinal(device))
    }

    /// The address of a device on the bus, as `0000:c1:00.0`.
    pub(crate) fn pci_address(&self, device: c_int) -> Result<String, HipError> {
        let mut text: [c_char; 64] = [0; 64];
        // SAFETY: the place has the length that is given.
        unsafe { self.device_get_pci_bus_id(text.as_mut_ptr(), 64, device) }?;
        let bytes = text.map(|byte| u8::from_ne_bytes(byte.to_ne_bytes()));
        let text = CStr::from_bytes_until_nul(&bytes).unwrap_or_default();
        Ok(text.to_string_lossy().to_ascii_lowercase())
    }

    /// The run-time compiler of the platform, loaded at the first use.
    ///
    /// # Errors
    ///
    /// See [`LoadError`]; everything else works without a compiler.
    pub fn compiler(&self) -> Result<&Compiler, LoadError> {
        let beside = self.runtime.path().parent();
        let made = self
            .compiler
            .get_or_init(|| Compiler::open(self.platform, beside, Some(&self.runtime)));
        made.as_ref().map_err(Clone::clone)
    }

    /// The address of a function of the runtime that [`Api`] does not list.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<std::ptr::NonNull<std::ffi::c_void>> {
        self.runtime.symbol(name)
    }
}

/// A device's number as the C API has it; one beyond its range is no device's.
pub(crate) fn ordinal(device: usize) -> c_int {
    c_int::try_from(device).unwrap_or(c_int::MAX)
}

/// The driver's library comes with the system, not with the runtime.
fn open_driver(runtime: &Path, name: &'static str) -> Result<Library, OpenError> {
    Library::open(Path::new(name)).map_err(|error| match error {
        OpenError::Absent => OpenError::Unloadable(format!(
            "`{}` is there, and the driver's `{name}` is not",
            runtime.display()
        )),
        OpenError::Unloadable(_) => error,
    })
}

/// The HIP names of functions that a library lacks.
#[derive(Debug)]
struct Missing(Vec<&'static str>);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it lacks {}", self.0.join(", "))
    }
}

fn error(trace: Trace<Missing>) -> LoadError {
    let (failure, steps) = trace.into_failure();
    match failure {
        Failure::NotFound => LoadError::NotFound { steps },
        Failure::Unloadable { path, reason } => LoadError::Unloadable { path, reason, steps },
        Failure::Unfit { path, objection: Missing(missing) } => {
            LoadError::Incomplete { path, missing, steps }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nowhere_is_not_found() {
        let error = Hip::open(&SearchOptions::nowhere()).unwrap_err();
        assert_eq!(error, LoadError::NotFound { steps: Vec::new() });
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn another_library_is_told_apart() {
        let options = SearchOptions::at(Platform::Amd, "libm.so.6");
        let LoadError::Incomplete { missing, steps, .. } = Hip::open(&options).unwrap_err() else {
            panic!("the mathematics library is not HIP");
        };
        assert_eq!((missing, steps.len()), (vec!["hipGetDeviceCount"], 1));
    }
}

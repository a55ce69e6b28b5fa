//! Kernels from source, at run time: hiprtc or NVRTC.

use std::ffi::{CString, NulError, c_char, c_int};
use std::path::{Path, PathBuf};
use std::ptr;

use shapeyard_dylib::{Candidate, Library, Refusal, Search, as_function};

use crate::error::LoadError;
use crate::platform::Platform;
use crate::table::text_at;

type Program = *mut std::ffi::c_void;
type Answer = c_int;
type Strings = *const *const c_char;

/// The functions of hiprtc and of NVRTC, whose signatures are the same.
#[derive(Clone, Copy)]
struct Functions {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Answer,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        Strings,
        Strings,
    ) -> Answer,
    compile: unsafe extern "C" fn(Program, c_int, Strings) -> Answer,
    code_size: unsafe extern "C" fn(Program, *mut usize) -> Answer,
    code: unsafe extern "C" fn(Program, *mut c_char) -> Answer,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> Answer,
    log: unsafe extern "C" fn(Program, *mut c_char) -> Answer,
    destroy: unsafe extern "C" fn(*mut Program) -> Answer,
    error_text: unsafe extern "C" fn(Answer) -> *const c_char,
}

/// The run-time compiler of a platform.
#[derive(Clone)]
pub struct Compiler {
    platform: Platform,
    functions: Functions,
    path: PathBuf,
}

impl std::fmt::Debug for Compiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiler").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Code for one architecture, to be loaded as a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    bytes: Vec<u8>,
    log: String,
}

impl Code {
    /// What `hipModuleLoadData` takes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The compiler's warnings.
    #[must_use]
    pub fn log(&self) -> &str {
        &self.log
    }
}

/// Why there is no code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The source, or an option, was refused.
    #[error("{reason} ({code}): {log}")]
    #[non_exhaustive]
    Refused {
        /// The compiler's number.
        code: c_int,
        /// The compiler's sentence for the number.
        reason: String,
        /// What it says about the source.
        log: String,
    },
    /// A text has a zero byte in it.
    #[error("a text for the compiler has a zero byte")]
    Text(#[from] NulError),
}

impl Compiler {
    /// Looks beside the runtime, then asks the loader; the runtime of HIP 5 and 6 has it itself.
    pub(crate) fn open(
        platform: Platform,
        beside: Option<&Path>,
        runtime: Option<&Library>,
    ) -> Result<Self, LoadError> {
        let names = platform.compiler_files();
        let near = beside.iter().flat_map(|folder| names.iter().map(|name| folder.join(name)));
        let near = near.map(|path| Candidate::new(path, "beside the runtime"));
        let far = names.iter().map(Candidate::by_loader);
        let load = |path: &Path| {
            let missing = |name| Refusal::Unfit(format!("it lacks {name}"));
            Self::of(platform, &Library::open(path)?).map_err(missing)
        };
        let Search { result, steps } = shapeyard_dylib::search(near.chain(far), load);
        let inside = || runtime.and_then(|runtime| Self::of(platform, runtime).ok());
        result.ok().or_else(inside).ok_or(LoadError::NotFound { steps })
    }

    #[allow(clippy::multiple_unsafe_ops_per_block, reason = "one table, one reason")]
    fn of(platform: Platform, library: &Library) -> Result<Self, String> {
        let (prefix, code) = match platform {
            Platform::Amd => ("hiprtc", "Code"),
            Platform::Nvidia => ("nvrtc", "CUBIN"),
        };
        let find = |name: &str| {
            let name = format!("{prefix}{name}");
            library.symbol(&name).ok_or(name)
        };
        // SAFETY: the names are those of the platform's C API, and the signatures are those that
        // `hiprtc.h` of HIP 5.2 and `nvrtc.h` of CUDA 13 give them.
        let functions = unsafe {
            Functions {
                version: as_function(find("Version")?),
                create: as_function(find("CreateProgram")?),
                compile: as_function(find("CompileProgram")?),
                code_size: as_function(find(&format!("Get{code}Size"))?),
                code: as_function(find(&format!("Get{code}"))?),
                log_size: as_function(find("GetProgramLogSize")?),
                log: as_function(find("GetProgramLog")?),
                destroy: as_function(find("DestroyProgram")?),
                error_text: as_function(find("GetErrorString")?),
            }
        };
        Ok(Self { platform, functions, path: library.path().to_owned() })
    }

    /// The file that was loaded.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The compiler's version, where it says one.
    #[must_use]
    pub fn version(&self) -> Option<(c_int, c_int)> {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: the places are ours.
        let answer = unsafe { (self.functions.version)(&mut major, &mut minor) };
        (answer == 0).then_some((major, minor))
    }

    /// Compiles `source` (HIP's C++, whose kernels are `extern "C" __global__`) for an architecture as
    /// [`DeviceProperties`](crate::DeviceProperties) names it, with further `options` of the compiler.
    ///
    /// # Errors
    ///
    /// [`CompileError::Refused`] with what the compiler says.
    pub fn compile(
        &self,
        source: &str,
        architecture: &str,
        options: &[&str],
    ) -> Result<Code, CompileError> {
        let flag = match self.platform {
            Platform::Amd => "--offload-arch",
            Platform::Nvidia => "--gpu-architecture",
        };
        let mut texts = vec![CString::new(format!("{flag}={architecture}"))?];
        for option in options {
            texts.push(CString::new(*option)?);
        }
        let source = CString::new(source)?;
        let job = Job::create(self.functions, &source)?;
        job.compile(&texts)?;
        Ok(Code { bytes: job.code()?, log: job.log() })
    }
}

/// A program of the compiler, destroyed at the end.
struct Job {
    functions: Functions,
    program: Program,
}

impl Job {
    fn create(functions: Functions, source: &CString) -> Result<Self, CompileError> {
        let mut program = ptr::null_mut();
        let (name, none) = (c"shapeyard.hip".as_ptr(), ptr::null());
        // SAFETY: the texts live during the call, which copies them; there are no headers.
        let answer =
            unsafe { (functions.create)(&mut program, source.as_ptr(), name, 0, none, none) };
        let job = Self { functions, program };
        job.check(answer)?;
        Ok(job)
    }

    fn compile(&self, options: &[CString]) -> Result<(), CompileError> {
        let pointers: Vec<*const c_char> = options.iter().map(|text| text.as_ptr()).collect();
        let count = c_int::try_from(pointers.len()).unwrap_or(c_int::MAX);
        // SAFETY: the program is alive, and so are as many texts as are counted.
        let answer = unsafe { (self.functions.compile)(self.program, count, pointers.as_ptr()) };
        self.check(answer)
    }

    fn code(&self) -> Result<Vec<u8>, CompileError> {
        let mut size = 0;
        // SAFETY: the program is alive and compiled, and the place is ours.
        self.check(unsafe { (self.functions.code_size)(self.program, &mut size) })?;
        let mut bytes = vec![0_u8; size];
        // SAFETY: the place has the size that the compiler asked for.
        self.check(unsafe { (self.functions.code)(self.program, bytes.as_mut_ptr().cast()) })?;
        Ok(bytes)
    }

    /// An unreadable log is an empty one: there is an answer beside it.
    fn log(&self) -> String {
        let mut size = 0;
        // SAFETY: the program is alive, and the place is ours.
        let answer = unsafe { (self.functions.log_size)(self.program, &mut size) };
        if answer != 0 || size == 0 {
            return String::new();
        }
        let mut bytes = vec![0_u8; size];
        // SAFETY: the place has the size that the compiler asked for.
        let answer = unsafe { (self.functions.log)(self.program, bytes.as_mut_ptr().cast()) };
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(size);
        let text = String::from_utf8_lossy(&bytes[..end]);
        if answer == 0 { text.trim().to_owned() } else { String::new() }
    }

    fn check(&self, answer: Answer) -> Result<(), CompileError> {
        if answer == 0 {
            return Ok(());
        }
        // SAFETY: it takes any number and answers static text.
        let reason = unsafe { (self.functions.error_text)(answer) };
        // SAFETY: as above.
        let reason = unsafe { text_at(reason) };
        let log = if self.program.is_null() { String::new() } else { self.log() };
        Err(CompileError::Refused { code: answer, reason, log })
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.program.is_null() {
            // SAFETY: the program is alive, and nobody else has it. There is nothing to be done about
            // a failure.
            unsafe { (self.functions.destroy)(&mut self.program) };
        }
    }
}

//! Which MIGraphX was loaded. The C API has no function that says so.

use std::ffi::{CString, c_char};
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::ptr;

use crate::bindings::{Api, migraphx_file_options_t, migraphx_program_t, migraphx_status};

/// A release of MIGraphX. ROCm counts its own releases: MIGraphX 2.14 came with ROCm 7.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Why the library's version is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VersionError {
    /// No temporary file could be made or read.
    #[error("a program cannot be saved to a temporary folder to read the version from it")]
    Io {
        /// The system's answer.
        #[from]
        source: io::Error,
    },
    /// The library refused to save an empty program.
    #[error("MIGraphX does not save an empty program: status {}", .status.0)]
    NotSaved {
        /// Its answer; its words are on standard error.
        status: migraphx_status,
    },
    /// What the library saved tells no version.
    #[error("a saved program tells no version")]
    NotTold,
}

/// A saved program says which release wrote it; where none can be saved, the name of the library's
/// file does (`libmigraphx.so.2014000`).
pub(crate) fn ask(api: &Api) -> Result<Version, VersionError> {
    let error = match from_saved_program(api) {
        Ok(version) => return Ok(version),
        Err(error) => error,
    };
    let file = shapeyard_dylib::mapped_file("libmigraphx.so.");
    file.as_deref().and_then(from_file_name).ok_or(error)
}

fn from_saved_program(api: &Api) -> Result<Version, VersionError> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("empty.json");
    save_empty_program(api, &file)?;
    let json = fs::read_to_string(&file)?;
    from_json(&json).ok_or(VersionError::NotTold)
}

fn save_empty_program(api: &Api, file: &Path) -> Result<(), VersionError> {
    let path = CString::new(file.as_os_str().as_encoded_bytes()).map_err(io::Error::other)?;
    let mut program: migraphx_program_t = ptr::null_mut();
    // SAFETY: a handle is written on success only.
    checked(unsafe { (api.program_create)(&mut program) })?;
    let saved = save_as_json(api, program, path.as_ptr());
    // SAFETY: the program was created above and is not used after this.
    let destroyed = unsafe { (api.program_destroy)(program) };
    saved.and(checked(destroyed))
}

fn save_as_json(
    api: &Api,
    program: migraphx_program_t,
    path: *const c_char,
) -> Result<(), VersionError> {
    let mut options: migraphx_file_options_t = ptr::null_mut();
    // SAFETY: a handle is written on success only.
    checked(unsafe { (api.file_options_create)(&mut options) })?;
    // SAFETY: the options were created above; the library copies the text.
    let chosen = unsafe { (api.file_options_set_file_format)(options, c"json".as_ptr()) };
    let saved = checked(chosen).and_then(|()| {
        // SAFETY: program, options and path are alive; the library writes the file and keeps nothing.
        checked(unsafe { (api.save)(program, path, options) })
    });
    // SAFETY: the options were created above and are not used after this.
    let destroyed = unsafe { (api.file_options_destroy)(options) };
    saved.and(checked(destroyed))
}

fn checked(status: migraphx_status) -> Result<(), VersionError> {
    if status.is_success() { Ok(()) } else { Err(VersionError::NotSaved { status }) }
}

fn from_json(json: &str) -> Option<Version> {
    let (_, rest) = json.split_once("\"migraphx_version\"")?;
    let (_, rest) = rest.split_once('"')?;
    let (text, _) = rest.split_once('"')?;
    let mut numbers = text.split('.').map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some(Version { major: next()?, minor: next()?, patch: next().unwrap_or(0) })
}

fn from_file_name(path: &Path) -> Option<Version> {
    let name = path.file_name()?.to_str()?;
    let digits = name.strip_prefix("libmigraphx.so.")?.split('.').next()?;
    let number: u32 = digits.parse().ok().filter(|number| *number >= 1_000_000)?;
    Some(Version {
        major: number / 1_000_000,
        minor: number / 1_000 % 1_000,
        patch: number % 1_000,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_program_tells_the_version() {
        let version = |json| from_json(json).map(|version| version.to_string());
        let json = r#"{"main":{},"migraphx_version":"2.14.0","version":7}"#;
        assert_eq!(version(json).as_deref(), Some("2.14.0"));
        let spaced = r#"{"migraphx_version": "2.15"}"#;
        assert_eq!(version(spaced).as_deref(), Some("2.15.0"));
        assert_eq!(version(r#"{"migraphx_version":7}"#), None);
        assert_eq!(version("{}"), None);
    }

    #[test]
    fn a_file_name_tells_the_version() {
        let version =
            |name: &str| from_file_name(Path::new(name)).map(|version| version.to_string());
        assert_eq!(version("/usr/lib/libmigraphx.so.2014000.0").as_deref(), Some("2.14.0"));
        assert_eq!(version("libmigraphx.so.2012003").as_deref(), Some("2.12.3"));
        assert_eq!(version("libmigraphx.so.2"), None);
        assert_eq!(version("libmigraphx_c.so.3.0"), None);
    }
}

//! The loaded library, and what is known about it.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use migraphx_sys::{
    Api, Library, LoadError, SearchOptions, ShapeType, migraphx_target, target_lock,
};
use shapeyard_core::DataType;
use shapeyard_core::backend::{Environment, EnvironmentRule};
use shapeyard_core::model::Digest;

use super::handle::{Handle, create};
use super::{NativeError, gate};

/// The variables that change what MIGraphX compiles. It and the libraries below it read theirs once.
pub(crate) const ENVIRONMENT: EnvironmentRule<'static> = EnvironmentRule {
    prefixes: &[
        "MIGRAPHX_",
        "MIOPEN_",
        "ROCBLAS_",
        "HIPBLASLT_",
        "TENSILE_",
        "HSA_",
        "HIP_",
        "ROCM_",
        "ROCR_",
        "GPU_DEVICE_ORDINAL",
        "AMD_",
    ],
    harmless: &[
        "MIGRAPHX_TRACE_*",
        "MIGRAPHX_DUMP_*",
        "MIGRAPHX_GPU_DUMP_*",
        "MIGRAPHX_PROBLEM_CACHE",
        "MIGRAPHX_GPU_COMPILE_PARALLEL",
        "MIGRAPHX_DYLIB_PATH",
        "MIOPEN_ENABLE_LOGGING*",
        "MIOPEN_LOG_LEVEL",
        "ROCBLAS_LAYER",
        "ROCBLAS_LOG_*",
        "HIP_PATH",
        "ROCM_PATH",
        "AMD_LOG_*",
    ],
};

/// A MIGraphX that was loaded; it stays loaded until the process ends.
#[derive(Debug)]
pub(crate) struct Migraphx {
    library: Library,
    environment: Environment,
    digest: OnceLock<Result<Digest, String>>,
    targets: Mutex<BTreeSet<String>>,
}

impl Migraphx {
    /// Loads the library at `path`, or where it is usually found.
    pub(crate) fn load(path: Option<&Path>) -> Result<&'static Self, LoadError> {
        let search = path.map_or_else(SearchOptions::default, SearchOptions::at);
        // Before the library reads it: what is changed later does not reach the library.
        let environment = Environment::snapshot(&ENVIRONMENT);
        let library = Library::open(&search)?;
        gate::watch_exit();
        let loaded =
            Self { library, environment, digest: OnceLock::new(), targets: Mutex::default() };
        // The library itself is never unloaded either, and there is one of these for each.
        Ok(Box::leak(Box::new(loaded)))
    }

    pub(crate) fn api(&self) -> &Api {
        &self.library.api
    }

    pub(crate) fn library(&self) -> &Library {
        &self.library
    }

    /// The variables that count, as they were when the library was loaded.
    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The compiler's name and version.
    pub(crate) fn compiler(&self) -> String {
        match self.library.version() {
            Ok(version) => format!("MIGraphX {version}"),
            Err(_) => "MIGraphX".to_owned(),
        }
    }

    /// The content of the library with all of its parts, read once.
    pub(crate) fn digest(&self) -> Result<Digest, String> {
        self.digest.get_or_init(|| digest_of(self.library.path())).clone()
    }

    /// The library's number for a data type.
    pub(super) fn number(
        &self,
        dtype: DataType,
    ) -> Result<migraphx_sys::migraphx_shape_datatype_t, NativeError> {
        let number = self.library.data_types().number(shape_type(dtype)?);
        number.ok_or_else(|| NativeError::Unknown(format!("this MIGraphX has no type {dtype}")))
    }

    /// The data type that a number of the library stands for.
    pub(super) fn dtype(
        &self,
        number: migraphx_sys::migraphx_shape_datatype_t,
    ) -> Result<DataType, NativeError> {
        let known = self.library.data_types().shape_type(number);
        known.and_then(dtype_of).ok_or_else(|| {
            NativeError::Unknown(format!("the library answers with data type {}", number.0))
        })
    }

    /// A target, such as `ref` or `gpu`.
    pub(super) fn target(&self, name: &str) -> Result<Handle<migraphx_target>, NativeError> {
        let _first = target_lock();
        let text = c_text(name)?;
        let target = create!(self.api(), target_create => target_destroy, text.as_ptr())?;
        gate::watch_exit();
        Ok(target)
    }

    /// Makes sure that the library knows a target: loading programs side by side is safe only then.
    pub(crate) fn know_target(&self, name: &str) -> Result<(), NativeError> {
        let mut known = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(name) {
            drop(self.target(name)?);
            known.insert(name.to_owned());
        }
        Ok(())
    }
}

pub(super) fn c_text(text: &str) -> Result<CString, NativeError> {
    CString::new(text).map_err(|_| NativeError::Unknown(format!("`{text}` has a zero byte in it")))
}

/// A path for the library, which takes any bytes but zeros.
pub(super) fn c_path(path: &Path) -> Result<CString, NativeError> {
    let zero = |_| NativeError::Unknown(format!("`{}` has a zero byte in it", path.display()));
    CString::new(path.as_os_str().as_encoded_bytes()).map_err(zero)
}

fn shape_type(dtype: DataType) -> Result<ShapeType, NativeError> {
    let known = ShapeType::ALL.into_iter().find(|&known| dtype_of(known) == Some(dtype));
    known.ok_or_else(|| NativeError::Unknown(format!("MIGraphX has no type {dtype}")))
}

/// The data type that elements of a MIGraphX type have at our border.
pub(crate) fn dtype_of(shape_type: ShapeType) -> Option<DataType> {
    Some(match shape_type {
        ShapeType::Bool => DataType::Bool,
        ShapeType::Half => DataType::F16,
        ShapeType::Float => DataType::F32,
        ShapeType::Double => DataType::F64,
        ShapeType::UInt8 => DataType::U8,
        ShapeType::Int8 => DataType::I8,
        ShapeType::UInt16 => DataType::U16,
        ShapeType::Int16 => DataType::I16,
        ShapeType::Int32 => DataType::I32,
        ShapeType::Int64 => DataType::I64,
        ShapeType::UInt32 => DataType::U32,
        ShapeType::UInt64 => DataType::U64,
        ShapeType::Fp8E4M3Fnuz => DataType::F8E4M3FNUZ,
        ShapeType::Fp8E4M3Fn => DataType::F8E4M3FN,
        ShapeType::Fp8E5M2 => DataType::F8E5M2,
        ShapeType::Fp8E5M2Fnuz => DataType::F8E5M2FNUZ,
        ShapeType::BFloat16 => DataType::BF16,
        _ => return None,
    })
}

/// The C library is a thin cover: its parts stand beside it or in `migraphx/lib`, and each counts.
fn digest_of(library: &Path) -> Result<Digest, String> {
    let folder = library.parent().unwrap_or(Path::new("."));
    let mut parts = BTreeSet::from([library.to_owned()]);
    for folder in [folder.to_owned(), folder.join("migraphx/lib")] {
        parts.extend(parts_in(&folder));
    }
    let mut hasher = blake3::Hasher::new_derive_key("shapeyard migraphx library 1");
    for part in parts {
        let name = part.file_name().unwrap_or_default().as_encoded_bytes();
        let digest =
            Digest::of_file(&part).map_err(|error| format!("{}: {error}", part.display()))?;
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name).update(digest.as_bytes());
    }
    hasher.finalize().to_hex().parse().map_err(|error| format!("{error}"))
}

/// The files, not the links, that MIGraphX's parts are in.
fn parts_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(files) = fs::read_dir(folder) else { return Vec::new() };
    let is_part = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("libmigraphx")
            && name.contains(".so")
            && !name.starts_with("libmigraphx_py")
    };
    let paths = files.filter_map(|file| Some(file.ok()?.path())).filter(is_part);
    paths.filter_map(|path| path.canonicalize().ok()).collect()
}

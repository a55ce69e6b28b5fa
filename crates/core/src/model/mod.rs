//! A model file: what it says about itself, where its parts are, and the digest of its content.

mod digest;
pub mod gguf;
pub mod onnx;

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use serde::Serialize;

pub use digest::{Digest, NotADigest};
use gguf::{EncoderSizes, GgufError, GgufFile};
use onnx::{ForeignValue, OnnxDim, OnnxError, OnnxFile, OnnxValue};

use crate::signature::{AxisSymbol, DeclareError, Dim, Signature, SymbolId, TensorSpec};

/// Why a file is no model that can be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The file cannot be opened or read.
    #[error("`{}` cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is no ONNX model that can be served.
    #[error("`{}` cannot be used", path.display())]
    Onnx {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        source: OnnxError,
    },
    /// The file is no GGUF model that can be served.
    #[error("`{}` cannot be used", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        source: GgufError,
    },
    /// A file of external data is not there or cannot be read.
    #[error(
        "`{}` keeps weights in `{location}`, which cannot be read; put that file beside the model",
        path.display()
    )]
    ExternalDataUnreadable {
        /// The model file.
        path: PathBuf,
        /// The file of weights, as the model names it.
        location: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A file of external data is shorter than the model needs.
    #[error(
        "`{}` needs {wanted} bytes of weights in `{location}`, which has {found}; copy it there again",
        path.display()
    )]
    ExternalDataTooShort {
        /// The model file.
        path: PathBuf,
        /// The file of weights, as the model names it.
        location: String,
        /// Bytes that the model needs.
        wanted: u64,
        /// Bytes there.
        found: u64,
    },
    /// The model names external data outside its own folder.
    #[error(
        "`{}` names weights at `{location}`, outside its own folder; such a model is not opened",
        path.display()
    )]
    ExternalDataOutside {
        /// The model file.
        path: PathBuf,
        /// The location, as the model names it.
        location: String,
    },
}

/// A file of weights beside a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExternalFile {
    /// The path as the model names it, relative to the model's folder.
    pub location: String,
    /// Where it is.
    #[serde(skip)]
    pub path: PathBuf,
    /// Its length in bytes.
    pub n_bytes: u64,
}

/// A model file with everything known about it before any runtime has seen it.
#[derive(Debug)]
pub struct Model {
    path: PathBuf,
    n_bytes: u64,
    signature: Signature,
    ir_version: i64,
    opsets: BTreeMap<String, i64>,
    producer: String,
    operators: BTreeMap<String, usize>,
    n_parameter_bytes: u64,
    external_files: Vec<ExternalFile>,
    gguf: Option<GgufFile>,
    digest: OnceLock<Digest>,
}

/// A model file as it is, whether or not it can be served.
#[derive(Debug)]
pub struct Described {
    /// What is known about the file; its signature lacks the values that cannot be served.
    pub model: Model,
    /// Those values; where there are some the model is good for looking at only.
    pub foreign: Vec<ForeignValue>,
}

impl Model {
    /// Opens an ONNX file, or a GGUF file that holds an encoder. Reads names, types and nodes; weights are
    /// passed over.
    ///
    /// # Errors
    ///
    /// [`ModelError`]: no content makes it panic.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, ModelError> {
        let Described { model, foreign } = Self::describe(path)?;
        let Some(ForeignValue { name, kind, .. }) = foreign.into_iter().next() else {
            return Ok(model);
        };
        let source = OnnxError::UnsupportedValue { name, kind };
        Err(ModelError::Onnx { path: model.path, source })
    }

    /// Opens a model to look at it: one that has inputs or outputs that cannot be served is no error here.
    ///
    /// # Errors
    ///
    /// As [`Self::open`] otherwise.
    pub fn describe(path: impl Into<PathBuf>) -> Result<Described, ModelError> {
        let path = path.into();
        let unreadable = |source| ModelError::Unreadable { path: path.clone(), source };
        // Asked of the path first: opening a pipe would wait for its writer.
        let metadata = fs::metadata(&path).map_err(unreadable)?;
        if metadata.is_dir() {
            return Err(unreadable(io::ErrorKind::IsADirectory.into()));
        }
        if !metadata.is_file() {
            return Err(unreadable(io::Error::other("it is a device or a pipe, not a file")));
        }
        let mut file = File::open(&path).map_err(unreadable)?;
        if is_gguf(&mut file).map_err(unreadable)? {
            let model = Self::from_gguf(path, metadata.len(), file)?;
            return Ok(Described { model, foreign: Vec::new() });
        }
        let onnx = onnx::read(file).map_err(|source| match source {
            OnnxError::Read(source) => unreadable(source),
            source => ModelError::Onnx { path: path.clone(), source },
        })?;
        let external_files = external_files(&path, &onnx)?;
        let foreign = onnx.foreign;
        let model = Self {
            n_bytes: metadata.len(),
            signature: signature(onnx.inputs, onnx.outputs),
            ir_version: onnx.ir_version,
            opsets: onnx.opsets,
            producer: onnx.producer,
            operators: onnx.operators,
            n_parameter_bytes: onnx.n_parameter_bytes,
            external_files,
            gguf: None,
            digest: OnceLock::new(),
            path,
        };
        Ok(Described { model, foreign })
    }

    fn from_gguf(path: PathBuf, n_bytes: u64, file: File) -> Result<Self, ModelError> {
        let refused = |source| match source {
            GgufError::Read(source) => ModelError::Unreadable { path: path.clone(), source },
            source => ModelError::Gguf { path: path.clone(), source },
        };
        let gguf = gguf::read(file).map_err(refused)?;
        let sizes = EncoderSizes::of(&gguf).map_err(refused)?;
        Ok(Self {
            n_bytes,
            signature: sizes.signature(),
            ir_version: gguf.version.into(),
            opsets: BTreeMap::new(),
            producer: gguf.text("general.name").unwrap_or_default().to_owned(),
            operators: BTreeMap::new(),
            n_parameter_bytes: gguf.n_tensor_bytes(),
            external_files: Vec::new(),
            gguf: Some(gguf),
            digest: OnceLock::new(),
            path,
        })
    }

    /// What the file says about itself if it is a GGUF file.
    #[must_use]
    pub const fn gguf(&self) -> Option<&GgufFile> {
        self.gguf.as_ref()
    }

    /// Where the model file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The model file's length in bytes, external data not counted.
    #[must_use]
    pub const fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Inputs, outputs and symbols.
    #[must_use]
    pub const fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The model with symbols for axes that the file leaves without a name.
    ///
    /// # Errors
    ///
    /// As [`Signature::declare`].
    pub fn declare(mut self, axes: &[AxisSymbol]) -> Result<Self, DeclareError> {
        self.signature.declare(axes)?;
        Ok(self)
    }

    /// The version of the file format.
    #[must_use]
    pub const fn ir_version(&self) -> i64 {
        self.ir_version
    }

    /// Operator sets by domain; the standard domain is `""`.
    #[must_use]
    pub const fn opsets(&self) -> &BTreeMap<String, i64> {
        &self.opsets
    }

    /// The program that wrote the file, and its version; may be empty.
    #[must_use]
    pub fn producer(&self) -> &str {
        &self.producer
    }

    /// Nodes by operator, those of subgraphs included.
    #[must_use]
    pub const fn operators(&self) -> &BTreeMap<String, usize> {
        &self.operators
    }

    /// Bytes of constants, external ones included.
    #[must_use]
    pub const fn n_parameter_bytes(&self) -> u64 {
        self.n_parameter_bytes
    }

    /// Files of weights beside the model, ordered by location.
    #[must_use]
    pub fn external_files(&self) -> &[ExternalFile] {
        &self.external_files
    }

    /// The digest of the model's content with its external data; the file's name does not matter.
    ///
    /// Reads every byte once, the first time; later calls give what was found then.
    ///
    /// # Errors
    ///
    /// [`ModelError::Unreadable`] and [`ModelError::ExternalDataUnreadable`].
    pub fn digest(&self) -> Result<Digest, ModelError> {
        if let Some(digest) = self.digest.get() {
            return Ok(*digest);
        }
        let unreadable = |source| ModelError::Unreadable { path: self.path.clone(), source };
        let model = Digest::of_file(&self.path).map_err(unreadable)?;
        let mut external = Vec::with_capacity(self.external_files.len());
        for file in &self.external_files {
            let digest = Digest::of_file(&file.path).map_err(|source| {
                let (path, location) = (self.path.clone(), file.location.clone());
                ModelError::ExternalDataUnreadable { path, location, source }
            })?;
            external.push((file.location.as_str(), digest));
        }
        Ok(*self.digest.get_or_init(|| Digest::of_parts(model, external)))
    }

    /// Takes over a digest that was taken of these very files before, so that they are not read again.
    /// One that is known already stays.
    pub fn assume_digest(&self, digest: Digest) {
        self.digest.get_or_init(|| digest);
    }
}

/// Whether the file begins as GGUF files do; it is at its start again then.
fn is_gguf(file: &mut File) -> io::Result<bool> {
    let mut start = Vec::new();
    file.by_ref().take(gguf::MAGIC.len() as u64).read_to_end(&mut start)?;
    file.rewind()?;
    Ok(start == gguf::MAGIC)
}

fn external_files(model: &Path, onnx: &OnnxFile) -> Result<Vec<ExternalFile>, ModelError> {
    let folder = model.parent().unwrap_or(Path::new(""));
    let mut files = Vec::with_capacity(onnx.external_data.len());
    for (location, &wanted) in &onnx.external_data {
        let relative = Path::new(location);
        let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        let (model, location) = (model.to_owned(), location.clone());
        if !relative.components().all(inside) {
            return Err(ModelError::ExternalDataOutside { path: model, location });
        }
        let path = folder.join(relative);
        let n_bytes = match File::open(&path).and_then(|file| file.metadata()) {
            Ok(metadata) => metadata.len(),
            Err(source) => {
                return Err(ModelError::ExternalDataUnreadable { path: model, location, source });
            }
        };
        if n_bytes < wanted {
            let (path, found) = (model, n_bytes);
            return Err(ModelError::ExternalDataTooShort { path, location, wanted, found });
        }
        files.push(ExternalFile { location, path, n_bytes });
    }
    Ok(files)
}

fn signature(inputs: Vec<OnnxValue>, outputs: Vec<OnnxValue>) -> Signature {
    let mut symbols = Symbols::default();
    let mut specs = |values: Vec<OnnxValue>| -> Vec<TensorSpec> {
        values.into_iter().map(|value| spec(value, &mut symbols)).collect()
    };
    let (inputs, outputs) = (specs(inputs), specs(outputs));
    Signature { inputs, outputs, symbols: symbols.names }
}

/// Symbols in the order in which they are first named.
#[derive(Default)]
struct Symbols {
    names: Vec<String>,
    known: HashMap<String, SymbolId>,
}

impl Symbols {
    fn id(&mut self, name: String) -> SymbolId {
        *self.known.entry(name).or_insert_with_key(|name| {
            self.names.push(name.clone());
            SymbolId(self.names.len() - 1)
        })
    }
}

fn spec(value: OnnxValue, symbols: &mut Symbols) -> TensorSpec {
    let mut dim = |dim| match dim {
        OnnxDim::Fixed(extent) => Dim::Fixed(extent),
        OnnxDim::Unnamed => Dim::Unnamed,
        OnnxDim::Named(name) => Dim::Symbol(symbols.id(name)),
    };
    TensorSpec {
        name: value.name,
        dtype: value.dtype,
        shape: value.shape.map(|dims| dims.into_iter().map(&mut dim).collect()),
        index_limit: value.index_limit,
    }
}

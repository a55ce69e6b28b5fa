//! CPU backends of Shapeyard: they take every shape, without a compile.
//!
//! * [`OnnxRuntime`] (`onnxruntime`): loads ONNX Runtime 1.17 or newer at run time, where it is found.
//! * [`Rten`] (`rten`): pure Rust, part of the program, so there is always a backend that runs.
//! * [`Ggml`] (`ggml`): loads ggml at run time, where it is found; serves models whose operators it has.
//!
//! ```
//! use shapeyard_core::backend::{LoadJob, SessionOptions};
//! use shapeyard_core::registry::{Choice, Registry};
//! use shapeyard_core::{Model, Outputs, Request, Tensor};
//! use shapeyard_cpu::CpuOptions;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/models/add_one.onnx");
//! let model = Model::open(path)?;
//! let registry = Registry::new(shapeyard_cpu::backends(&CpuOptions::default()));
//! let opened = registry.open(&Choice::Auto, &LoadJob::of(&model))?;
//! let mut session = opened.executable.session(&SessionOptions::threads(1))?;
//!
//! let x = Tensor::from_slice(&[2, 4], &[0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])?;
//! let inputs = [x.view()];
//! let request = Request::bind(opened.executable.signature(), &inputs)?;
//! let mut outputs = Outputs::new();
//! let report = session.run(&request, &mut outputs)?;
//!
//! assert_eq!(outputs.tensors()[0].as_slice::<f32>()?, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
//! assert_eq!(report.backend, opened.backend.id());
//! # Ok(())
//! # }
//! ```

mod artifact;
mod dynamic;
mod found;
mod ggml;
mod onnxruntime;
mod rten;

use std::path::PathBuf;
use std::sync::Arc;

use shapeyard_core::Backend;
use shapeyard_core::model::gguf::GgufType;

pub use crate::ggml::Ggml;
pub use crate::onnxruntime::OnnxRuntime;
pub use crate::rten::Rten;

/// What the CPU backends may be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuOptions {
    /// The ONNX Runtime library to load. When it is given, nothing else is tried.
    pub onnxruntime: Option<PathBuf>,
    /// The ggml library to load. When it is given, nothing else is tried.
    pub ggml: Option<PathBuf>,
    /// The device of ggml that computes, by ggml's own name for it (`CPU`, `CUDA0`, `ROCm0`, `MTL0`, `Vulkan0`); the
    /// processor where none is named. Devices in libraries of their own are looked for beside ggml's.
    pub ggml_device: Option<String>,
    /// What ggml's artifacts hold in place of `f32` matrices; without it ggml makes none. Only GGUF files
    /// are compiled.
    pub ggml_weights: Option<GgmlWeights>,
}

/// The type of the matrices in an artifact of ggml.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GgmlWeights {
    /// IEEE 754 binary16: half the bytes.
    F16,
    /// 8 bits each and a scale for 32: about a quarter of the bytes on disk. Matrices are multiplied as f16,
    /// so that nothing else is rounded to 8 bits.
    Q8_0,
    /// 4 bits each in blocks of 256; 5 bits (`Q5_0`) where a row does not fill such blocks.
    Q4K,
}

/// No type of weights has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no type of weights that is made; f16, q8_0 and q4_k are")]
pub struct UnknownWeights(pub String);

impl std::str::FromStr for GgmlWeights {
    type Err = UnknownWeights;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|weights| weights.name() == name);
        found.ok_or_else(|| UnknownWeights(name.to_owned()))
    }
}

impl GgmlWeights {
    /// All that are made.
    pub const ALL: [Self; 3] = [Self::F16, Self::Q8_0, Self::Q4K];

    /// Types in order of preference; a row takes the first whose blocks it fills.
    const fn dtypes(self) -> &'static [GgufType] {
        match self {
            Self::F16 => &[GgufType::F16],
            Self::Q8_0 => &[GgufType::Q8_0],
            Self::Q4K => &[GgufType::Q4_K, GgufType::Q5_0],
        }
    }

    /// As ggml's programs call it, in small letters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
            Self::Q4K => "q4_k",
        }
    }
}

/// The CPU backends in order of preference: ONNX Runtime, rten, ggml.
#[must_use]
pub fn backends(options: &CpuOptions) -> Vec<Arc<dyn Backend>> {
    vec![Arc::new(OnnxRuntime::new(options)), Arc::new(Rten::new()), Arc::new(Ggml::new(options))]
}

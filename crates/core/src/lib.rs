//! The core of Shapeyard: everything that needs no native library.
//!
//! * [`Tensor`], [`TensorView`]: a data type, a shape and bytes in host memory.
//! * [`Model`]: what an ONNX file says about itself, read without any runtime.
//! * [`Signature`]: inputs, outputs and symbols, and how a request binds them.
//! * [`backend`]: the trait that every engine implements: plan, compile, load, run.
//! * [`plan`]: what will run in which shapes, as data.
//! * [`registry`]: choosing a backend; the only place where one may stand in for another.
//! * [`router`]: an executable made of two: programs of fixed shapes, and who answers what they do not.
//! * [`engine`]: owner threads, a bounded queue and the async face.
//! * [`measure`]: what loads and runs of a model cost here.

pub mod backend;
mod dtype;
pub mod engine;
pub mod measure;
pub mod model;
pub mod plan;
mod recorder;
pub mod registry;
mod report;
pub mod router;
mod signature;
mod tensor;

pub use backend::{
    Backend, BackendExt, BackendId, Executable, Outputs, Request, RunError, Session,
};
pub use dtype::{DataType, UnknownDataType};
pub use model::Model;
pub use recorder::Recorder;
pub use report::{BindingMode, Fallback, FallbackReason, Route, RunReport, Sent, StageTimes, Tier};
pub use signature::{
    AxisSymbol, BindError, Binding, DeclareError, Dim, Extents, Signature, SymbolId, TensorSpec,
};
pub use tensor::{Element, Shape, Tensor, TensorError, TensorView, TensorViewMut, byte_len};

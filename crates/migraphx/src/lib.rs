//! The MIGraphX backend of Shapeyard: any shape on programs that each take one.
//!
//! MIGraphX compiles a model for fixed extents. This crate gives every [bucket](shapeyard_core::plan::Bucket)
//! a program, pads requests into the smallest that holds them, splits those that none holds, and cuts the
//! padding off the answers.
//!
//! * A compile runs in a supervised child process ([`WorkerProgram`]), under limits of time and memory.
//!   What the compiler says on stderr is the text of the error, since its C API has none.
//! * Before a compile the model is asked whether padding changes its answers; one that mixes its rows or
//!   looks at what its mask should hide is refused, by output and axis.
//! * No request waits for a compile unless [`LoadJob::on_demand`](shapeyard_core::backend::LoadJob) says so:
//!   a shape without a program is [`RunError::NotReady`](shapeyard_core::RunError::NotReady).
//! * Artifacts are checked byte for byte before the library sees them: it does not notice damage.
//!
//! # What is not guarded
//!
//! Indices that a request brings are checked before the library sees them. Those that a model computes itself
//! are not, and neither is the division of whole numbers: some builds of MIGraphX end the process on them.
//! Models that are not trusted belong into a process of their own.
//!
//! # What was verified on what
//!
//! Everything here is tested with MIGraphX 2.14 and its target `ref`, an interpreter on the CPU. No AMD GPU
//! was at hand: that programs for `gpu` compile and run is not verified, and the code for it follows
//! MIGraphX's source.
//!
//! # On a device
//!
//! Programs for `gpu` read and write memory of the device that is ours. The inputs of a request cross in one
//! copy, of which only real rows are part; a kernel puts them into their places and makes the padding. Each
//! session has a stream and its own graphs ([`Graphs`]); sessions that share a program run it one after the
//! other, and gather their inputs meanwhile. Programs that were not used for longest are unloaded where the
//! memory is needed ([`DeviceOptions::memory`]).
//!
//! Requests may lie on the device themselves: [`MigraphxBackend::load_programs`] gives sessions that run on
//! the caller's memory ([`MigraphxSession::run_on_device`]), in shapes that a program has exactly.
//!
//! # The end of the process
//!
//! `exit` waits until calls into MIGraphX that are under way are done, because it would crash otherwise. A
//! compile in this process ([`CompilePlace::this_process`]) is such a call; one in a worker is not.

mod backend;
mod compile;
mod device;
mod exact_path;
mod executable;
mod feed;
mod fill;
mod lane;
mod limits;
mod native;
mod options;
mod plan;
mod programs;
mod region;
mod roles;
mod session;
mod specialise;

use shapeyard_core::BackendId;

pub use backend::MigraphxBackend;
pub use compile::{WorkerProgram, worker};
pub use device::{DeviceTensor, DeviceTensorError};
pub use executable::MigraphxExecutable;
pub use limits::Limits;
pub use options::{
    CompileOptions, CompilePlace, Compiler, DeviceOptions, Graphs, InvalidPrecision,
    MigraphxOptions, Padding, PaddingPolicy, Precision, Quantisation, Storage, Target,
};
pub use session::{DeviceRunError, MigraphxSession};

/// The backend's name.
pub const ID: BackendId = BackendId::new("migraphx");

//! One session's own side of running programs: where inputs and outputs are meanwhile.
//!
//! Two ways, one seam: [`HostLane`] for targets on the CPU, [`DeviceLane`] for a GPU.

#![allow(unsafe_code, reason = "addresses of a device that is given work")]

mod binding;
mod device;
mod enqueue;
mod host;

use std::sync::Arc;

use hipgraph::Device;
use shapeyard_core::backend::Outputs;
use shapeyard_core::{BindingMode, Extents, Sent, StageTimes, TensorView};

pub(crate) use device::DeviceLane;
pub(crate) use host::HostLane;

use crate::feed::Rows;
use crate::programs::{BucketProgram, ProgramError};

/// A session's own side of running programs.
pub(crate) trait Lane: Send {
    /// Makes room for one more program; they are numbered in this order.
    fn bind(&mut self, program: &Arc<BucketProgram>) -> Result<(), ProgramError>;

    /// Runs a request, and puts the answer where it belongs in `outputs`, which are made already.
    fn run(
        &mut self,
        work: &Work<'_>,
        outputs: &mut Outputs,
        times: &mut StageTimes,
    ) -> Result<Served, ProgramError>;

    /// The device, where it is not the host's memory that programs use.
    fn device(&self) -> Option<&Device>;

    /// Runs a program on the caller's memory of [`Self::device`]: `addresses` of the program's inputs, then
    /// of its outputs.
    ///
    /// # Safety
    ///
    /// At every address lies memory of the device, as large as the program says. Outputs overlap nothing,
    /// and inputs are what the program expects.
    unsafe fn run_at(
        &mut self,
        bound: usize,
        program: &BucketProgram,
        addresses: &[usize],
        times: &mut StageTimes,
    ) -> Result<Served, ProgramError>;
}

/// A request, and the programs that answer it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work<'a> {
    /// All that the lane was bound to, in that order.
    pub(crate) programs: &'a [Arc<BucketProgram>],
    pub(crate) steps: &'a [Step],
    pub(crate) views: &'a [TensorView<'a>],
    pub(crate) request: &'a Extents,
}

/// A run of one program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// The position in [`Work::programs`].
    pub(crate) bound: usize,
    /// `None`: the whole request.
    pub(crate) rows: Option<Rows>,
}

impl<'a> Work<'a> {
    pub(crate) fn portion(&self, step: &Step) -> Portion<'a> {
        Portion { views: self.views, request: self.request, rows: step.rows }
    }
}

/// What one program takes of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portion<'a> {
    pub(crate) views: &'a [TensorView<'a>],
    pub(crate) request: &'a Extents,
    /// `None`: all of it.
    pub(crate) rows: Option<Rows>,
}

/// How a request was served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    pub(crate) binding: BindingMode,
    /// Whether every program was replayed.
    pub(crate) replayed: bool,
    pub(crate) sent: Sent,
}

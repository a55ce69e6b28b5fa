//! One session's own side of running programs: where inputs and outputs are meanwhile.
//!
//! Two ways, one seam: [`HostLane`] for targets on the CPU, [`DeviceLane`] for a GPU.

#![allow(unsafe_code, reason = "addresses of a device that is given work")]

mod device;
mod host;

use std::sync::Arc;

use hipgraph::Device;
use shapeyard_core::backend::Outputs;
use shapeyard_core::{BindingMode, Extents, StageTimes, TensorView};

pub(crate) use device::DeviceLane;
pub(crate) use host::HostLane;

use crate::feed::Rows;
use crate::programs::{BucketProgram, ProgramError};

/// A session's own side of running programs.
pub(crate) trait Lane: Send {
    /// Makes the lane's buffers for one more program; they are numbered in this order.
    fn bind(&mut self, program: &Arc<BucketProgram>) -> Result<(), ProgramError>;

    /// Runs a portion of a request in the program with the buffers `bound`, and puts the answer where it
    /// belongs in `outputs`, which are made already.
    fn run(
        &mut self,
        bound: usize,
        program: &BucketProgram,
        portion: &Portion<'_>,
        outputs: &mut Outputs,
        times: &mut StageTimes,
    ) -> Result<Served, ProgramError>;

    /// The device, where it is not the host's memory that programs use.
    fn device(&self) -> Option<&Device>;

    /// Runs the program on the caller's memory of [`Self::device`]: `addresses` of the program's inputs, then
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

/// What one program takes of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portion<'a> {
    pub(crate) views: &'a [TensorView<'a>],
    pub(crate) request: &'a Extents,
    /// `None`: all of it.
    pub(crate) rows: Option<Rows>,
}

/// How a portion was served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    pub(crate) binding: BindingMode,
    pub(crate) replayed: bool,
}

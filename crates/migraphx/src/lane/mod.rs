//! One session's own side of running programs: where inputs and outputs are meanwhile.
//!
//! Two ways, one seam: [`HostLane`] for targets on the CPU, [`DeviceLane`] for a GPU.

mod device;
mod host;

use std::sync::Arc;

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

//! Programs whose memory is the host's.

use std::sync::Arc;
use std::time::Instant;

use hipgraph::Device;
use shapeyard_core::backend::Outputs;
use shapeyard_core::{BindingMode, Sent, StageTimes};

use super::{Lane, Portion, Served, Work};
use crate::feed::FeedError;
use crate::native::Bindings;
use crate::programs::{BucketProgram, ProgramError};

/// A lane on the CPU: buffers that each program reads in place.
pub(crate) struct HostLane {
    number: usize,
    bound: Vec<Bindings>,
}

impl HostLane {
    pub(crate) const fn new(number: usize) -> Self {
        Self { number, bound: Vec::new() }
    }
}

impl HostLane {
    fn serve(
        &mut self,
        bound: usize,
        program: &BucketProgram,
        portion: &Portion<'_>,
        outputs: &mut Outputs,
        times: &mut StageTimes,
    ) -> Result<(), ProgramError> {
        let (bindings, feed) = (&mut self.bound[bound], &program.feed);
        let start = Instant::now();
        feed.fill(portion.views, portion.rows, bindings)?;
        let mut instance = program.instance(self.number);
        let loaded = instance.ready(program, 0)?;
        let filled = Instant::now();
        let run = loaded.run(bindings);
        let ran = Instant::now();
        let drained = run.map(|results| {
            let bytes = |index, shape: &_| results.bytes(index, shape);
            feed.drain(bytes, portion.request, portion.rows, outputs)
        });
        times.prepare += filled - start;
        times.run += ran - filled;
        times.finish += ran.elapsed();
        match drained {
            Ok(drained) => Ok(drained?),
            Err(error) => {
                instance.discard();
                Err(FeedError::from(error).into())
            }
        }
    }
}

impl Lane for HostLane {
    fn bind(&mut self, program: &Arc<BucketProgram>) -> Result<(), ProgramError> {
        let bindings = Bindings::new(program.library, &program.inputs).map_err(FeedError::from)?;
        self.bound.push(bindings);
        Ok(())
    }

    fn run(
        &mut self,
        work: &Work<'_>,
        outputs: &mut Outputs,
        times: &mut StageTimes,
    ) -> Result<Served, ProgramError> {
        for step in work.steps {
            let program = &work.programs[step.bound];
            self.serve(step.bound, program, &work.portion(step), outputs, times)?;
        }
        Ok(Served { binding: BindingMode::Staged, replayed: false, sent: Sent::default() })
    }

    fn device(&self) -> Option<&Device> {
        None
    }

    unsafe fn run_at(
        &mut self,
        _bound: usize,
        _program: &BucketProgram,
        _addresses: &[usize],
        _times: &mut StageTimes,
    ) -> Result<Served, ProgramError> {
        Err(FeedError::Mismatch("programs on the host have no device".to_owned()).into())
    }
}

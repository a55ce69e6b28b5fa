//! One lane through a model that ONNX Runtime has loaded.

use std::sync::Arc;
use std::time::Instant;

use ort::memory::Allocator;
use ort::session::{
    HasSelectedOutputs, OutputSelector, RunOptions, Session as Lane, SessionInputValue,
    SessionOutputs,
};
use ort::value::DynTensor;
use shapeyard_core::backend::{Outputs, Request, RunError, Session};
use shapeyard_core::{RunReport, Signature, StageTimes, Tensor, TensorView, Tier};
use smallvec::SmallVec;

use super::{ID, convert};
use crate::dynamic::LastShapes;

/// Inputs that most models have at most; more of them go to the heap.
type Few<T> = SmallVec<[T; 6]>;

/// An ONNX Runtime session and what it keeps between runs.
pub(super) struct OrtSession {
    lane: Lane,
    signature: Arc<Signature>,
    last: LastShapes,
    /// Output tensors of the last shape, made when a shape comes twice in a row and written by every
    /// further run of it.
    kept: Option<RunOptions<HasSelectedOutputs>>,
}

impl OrtSession {
    pub(super) fn new(lane: Lane, signature: Arc<Signature>) -> Self {
        Self { lane, signature, last: LastShapes::default(), kept: None }
    }

    fn run_lane(
        &mut self,
        inputs: &[SessionInputValue<'_>],
        again: bool,
        outputs: &mut Outputs,
        times: &mut StageTimes,
    ) -> ort::Result<()> {
        if let Some(kept) = &self.kept {
            let start = Instant::now();
            if let Ok(values) = self.lane.run_with_options(inputs, kept) {
                times.run = start.elapsed();
                return timed_finish(&values, &self.signature, outputs, times);
            }
            // An output's shape may follow from values too; then those kept do not fit.
            self.kept = None;
        }
        let start = Instant::now();
        let values = self.lane.run(inputs)?;
        times.run = start.elapsed();
        timed_finish(&values, &self.signature, outputs, times)?;
        drop(values);
        if again {
            self.kept = keep(&self.signature, outputs.tensors());
        }
        Ok(())
    }
}

impl Session for OrtSession {
    fn run(&mut self, request: &Request<'_>, outputs: &mut Outputs) -> Result<RunReport, RunError> {
        request.check_bound_to(&self.signature)?;
        let start = Instant::now();
        let again = self.last.replace(request.inputs());
        if !again {
            self.kept = None;
        }
        let copies: Few<Option<Tensor>> =
            request.inputs().iter().map(|view| convert::copy_if_needed(*view)).collect();
        let inputs = inputs(request.inputs(), &copies).map_err(|error| failed(&error))?;
        let mut times = StageTimes { prepare: start.elapsed(), ..StageTimes::default() };
        if let Err(error) = self.run_lane(&inputs, again, outputs, &mut times) {
            self.last.forget();
            return Err(failed(&error));
        }
        let tier = if again { Tier::Rebind } else { Tier::Cached };
        Ok(RunReport::exact_on_host(ID, tier, times))
    }
}

fn failed(error: &ort::Error) -> RunError {
    RunError::Library { backend: ID, message: error.to_string() }
}

fn inputs<'a>(
    views: &'a [TensorView<'a>],
    copies: &'a [Option<Tensor>],
) -> ort::Result<Few<SessionInputValue<'a>>> {
    let readable = |(view, copy): (&'a TensorView<'a>, &'a Option<Tensor>)| {
        copy.as_ref().map_or(*view, Tensor::view)
    };
    views.iter().zip(copies).map(|pair| convert::input(readable(pair))).collect()
}

fn timed_finish(
    values: &SessionOutputs<'_>,
    signature: &Signature,
    outputs: &mut Outputs,
    times: &mut StageTimes,
) -> ort::Result<()> {
    let start = Instant::now();
    let slots = outputs.slots(signature.outputs.len());
    for (n, (spec, slot)) in signature.outputs.iter().zip(slots).enumerate() {
        convert::output(&values[n], spec.dtype, slot)?;
    }
    times.finish = start.elapsed();
    Ok(())
}

/// Output tensors like `tensors`, for runs to write to. That they cannot be made costs time only.
fn keep(signature: &Signature, tensors: &[Tensor]) -> Option<RunOptions<HasSelectedOutputs>> {
    let allocator = Allocator::default();
    let mut selector = OutputSelector::default();
    for (spec, tensor) in signature.outputs.iter().zip(tensors) {
        let dtype = convert::element_type(spec.dtype)?;
        let value = DynTensor::new(&allocator, dtype, tensor.shape()).ok()?;
        selector = selector.preallocate(&spec.name, value);
    }
    Some(RunOptions::new().ok()?.with_outputs(selector))
}

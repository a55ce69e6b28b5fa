//! A lane as the core sees it.

use std::sync::Arc;

use shapeyard_core::backend::{Outputs, Request, RunError, Session};
use shapeyard_core::{Dim, RunReport, Signature, StageTimes, Tensor, TensorSpec, TensorView, Tier};

use super::ID;
use crate::dynamic;

/// What computes requests that have elements.
pub(crate) trait Lane: Send {
    /// Fills a slot for each output.
    fn run(
        &mut self,
        inputs: &[TensorView<'_>],
        slots: &mut [Tensor],
    ) -> Result<(Tier, StageTimes), String>;
}

/// A lane, and what it takes and gives.
pub(crate) struct GgmlSession {
    lane: Box<dyn Lane>,
    signature: Arc<Signature>,
}

impl GgmlSession {
    pub(crate) fn new(lane: Box<dyn Lane>, signature: Arc<Signature>) -> Self {
        Self { lane, signature }
    }

    /// The answer to a request without elements, which ggml does not take.
    fn empty(&self, request: &Request<'_>, outputs: &mut Outputs) -> Result<(), RunError> {
        let slots = outputs.slots(self.signature.outputs.len());
        for (spec, slot) in self.signature.outputs.iter().zip(slots) {
            let shape = empty_shape(spec, request).ok_or_else(|| RunError::Empty {
                symbol: self.empty_symbol(request),
                output: spec.name.clone(),
            })?;
            slot.reset(spec.dtype, &shape).map_err(|error| failed(error.to_string()))?;
        }
        Ok(())
    }

    fn empty_symbol(&self, request: &Request<'_>) -> String {
        let symbols = self.signature.inputs.iter().flat_map(|spec| spec.shape.iter().flatten());
        let empty = symbols.filter_map(|dim| match *dim {
            Dim::Symbol(symbol) if request.extents().get(symbol) == Some(0) => Some(symbol),
            _ => None,
        });
        let first = empty.map(|symbol| self.signature.symbol_name(symbol).to_owned()).next();
        first.unwrap_or_else(|| "an axis without a name".to_owned())
    }
}

/// The shape of an output without elements; `None` if it has some, or has axes that only a run tells.
fn empty_shape(spec: &TensorSpec, request: &Request<'_>) -> Option<Vec<usize>> {
    let extent = |dim: &Dim| match *dim {
        Dim::Fixed(extent) => Some(extent),
        Dim::Symbol(symbol) => request.extents().get(symbol),
        Dim::Unnamed => None,
    };
    let shape: Vec<usize> = spec.shape.as_ref()?.iter().map(extent).collect::<Option<_>>()?;
    shape.contains(&0).then_some(shape)
}

impl Session for GgmlSession {
    fn run(&mut self, request: &Request<'_>, outputs: &mut Outputs) -> Result<RunReport, RunError> {
        request.check_bound_to(&self.signature)?;
        if request.inputs().iter().any(|view| view.shape().contains(&0)) {
            self.empty(request, outputs)?;
            return Ok(RunReport::exact_on_host(ID, Tier::Cached, StageTimes::default()));
        }
        let slots = outputs.slots(self.signature.outputs.len());
        let run = dynamic::caught(|| self.lane.run(request.inputs(), slots)).flatten();
        let (tier, times) = run.map_err(failed)?;
        Ok(RunReport::exact_on_host(ID, tier, times))
    }
}

fn failed(message: String) -> RunError {
    RunError::Library { backend: ID, message }
}

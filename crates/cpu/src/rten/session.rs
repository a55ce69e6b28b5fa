//! One lane through a model that rten has loaded.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use rten::{RunOptions, ThreadPool, Value, ValueOrView};
use shapeyard_core::backend::{Outputs, Request, RunError, Session};
use shapeyard_core::{DataType, RunReport, Signature, StageTimes, TensorView, Tier};

use super::ID;
use super::convert::{self, Unfit};
use super::executable::LoadedGraph;
use crate::dynamic::{self, LastShapes};

/// A lane: threads of its own and buffers for inputs that are converted.
#[derive(Debug)]
pub(super) struct RtenSession {
    graph: Arc<LoadedGraph>,
    signature: Arc<Signature>,
    /// One thread also has a pool: without, the engine would use one that spans all cores.
    threads: Arc<ThreadPool>,
    converted: Vec<convert::Converted>,
    last: LastShapes,
}

impl RtenSession {
    pub(super) fn new(
        graph: Arc<LoadedGraph>,
        signature: Arc<Signature>,
        n_threads: NonZeroUsize,
    ) -> Self {
        let threads = Arc::new(ThreadPool::with_num_threads(n_threads.get()));
        let converted = signature.inputs.iter().map(|_| convert::Converted::default()).collect();
        Self { graph, signature, threads, converted, last: LastShapes::default() }
    }

    fn convert(&mut self, inputs: &[TensorView<'_>]) -> Result<(), RunError> {
        for ((spec, view), converted) in
            self.signature.inputs.iter().zip(inputs).zip(&mut self.converted)
        {
            converted.fill(*view).map_err(|unfit| refused(&spec.name, unfit))?;
        }
        Ok(())
    }

    fn values(&self, inputs: &[TensorView<'_>]) -> Result<Vec<Value>, String> {
        let mut named = Vec::with_capacity(inputs.len());
        for ((&id, view), converted) in self.graph.inputs.iter().zip(inputs).zip(&self.converted) {
            named.push((id, ValueOrView::from(converted.value(*view)?)));
        }
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(&self.threads)));
        let run = || self.graph.graph.run(named, &self.graph.outputs, Some(options));
        dynamic::caught(run)?.map_err(|error| error.to_string())
    }

    fn take(&self, values: &[Value], outputs: &mut Outputs) -> Result<(), String> {
        let slots = outputs.slots(self.signature.outputs.len());
        for ((spec, value), slot) in self.signature.outputs.iter().zip(values).zip(slots) {
            convert::output(value, spec.dtype, slot)
                .map_err(|reason| format!("output `{}` {reason}", spec.name))?;
        }
        Ok(())
    }

    fn run_stages(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut Outputs,
    ) -> Result<StageTimes, RunError> {
        let start = Instant::now();
        self.convert(inputs)?;
        let prepare = start.elapsed();
        let start = Instant::now();
        let values = self.values(inputs).map_err(failed)?;
        let run = start.elapsed();
        let start = Instant::now();
        self.take(&values, outputs).map_err(failed)?;
        Ok(StageTimes { prepare, run, finish: start.elapsed() })
    }
}

impl Session for RtenSession {
    fn run(&mut self, request: &Request<'_>, outputs: &mut Outputs) -> Result<RunReport, RunError> {
        request.check_bound_to(&self.signature)?;
        let again = self.last.replace(request.inputs());
        let times =
            self.run_stages(request.inputs(), outputs).inspect_err(|_| self.last.forget())?;
        let tier = if again { Tier::Rebind } else { Tier::Cached };
        Ok(RunReport::exact_on_host(ID, tier, times))
    }
}

fn refused(input: &str, unfit: Unfit) -> RunError {
    match unfit {
        Unfit::TooWide { at, value } => RunError::Unrepresentable {
            backend: ID,
            input: input.to_owned(),
            at,
            value,
            computes_in: DataType::I32,
        },
        Unfit::Other(reason) => failed(format!("input `{input}` {reason}")),
    }
}

fn failed(message: String) -> RunError {
    RunError::Library { backend: ID, message }
}

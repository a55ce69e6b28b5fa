//! A device that this machine does not have: programs of fixed shapes, each loaded for itself, that run padding
//! like anything else. What runs in them is a CPU backend.

use std::collections::BTreeMap;
use std::sync::Arc;

use shapeyard_core::backend::{
    Artifact, Backend, BackendError, BackendId, Capabilities, CompileJob, Domain, Executable,
    LoadJob, Optimisation, Outputs, Probe, Recipe, Request, RunError, Session, SessionOptions,
};
use shapeyard_core::plan::{Batch, Plan, PlanOptions, Totals, Workload};
use shapeyard_core::{Model, RunReport, Signature, Tensor, TensorError, TensorView};

/// The batches that were planned, whoever asks.
pub(super) struct Planned {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) batches: Vec<Batch>,
}

impl Backend for Planned {
    fn id(&self) -> BackendId {
        self.backend.id()
    }

    fn capabilities(&self) -> Capabilities {
        self.backend.capabilities()
    }

    fn probe(&self) -> Probe {
        self.backend.probe()
    }

    fn plan(&self, _: &Model, _: &Workload, _: &PlanOptions) -> Result<Plan, BackendError> {
        let (buckets, totals) = (Vec::new(), Totals::default());
        Ok(Plan { backend: self.id(), buckets, batches: self.batches.clone(), totals })
    }

    fn recipe(&self, optimisation: Optimisation) -> Result<Recipe, BackendError> {
        self.backend.recipe(optimisation)
    }

    fn compile(&self, job: &CompileJob<'_>) -> Result<Artifact, BackendError> {
        self.backend.compile(job)
    }

    fn load(&self, job: &LoadJob<'_>) -> Result<Arc<dyn Executable>, BackendError> {
        self.backend.load(job)
    }
}

/// Programs by length and rows.
type Programs<T> = BTreeMap<(usize, usize), T>;

/// Loads of one model, one for each shape.
pub(super) struct FixedShapes {
    backend: BackendId,
    signature: Arc<Signature>,
    programs: Programs<Arc<dyn Executable>>,
}

impl FixedShapes {
    /// Loads a program for each pair of a length and rows; there has to be one.
    pub(super) fn load(
        backend: &dyn Backend,
        job: &LoadJob<'_>,
        shapes: impl IntoIterator<Item = (usize, usize)>,
    ) -> Result<Self, BackendError> {
        let load = |shape| backend.load(job).map(|it| (shape, it));
        let programs: Programs<_> = shapes.into_iter().map(load).collect::<Result<_, _>>()?;
        let signature = Arc::new(job.model.signature().clone());
        Ok(Self { backend: backend.id(), signature, programs })
    }
}

impl Executable for FixedShapes {
    fn backend(&self) -> BackendId {
        self.backend.clone()
    }

    fn signature(&self) -> &Arc<Signature> {
        &self.signature
    }

    fn domain(&self) -> Domain {
        Domain::Any
    }

    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, BackendError> {
        let session = |(&shape, it): (_, &Arc<dyn Executable>)| Ok((shape, it.session(options)?));
        let programs = self.programs.iter().map(session).collect::<Result<_, BackendError>>()?;
        let signature = Arc::clone(&self.signature);
        Ok(Box::new(FixedSession {
            backend: self.backend(),
            signature,
            programs,
            padded: Vec::new(),
        }))
    }

    fn admit(&self, _: &Artifact) -> Result<(), BackendError> {
        Err(BackendError::Unsupported { backend: self.backend(), what: "take more programs" })
    }
}

/// One session of each program.
struct FixedSession {
    backend: BackendId,
    signature: Arc<Signature>,
    programs: Programs<Box<dyn Session>>,
    padded: Vec<Tensor>,
}

impl Session for FixedSession {
    fn run(&mut self, request: &Request<'_>, outputs: &mut Outputs) -> Result<RunReport, RunError> {
        let shape = request.inputs().first().map_or(&[][..], TensorView::shape);
        let &[n_rows, length] = shape else { return Err(RunError::ForeignRequest) };
        let held = self.programs.range_mut((length, n_rows)..(length + 1, 0)).next();
        let Some((&(_, rows), session)) = held else { return Err(RunError::ForeignRequest) };
        let failed = |error: TensorError| RunError::Library {
            backend: self.backend.clone(),
            message: error.to_string(),
        };
        pad(&mut self.padded, request.inputs(), rows).map_err(failed)?;
        let views: Vec<TensorView<'_>> = self.padded.iter().map(Tensor::view).collect();
        let report = session.run(&Request::bind(&self.signature, &views)?, outputs)?;
        for output in outputs.slots(self.signature.outputs.len()) {
            cut(output, n_rows).map_err(failed)?;
        }
        Ok(report)
    }
}

/// Fills up to `rows` rows with copies of the last one.
fn pad(to: &mut Vec<Tensor>, inputs: &[TensorView<'_>], rows: usize) -> Result<(), TensorError> {
    to.resize_with(inputs.len(), Tensor::empty);
    for (padded, input) in to.iter_mut().zip(inputs) {
        let n_rows = input.shape().first().copied().unwrap_or(0).max(1);
        let mut shape = input.shape().to_vec();
        shape[0] = rows;
        padded.reset(input.dtype(), &shape)?;
        let (real, rest) = padded.bytes_mut().split_at_mut(input.bytes().len());
        real.copy_from_slice(input.bytes());
        let n_row_bytes = input.bytes().len() / n_rows;
        let last = &input.bytes()[(n_rows - 1) * n_row_bytes..];
        rest.chunks_exact_mut(n_row_bytes.max(1)).for_each(|row| row.copy_from_slice(last));
    }
    Ok(())
}

/// Keeps the first rows.
fn cut(output: &mut Tensor, n_rows: usize) -> Result<(), TensorError> {
    let mut shape = output.shape().to_vec();
    let rows = shape[0].max(1);
    if n_rows < rows {
        shape[0] = n_rows;
        let n_bytes = output.bytes().len() / rows * n_rows;
        *output = Tensor::from_bytes(output.dtype(), &shape, &output.bytes()[..n_bytes])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_filled_up_with_the_last_and_cut_off_again() {
        let real = Tensor::from_slice(&[2, 3], &[1_i64, 2, 3, 4, 5, 6]).unwrap();
        let mut padded = Vec::new();
        pad(&mut padded, &[real.view()], 4).unwrap();
        let wanted = [1, 2, 3, 4, 5, 6, 4, 5, 6, 4, 5, 6];
        assert_eq!(padded[0].as_slice::<i64>().unwrap(), wanted);
        cut(&mut padded[0], 2).unwrap();
        assert_eq!(padded[0], real);
    }
}

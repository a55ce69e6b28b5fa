//! Programs in memory: one for each bucket, in as many instances as were asked for.

use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use shapeyard_core::backend::{Artifact, BackendError, Outputs};
use shapeyard_core::plan::Bucket;
use shapeyard_core::{Extents, Signature, StageTimes, SymbolId, TensorView};

use crate::ID;
use crate::compile::Traits;
use crate::feed::{Feed, FeedError, Rows};
use crate::native::{Bindings, Migraphx, Program, ValueShape};
use crate::options::{Padding, Target};
use crate::roles;

/// What every program of an executable shares.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) library: &'static Migraphx,
    pub(crate) target: Target,
    pub(crate) signature: &'a Signature,
    pub(crate) padding: &'a Padding,
    pub(crate) rows: Option<SymbolId>,
}

/// A loaded program of one bucket.
#[derive(Debug)]
pub(crate) struct BucketProgram {
    pub(crate) bucket: Bucket,
    pub(crate) extents: Extents,
    pub(crate) feed: Feed,
    /// Whether a row's answer is the same wherever it stands, and can be put together with others.
    pub(crate) can_split: bool,
    inputs: Vec<(String, ValueShape)>,
    library: &'static Migraphx,
    target: Target,
    artifact: Artifact,
    instances: Vec<Mutex<Instance>>,
}

/// One copy of a program. Runs of one copy never overlap, since they share its scratch memory.
#[derive(Debug)]
struct Instance {
    /// `None` after a run that failed: some releases leave a program unusable then, so it is loaded anew.
    program: Option<Program>,
}

/// Why a run gave nothing.
#[derive(Debug)]
pub(crate) enum ProgramError {
    Feed(FeedError),
    Reload(BackendError),
}

impl From<FeedError> for ProgramError {
    fn from(error: FeedError) -> Self {
        Self::Feed(error)
    }
}

impl BucketProgram {
    /// Checks the artifact's file byte for byte, and loads it `n` times.
    pub(crate) fn load(
        setting: &Setting<'_>,
        artifact: &Artifact,
        n: usize,
    ) -> Result<Self, BackendError> {
        let damaged =
            |reason: String| BackendError::Artifact { path: artifact.payload.clone(), reason };
        let traits = Traits::of(&artifact.notes).map_err(damaged)?;
        let roles = roles::resolved(setting.signature, &traits.roles)
            .map_err(|symbol| damaged(format!("the model has no symbol `{symbol}`")))?;
        crate::specialise::check_bucket(setting.signature, &artifact.bucket).map_err(damaged)?;
        let extents = setting.signature.extents(&artifact.bucket);
        let first = load(setting.library, setting.target, artifact)?;
        let inputs = first.inputs().map_err(|error| damaged(error.to_string()))?;
        let outputs = first.outputs().map_err(|error| damaged(error.to_string()))?;
        let feed = Feed::new(
            setting.signature,
            &extents,
            setting.padding,
            setting.rows,
            (&inputs, &outputs),
            &roles,
        )
        .map_err(|error| damaged(error.to_string()))?;
        let mut instances = vec![instance(first)];
        for _ in 1..n {
            instances.push(instance(load(setting.library, setting.target, artifact)?));
        }
        Ok(Self {
            bucket: artifact.bucket.clone(),
            extents,
            can_split: traits.can_split && feed.can_split(),
            feed,
            inputs,
            library: setting.library,
            target: setting.target,
            artifact: artifact.clone(),
            instances,
        })
    }

    /// Buffers for one session.
    pub(crate) fn bindings(&self) -> Result<Bindings, FeedError> {
        Ok(Bindings::new(self.library, &self.inputs)?)
    }

    /// Runs some rows of a request, or all of it, and puts the answer where it belongs in `outputs`.
    pub(crate) fn run(
        &self,
        lane: usize,
        bindings: &mut Bindings,
        (views, request): (&[TensorView<'_>], &Extents),
        rows: Option<Rows>,
        outputs: &mut Outputs,
        times: &mut StageTimes,
    ) -> Result<(), ProgramError> {
        let start = Instant::now();
        self.feed.fill(views, rows, bindings)?;
        let mut instance = self.instance(lane);
        let program = instance.ready(self)?;
        let filled = Instant::now();
        let run = program.run(bindings);
        let ran = Instant::now();
        let drained = run.map(|results| self.feed.drain(&results, request, rows, outputs));
        times.prepare += filled - start;
        times.run += ran - filled;
        times.finish += ran.elapsed();
        match drained {
            Ok(drained) => Ok(drained?),
            Err(error) => {
                instance.program = None;
                Err(FeedError::from(error).into())
            }
        }
    }

    fn instance(&self, lane: usize) -> MutexGuard<'_, Instance> {
        // There is always a first one.
        let instance = &self.instances[lane % self.instances.len()];
        instance.lock().unwrap_or_else(|poisoned| {
            // A thread died in the middle of a run; nobody knows in what state the program is.
            instance.clear_poison();
            let mut held = poisoned.into_inner();
            held.program = None;
            held
        })
    }
}

impl Instance {
    fn ready(&mut self, of: &BucketProgram) -> Result<&mut Program, ProgramError> {
        match &mut self.program {
            Some(program) => Ok(program),
            empty @ None => {
                let program =
                    load(of.library, of.target, &of.artifact).map_err(ProgramError::Reload)?;
                Ok(empty.insert(program))
            }
        }
    }
}

const fn instance(program: Program) -> Mutex<Instance> {
    Mutex::new(Instance { program: Some(program) })
}

/// The library notices no damage and crashes on some, so it never sees a file that was not checked.
fn load(
    library: &'static Migraphx,
    target: Target,
    artifact: &Artifact,
) -> Result<Program, BackendError> {
    artifact.verify()?;
    Program::load(library, target, &artifact.payload).map_err(|error| BackendError::Library {
        backend: ID,
        what: "load a program",
        message: error.to_string(),
    })
}

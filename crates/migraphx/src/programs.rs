//! Programs in memory: one for each bucket, in as many instances as were asked for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hip_sys::{Fault, HipError};
use hipgraph::{Event, LedgerError, Stream};
use shapeyard_core::backend::{Artifact, BackendError};
use shapeyard_core::plan::Bucket;
use shapeyard_core::{Extents, Signature, SymbolId};

use crate::ID;
use crate::compile::Traits;
use crate::device::{Account, GiveUp, Gpu, Kept, Patience};
use crate::feed::{Feed, FeedError};
use crate::native::{Migraphx, NativeError, Program, ValueShape};
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
    /// Where the program's copies go in turn; none for the host.
    pub(crate) gpus: &'a [Arc<Gpu>],
}

/// A loaded program of one bucket.
#[derive(Debug)]
pub(crate) struct BucketProgram {
    pub(crate) bucket: Bucket,
    pub(crate) extents: Extents,
    pub(crate) feed: Feed,
    /// Whether a row's answer is the same wherever it stands, and can be put together with others.
    pub(crate) can_split: bool,
    pub(crate) inputs: Vec<(String, ValueShape)>,
    /// The parameters that say where outputs belong, on a device: each with the output's position.
    pub(crate) output_places: Vec<(usize, String, ValueShape)>,
    pub(crate) library: &'static Migraphx,
    target: Target,
    artifact: Artifact,
    copies: Vec<Copy>,
}

/// One copy of a program, and its account on a device.
#[derive(Debug)]
struct Copy {
    instance: Arc<Mutex<Instance>>,
    account: Option<Account>,
}

/// One copy of a program. Runs of one copy never overlap, since they share its scratch memory.
#[derive(Debug)]
pub(crate) struct Instance {
    /// `None` after a run that failed: some releases leave a program unusable then. Also when its memory
    /// was needed. It is loaded anew.
    program: Option<Program>,
    generation: u64,
    side: Option<Side>,
}

/// What a program on a device has beside it.
#[derive(Debug)]
struct Side {
    gpu: Arc<Gpu>,
    /// Marks the end of the last run.
    ended: Event,
    /// Where that was, so that the same stream need not wait for itself.
    last: Option<Stream>,
}

/// Why a run gave nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    #[error(transparent)]
    Feed(#[from] FeedError),
    #[error("the program for {wanted} cannot be loaded again")]
    Reload { wanted: Bucket, source: BackendError },
    #[error(transparent)]
    Hip(#[from] HipError),
    #[error(transparent)]
    Memory(#[from] LedgerError),
}

impl From<hipgraph::RunError<FeedError>> for ProgramError {
    fn from(error: hipgraph::RunError<FeedError>) -> Self {
        match error {
            hipgraph::RunError::Work(error) => Self::Feed(error),
            hipgraph::RunError::Hip(error) => Self::Hip(error),
            other => Self::Feed(FeedError::Mismatch(other.to_string())),
        }
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
        let (first, Shapes { inputs, outputs, output_places }) = Copy::load(setting, artifact, 0)?;
        let feed = Feed::new(
            setting.signature,
            &extents,
            setting.padding,
            setting.rows,
            (&inputs, &outputs),
            &roles,
        )
        .map_err(|error| damaged(error.to_string()))?;
        let mut copies = vec![first];
        for number in 1..n {
            copies.push(Copy::load(setting, artifact, number)?.0);
        }
        Ok(Self {
            bucket: artifact.bucket.clone(),
            extents,
            can_split: traits.can_split && feed.can_split(),
            feed,
            inputs,
            output_places,
            library: setting.library,
            target: setting.target,
            artifact: artifact.clone(),
            copies,
        })
    }

    /// The instance that a lane runs, alone while it has it.
    pub(crate) fn instance(&self, lane: usize) -> MutexGuard<'_, Instance> {
        self.copy(lane).instance.lock().unwrap_or_else(|poisoned| {
            // A thread died in the middle of a run; nobody knows in what state the program is.
            self.copy(lane).instance.clear_poison();
            let mut held = poisoned.into_inner();
            held.discard();
            held
        })
    }

    /// The account of a lane's instance; none where it is in the host's memory.
    pub(crate) fn account(&self, lane: usize) -> Option<&Account> {
        self.copy(lane).account.as_ref()
    }

    fn copy(&self, lane: usize) -> &Copy {
        // There is always a first one.
        &self.copies[lane % self.copies.len()]
    }
}

impl Copy {
    fn load(
        setting: &Setting<'_>,
        artifact: &Artifact,
        number: usize,
    ) -> Result<(Self, Shapes), BackendError> {
        let gpu = setting.gpus.get(number % setting.gpus.len().max(1));
        if let Some(gpu) = gpu {
            return Self::load_on(gpu, setting, artifact);
        }
        let program = load(setting.library, setting.target, artifact)?;
        let shapes = Shapes::of(&program, artifact)?;
        let instance = Arc::new(Mutex::new(Instance::new(program, None)));
        Ok((Self { instance, account: None }, shapes))
    }

    fn load_on(
        gpu: &Arc<Gpu>,
        setting: &Setting<'_>,
        artifact: &Artifact,
    ) -> Result<(Self, Shapes), BackendError> {
        let account = gpu.memory().account(artifact.n_bytes);
        let _pinned = gpu.device().pin().map_err(device_failed)?;
        // Where it turns out not to fit beside what runs are using, it is loaded again once there is room for
        // the size that it turned out to have.
        let loaded = match measured_load(gpu, setting, artifact, &account)? {
            Err(LedgerError::InUse { .. }) => measured_load(gpu, setting, artifact, &account)?,
            loaded => loaded,
        };
        let (kept, program) = loaded.map_err(no_room)?;
        let shapes = Shapes::of(&program, artifact)?;
        let ended = Event::new(gpu.device()).map_err(device_failed)?;
        let side = Side { gpu: Arc::clone(gpu), ended, last: None };
        let instance = Arc::new(Mutex::new(Instance::new(program, Some(side))));
        let owner: Arc<dyn GiveUp> = Arc::<Mutex<Instance>>::clone(&instance);
        account.belongs_to(Arc::downgrade(&owner));
        drop(kept);
        Ok((Self { instance, account: Some(account) }, shapes))
    }
}

/// Loads a program whose size on the device is not known before. Nothing is left of one that does not fit.
fn measured_load(
    gpu: &Gpu,
    setting: &Setting<'_>,
    artifact: &Artifact,
    account: &Account,
) -> Result<Result<(Kept, Program), LedgerError>, BackendError> {
    let memory = gpu.memory();
    let kept = match memory.keep([Some(account), None], Patience::Wait) {
        Ok(kept) => kept,
        Err(error) => return Ok(Err(error)),
    };
    let expected = account.n_bytes();
    let ask = || {
        let before = memory.free().map_err(device_failed)?;
        let program = load(setting.library, setting.target, artifact)?;
        let after = memory.free().map_err(device_failed)?;
        Ok((program, before.saturating_sub(after)))
    };
    let (program, taken) = memory.take(ask, |_: &BackendError| gpu.is_short_of(expected))?;
    memory.count_load();
    let n_bytes = taken.max(expected);
    account.set_n_bytes(n_bytes);
    if let Err(error) = account.grow(n_bytes - expected) {
        drop(program);
        account.close();
        return Ok(Err(error));
    }
    Ok(Ok((kept, program)))
}

fn no_room(error: LedgerError) -> BackendError {
    BackendError::DeviceMemory { backend: ID, reason: error.to_string() }
}

#[allow(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
fn device_failed(error: HipError) -> BackendError {
    match error.fault {
        Fault::OutOfMemory => BackendError::DeviceMemory { backend: ID, reason: error.to_string() },
        _ => BackendError::Library {
            backend: ID,
            what: "use the device",
            message: error.to_string(),
        },
    }
}

/// What a program takes and gives.
struct Shapes {
    inputs: Vec<(String, ValueShape)>,
    outputs: Vec<ValueShape>,
    output_places: Vec<(usize, String, ValueShape)>,
}

impl Shapes {
    fn of(program: &Program, artifact: &Artifact) -> Result<Self, BackendError> {
        let shapes = || {
            let (inputs, outputs) = (program.inputs()?, program.outputs()?);
            Ok::<_, NativeError>(Self { inputs, outputs, output_places: program.output_places()? })
        };
        shapes().map_err(|error| BackendError::Artifact {
            path: artifact.payload.clone(),
            reason: error.to_string(),
        })
    }
}

impl Instance {
    const fn new(program: Program, side: Option<Side>) -> Self {
        Self { program: Some(program), generation: 0, side }
    }

    /// The program, loaded anew if it was given up. Whoever calls keeps its account, if it has one.
    pub(crate) fn ready(&mut self, of: &BucketProgram) -> Result<&mut Program, ProgramError> {
        match &mut self.program {
            Some(program) => Ok(program),
            empty @ None => {
                let program = load_again(of, self.side.as_ref())?;
                self.generation += 1;
                Ok(empty.insert(program))
            }
        }
    }

    /// Counts up when the program is loaded anew.
    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    /// Lets a stream wait for the last run, if that is on another.
    pub(crate) fn wait_for_last(&self, stream: &Stream) -> Result<(), HipError> {
        match &self.side {
            Some(Side { last: Some(last), ended, .. }) if !last.is_same(stream) => {
                stream.wait(ended)
            }
            _ => Ok(()),
        }
    }

    /// Marks the end of what was given to a stream.
    pub(crate) fn mark_end(&mut self, stream: &Stream) -> Result<(), HipError> {
        let Some(side) = &mut self.side else { return Ok(()) };
        side.ended.record(stream)?;
        if side.last.as_ref().is_none_or(|last| !last.is_same(stream)) {
            side.last = Some(stream.clone());
        }
        Ok(())
    }

    /// Gives the program up, after its last run.
    pub(crate) fn discard(&mut self) {
        let Some(side) = &self.side else {
            self.program = None;
            return;
        };
        // A device that is lost runs nothing any more.
        let _lost = side.ended.synchronize();
        let _pinned = side.gpu.device().pin();
        self.program = None;
    }
}

impl GiveUp for Mutex<Instance> {
    fn give_up(&self) {
        self.lock().unwrap_or_else(PoisonError::into_inner).discard();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.discard();
    }
}

/// Loads a program that has been here before.
fn load_again(of: &BucketProgram, side: Option<&Side>) -> Result<Program, ProgramError> {
    let load = || load(of.library, of.target, &of.artifact);
    let loaded = match side {
        None => load(),
        Some(Side { gpu, .. }) => {
            let _pinned = gpu.device().pin()?;
            gpu.memory().count_load();
            gpu.memory().take(load, |_| gpu.is_short_of(of.artifact.n_bytes))
        }
    };
    loaded.map_err(|source| ProgramError::Reload { wanted: of.bucket.clone(), source })
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

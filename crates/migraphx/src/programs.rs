//! Programs in memory: one for each bucket, in as many instances as were asked for.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hip_sys::{Fault, HipError};
use hipgraph::{Event, LedgerError, Stamp, Stream, hold_off_captures};
use shapeyard_core::backend::{Artifact, BackendError};
use shapeyard_core::plan::Bucket;
use shapeyard_core::{Extents, Signature, SymbolId};

use crate::ID;
use crate::compile::Traits;
use crate::device::{Account, GiveUp, Gpu, Kept, Layouts, Patience};
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
    /// Goes last: the bytes are free in the account once they are on the device.
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
    /// Where the last run was given to the device.
    last: Option<Stamp>,
    /// Marks the end of the last run, where other lanes run this copy too: the device waits for it.
    ended: Event,
    is_marked: bool,
    n_lanes: usize,
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
        let program = Self {
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
        };
        program.check_room(setting.gpus)?;
        Ok(program)
    }

    /// A program that fits, but not with its buffers, would fail every request.
    fn check_room(&self, gpus: &[Arc<Gpu>]) -> Result<(), BackendError> {
        for (copy, gpu) in self.copies.iter().zip(gpus.iter().cycle()) {
            let layouts = Layouts::of(gpu, self).map_err(|error| BackendError::Artifact {
                path: self.artifact.payload.clone(),
                reason: error.to_string(),
            })?;
            let program = copy.account.as_ref().map_or(0, Account::n_bytes);
            let wanted = program + layouts.device_bytes() as u64;
            let (_, budget) = gpu.memory().used();
            if wanted > budget {
                let reason = format!(
                    "{wanted} bytes of a program and its buffers do not fit into a budget of {budget}"
                );
                return Err(BackendError::DeviceMemory { backend: ID, reason });
            }
        }
        Ok(())
    }

    /// The instance that a lane runs, alone while it has it.
    pub(crate) fn instance(&self, lane: usize) -> MutexGuard<'_, Instance> {
        self.copy(lane).instance.lock().unwrap_or_else(|poisoned| {
            // A thread died in the middle of a run; nobody knows in what state the program is.
            self.copy(lane).instance.clear_poison();
            let mut held = poisoned.into_inner();
            held.fail();
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
        // Where it turns out not to fit beside what runs are using, it is loaded again once there is room for
        // the size that it turned out to have.
        let loaded = match measured_load(gpu, setting, artifact, &account)? {
            Err(LedgerError::InUse { .. }) => measured_load(gpu, setting, artifact, &account)?,
            loaded => loaded,
        };
        let (kept, program) = loaded.map_err(no_room)?;
        let shapes = Shapes::of(&program, artifact)?;
        let ended = Event::new(gpu.device()).map_err(device_failed)?;
        let gpu = Arc::clone(gpu);
        let side = Side { gpu, last: None, ended, is_marked: false, n_lanes: 0 };
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
    let kept = match gpu.memory().keep([Some(account), None], Patience::Wait) {
        Ok(kept) => kept,
        Err(error) => return Ok(Err(error)),
    };
    let (program, taken) =
        load_on(gpu, (setting.library, setting.target, artifact), account.n_bytes())?;
    // Less than before is no news: the device gives memory in pieces.
    let n_bytes = taken.max(account.n_bytes());
    if let Err(error) = account.resize(n_bytes) {
        drop_program(program);
        account.close();
        account.expect(n_bytes);
        return Ok(Err(error));
    }
    Ok(Ok((kept, program)))
}

/// Loads a program on a device, and says what it takes there; so much is expected. Captures wait: the library
/// waits for the device in the middle.
fn load_on(
    gpu: &Gpu,
    (library, target, artifact): (&'static Migraphx, Target, &Artifact),
    expected: u64,
) -> Result<(Program, u64), BackendError> {
    artifact.verify()?;
    let _pinned = gpu.device().pin().map_err(device_failed)?;
    let memory = gpu.memory();
    let loaded = memory.load(expected, || {
        let _held_off = hold_off_captures();
        Program::load(library, target, &artifact.payload)
    });
    loaded.map_err(|error| {
        if memory.is_short_of(expected) {
            let reason = format!("a program of {expected} bytes could not be loaded: {error}");
            return BackendError::DeviceMemory { backend: ID, reason };
        }
        load_failed(&error)
    })
}

/// Destroys a program, for which the library waits for the device.
fn drop_program(program: Program) {
    let _held_off = hold_off_captures();
    drop(program);
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

    /// The program, loaded anew if it was given up. Whoever calls keeps its account of so many bytes, if it has
    /// one.
    pub(crate) fn ready(
        &mut self,
        of: &BucketProgram,
        n_bytes: u64,
    ) -> Result<&mut Program, ProgramError> {
        match &mut self.program {
            Some(program) => Ok(program),
            empty @ None => {
                let program = load_again(of, self.side.as_ref(), n_bytes)?;
                self.generation += 1;
                Ok(empty.insert(program))
            }
        }
    }

    /// Counts up when the program is loaded anew.
    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    /// One more lane will run this copy.
    pub(crate) fn join(&mut self) {
        if let Some(side) = &mut self.side {
            side.n_lanes += 1;
        }
    }

    /// Lets a stream wait for the last run, if that is on another.
    pub(crate) fn wait_for_last(&self, stream: &Stream) -> Result<(), HipError> {
        match &self.side {
            Some(Side { last: Some(last), .. }) if last.stream().is_same(stream) => Ok(()),
            Some(Side { ended, is_marked: true, .. }) => stream.wait(ended),
            // It was marked for nobody while there was one lane.
            Some(Side { last: Some(last), .. }) => last.wait(),
            _ => Ok(()),
        }
    }

    /// Marks the end of what was given to a stream.
    pub(crate) fn mark_end(&mut self, stream: &Stream) -> Result<(), HipError> {
        let Some(side) = &mut self.side else { return Ok(()) };
        match &mut side.last {
            Some(last) if last.stream().is_same(stream) => last.renew(),
            last => *last = Some(stream.stamp()),
        }
        side.is_marked = side.n_lanes > 1;
        if side.is_marked { side.ended.record(stream) } else { Ok(()) }
    }

    /// Gives the program up. On a device its last run has ended: whoever ran it has waited for his stream, or
    /// after a failure for the device.
    pub(crate) fn discard(&mut self) {
        let Some(program) = self.program.take() else { return };
        match &self.side {
            None => drop(program),
            Some(side) => {
                let _pinned = side.gpu.device().pin();
                drop_program(program);
            }
        }
    }

    /// Gives up a program whose run failed: some releases leave it unusable then, or bound to the stream of that
    /// run, and with work on queues of its own that nobody else can wait for.
    pub(crate) fn fail(&mut self) {
        let waited = self.side.as_ref().map_or(Ok(()), |side| side.gpu.device().synchronize());
        match waited {
            Err(error) if !error.fault.is_end_of_work() => {
                // A leak is better than memory that the device still works on.
                mem::forget(self.program.take());
            }
            _ => self.discard(),
        }
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
fn load_again(
    of: &BucketProgram,
    side: Option<&Side>,
    n_bytes: u64,
) -> Result<Program, ProgramError> {
    let loaded = match side {
        None => load(of.library, of.target, &of.artifact),
        Some(Side { gpu, .. }) => {
            load_on(gpu, (of.library, of.target, &of.artifact), n_bytes).map(|(program, _)| program)
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
    Program::load(library, target, &artifact.payload).map_err(|error| load_failed(&error))
}

fn load_failed(error: &NativeError) -> BackendError {
    BackendError::Library { backend: ID, what: "load a program", message: error.to_string() }
}

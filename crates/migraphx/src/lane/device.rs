//! Programs whose memory is a device's.

use std::mem;
use std::sync::Arc;
use std::time::Instant;

use hipgraph::{Action, BindingMode as Mode, Device, LedgerError, Ran, Request, Stream, Until};
use shapeyard_core::backend::Outputs;
use shapeyard_core::{BindingMode, Sent, StageTimes};

use super::binding::{Binding, Graphs, Ready};
use super::enqueue::Enqueue;
use super::{Lane, Portion, Served, Work};
use crate::device::{Account, Gpu, Kept, Patience, Staging, Target};
use crate::programs::{BucketProgram, ProgramError};

/// A lane on a device: a stream of its own, its pinned memory, and what it keeps there for each program.
pub(crate) struct DeviceLane {
    number: usize,
    gpu: Arc<Gpu>,
    stream: Stream,
    staging: Staging,
    bound: Vec<Binding>,
    /// Empty between requests; kept to allocate nothing.
    kept: KeptPrograms,
}

/// What a request keeps from making room for others until the stream was waited for, by the programs'
/// numbers.
type KeptPrograms = Vec<(usize, Kept)>;

/// A portion that was enqueued and whose answer was not drained yet.
struct Flight<'a> {
    bound: usize,
    program: &'a BucketProgram,
    portion: Portion<'a>,
    /// Where its outputs are fetched to.
    place: usize,
}

/// Where a request's answer and times go.
struct Answer<'a> {
    outputs: &'a mut Outputs,
    times: &'a mut StageTimes,
}

impl DeviceLane {
    pub(crate) fn new(gpu: &Arc<Gpu>, number: usize) -> Result<Self, ProgramError> {
        let stream = Stream::new(gpu.device())?;
        let (staging, gpu) = (Staging::new(&stream), Arc::clone(gpu));
        Ok(Self { number, gpu, stream, staging, bound: Vec::new(), kept: Vec::new() })
    }

    /// Runs the steps one after the other: while the device works on one, the next is gathered, and the one
    /// before is drained.
    fn serve(
        &mut self,
        work: &Work<'_>,
        kept: &mut KeptPrograms,
        answer: &mut Answer<'_>,
    ) -> Result<Served, ProgramError> {
        let mut all =
            Served { binding: BindingMode::Staged, replayed: true, sent: Sent::default() };
        let mut flight: Option<Flight<'_>> = None;
        for (at, step) in work.steps.iter().enumerate() {
            let (bound, program) = (step.bound, &*work.programs[step.bound]);
            if !self.can_keep(bound, program, kept)? {
                // Nobody waits for memory who keeps any, or two might wait for each other.
                self.land(flight.take(), answer)?;
                kept.clear();
                kept.push((bound, self.keep(bound, program, Patience::Wait)?));
            }
            let place = flight.as_ref().map_or(0, |before| 1 - before.place);
            let next = Flight { bound, program, portion: work.portion(step), place };
            let is_last = at + 1 == work.steps.len();
            let served = self.start(&next, is_last, answer.times)?;
            all.replayed &= served.replayed;
            all.sent += served.sent;
            if let Some(before) = flight.replace(next) {
                self.staging.wait(before.place)?;
                // SAFETY: its fetch was waited for.
                unsafe { self.drain(&before, answer) }?;
            }
        }
        self.land(flight, answer)?;
        Ok(all)
    }

    /// Whether the request keeps a program now, without a wait for others' runs.
    fn can_keep(
        &self,
        bound: usize,
        program: &BucketProgram,
        kept: &mut KeptPrograms,
    ) -> Result<bool, ProgramError> {
        if kept.iter().any(|(kept, _)| *kept == bound) {
            return Ok(true);
        }
        match self.keep(bound, program, Patience::Refuse) {
            Ok(one) => kept.push((bound, one)),
            Err(LedgerError::InUse { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    /// Keeps a program, and what the lane has for it.
    fn keep(
        &self,
        bound: usize,
        program: &BucketProgram,
        patience: Patience,
    ) -> Result<Kept, LedgerError> {
        let accounts = [program.account(self.number), Some(&self.bound[bound].account)];
        self.gpu.memory().keep(accounts, patience)
    }

    /// Sends a portion, runs it, and fetches its answer.
    fn start(
        &mut self,
        flight: &Flight<'_>,
        is_last: bool,
        times: &mut StageTimes,
    ) -> Result<Served, ProgramError> {
        // The stream is waited for behind the last portion.
        let until = if is_last { Until::Settled } else { Until::Copied };
        let (binding, feed) = (&self.bound[flight.bound], &flight.program.feed);
        let (layouts, portion) = (&binding.layouts, &flight.portion);
        let start = Instant::now();
        let mut state = binding.state();
        let ready = state.ready(&self.gpu, layouts)?;
        let target = Target { layouts, feed, buffers: ready.buffers };
        let sent = self.staging.send(self.gpu.spread(), &target, portion, until)?;
        times.prepare += start.elapsed();
        // SAFETY: there are no addresses of a caller.
        let ran = unsafe { self.enqueue(binding, ready, flight.program, None) }?;
        self.staging.fetch(&target, portion, flight.place, until)?;
        Ok(Served { sent, ..Served::from(&ran) })
    }

    /// Waits for the stream, and drains what flew last.
    fn land(
        &mut self,
        last: Option<Flight<'_>>,
        answer: &mut Answer<'_>,
    ) -> Result<(), ProgramError> {
        let Some(last) = last else { return Ok(()) };
        self.stream.synchronize()?;
        self.staging.settled();
        // SAFETY: the stream was waited for.
        unsafe { self.drain(&last, answer) }
    }

    /// # Safety
    ///
    /// What was fetched for the portion has arrived.
    unsafe fn drain(
        &self,
        flight: &Flight<'_>,
        answer: &mut Answer<'_>,
    ) -> Result<(), ProgramError> {
        let start = Instant::now();
        let (layouts, feed) = (&self.bound[flight.bound].layouts, &flight.program.feed);
        let (portion, place) = (&flight.portion, flight.place);
        // SAFETY: the caller vouches for the wait.
        unsafe { self.staging.drain(layouts, feed, portion, place, answer.outputs) }?;
        answer.times.finish += start.elapsed();
        Ok(())
    }

    /// Enqueues the program behind whoever ran it last, and marks its end. `direct` are the caller's
    /// addresses, where he has brought some.
    ///
    /// # Safety
    ///
    /// Memory of the device as large as the program says lies at every address of `direct` until the
    /// stream was waited for.
    unsafe fn enqueue(
        &self,
        binding: &Binding,
        ready: Ready<'_>,
        program: &BucketProgram,
        direct: Option<&[usize]>,
    ) -> Result<Ran, ProgramError> {
        let Ready { parameters, graphs, buffers } = ready;
        let (stream, staged) = (&self.stream, buffers.addresses.as_slice());
        let n_bytes = program.account(self.number).map_or(0, Account::n_bytes);
        let mut instance = program.instance(self.number);
        instance.ready(program, n_bytes)?;
        graphs.follow(instance.generation());
        instance.wait_for_last(stream)?;
        let mut work = Enqueue {
            program: instance.ready(program, n_bytes)?,
            inputs: &program.inputs,
            feed: &program.feed,
            parameters,
            staged,
            staged_outputs: (buffers.output_address(), binding.layouts.outputs.n_bytes()),
            direct,
            has_failed: false,
        };
        let request = Request { key: &(), direct, staged };
        // SAFETY: the request names the only addresses that the work binds: those that the caller vouches
        // for, and those of the lane's own buffers, which live until it has waited for its stream.
        let ran = unsafe { graphs.runner.run(request, &mut work) };
        let ran = ran.and_then(|ran| work.finish(stream, ran));
        let has_failed = work.has_failed || ran.is_err();
        let marked = if has_failed { Ok(()) } else { instance.mark_end(stream) };
        if has_failed || marked.is_err() {
            // Whoever frees what the stream used need not wait for it again.
            let _told = stream.synchronize();
            instance.fail();
        }
        marked?;
        let ran = ran?;
        self.note(binding, graphs, &ran);
        Ok(ran)
    }

    /// Accounts for graphs that came or went, and takes down why one did not serve.
    fn note(&self, binding: &Binding, graphs: &mut Graphs, ran: &Ran) {
        if let Some(reason) = &ran.fallback {
            self.gpu.note_failed_graph(reason);
        }
        if binding.account.resize(binding.device_bytes(graphs)).is_err() {
            self.gpu.note_failed_graph("there is no room for it beside what runs are using");
            graphs.runner.refuse_graph(&(), ran.mode);
        }
    }

    /// # Safety
    ///
    /// As [`Lane::run_at`].
    unsafe fn serve_at(
        &self,
        bound: usize,
        program: &BucketProgram,
        addresses: &[usize],
    ) -> Result<Served, ProgramError> {
        let binding = &self.bound[bound];
        let mut state = binding.state();
        let ready = state.ready(&self.gpu, &binding.layouts)?;
        // SAFETY: the caller vouches for the addresses, and the stream is waited for below, or by whoever
        // sees the error.
        let ran = unsafe { self.enqueue(binding, ready, program, Some(addresses)) }?;
        self.stream.synchronize()?;
        Ok(Served::from(&ran))
    }

    /// After an error: what was enqueued may still use memory of the request. What a program left on queues of
    /// its own was waited for already. A wait that fails too ends with a device that runs nothing any more, or
    /// is told by the next run.
    fn settle<T>(&mut self, answer: Result<T, ProgramError>) -> Result<T, ProgramError> {
        if answer.is_err() && self.stream.synchronize().is_ok() {
            self.staging.settled();
        }
        answer
    }
}

impl Lane for DeviceLane {
    fn bind(&mut self, program: &Arc<BucketProgram>) -> Result<(), ProgramError> {
        let binding = Binding::new(&self.gpu, &self.stream, program)?;
        program.instance(self.number).join();
        self.staging.reserve(&binding.layouts);
        self.bound.push(binding);
        Ok(())
    }

    fn run(
        &mut self,
        work: &Work<'_>,
        outputs: &mut Outputs,
        times: &mut StageTimes,
    ) -> Result<Served, ProgramError> {
        let gpu = Arc::clone(&self.gpu);
        let _pinned = gpu.device().pin()?;
        let (start, mut kept) = (Instant::now(), mem::take(&mut self.kept));
        let served = self.serve(work, &mut kept, &mut Answer { outputs, times });
        let served = self.settle(served);
        kept.clear();
        self.kept = kept;
        times.run += start.elapsed().saturating_sub(times.prepare + times.finish);
        served
    }

    fn device(&self) -> Option<&Device> {
        Some(self.gpu.device())
    }

    unsafe fn run_at(
        &mut self,
        bound: usize,
        program: &BucketProgram,
        addresses: &[usize],
        times: &mut StageTimes,
    ) -> Result<Served, ProgramError> {
        let gpu = Arc::clone(&self.gpu);
        let (_pinned, start) = (gpu.device().pin()?, Instant::now());
        let _kept = self.keep(bound, program, Patience::Wait)?;
        // SAFETY: the caller vouches for the addresses.
        let served = unsafe { self.serve_at(bound, program, addresses) };
        let served = self.settle(served);
        times.run += start.elapsed();
        served
    }
}

impl From<&Ran> for Served {
    fn from(ran: &Ran) -> Self {
        let binding = match ran.mode {
            Mode::DirectBind => BindingMode::DirectBind,
            Mode::Staged => BindingMode::Staged,
        };
        let replayed = ran.action == Action::Replay && ran.fallback.is_none();
        Self { binding, replayed, sent: Sent::default() }
    }
}

impl Drop for DeviceLane {
    fn drop(&mut self) {
        // The program knows the buffers by their addresses alone. A device that is lost runs nothing.
        let _lost = self.stream.synchronize();
    }
}

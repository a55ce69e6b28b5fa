//! Programs whose memory is a device's.

use std::mem;
use std::sync::Arc;
use std::time::Instant;

use hipgraph::{Action, BindingMode as Mode, Device, LedgerError, Ran, Request, Stream};
use shapeyard_core::backend::Outputs;
use shapeyard_core::{BindingMode, Sent, StageTimes};

use super::binding::{Binding, Ready};
use super::enqueue::Enqueue;
use super::{Lane, Portion, Served, Work};
use crate::device::{Buffers, Gpu, Kept, Patience};
use crate::programs::{BucketProgram, ProgramError};

/// A lane on a device: a stream of its own, and what it keeps there for each program.
pub(crate) struct DeviceLane {
    number: usize,
    gpu: Arc<Gpu>,
    stream: Stream,
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
        let (stream, gpu) = (Stream::new(gpu.device())?, Arc::clone(gpu));
        Ok(Self { number, gpu, stream, bound: Vec::new(), kept: Vec::new() })
    }

    /// Runs the steps one after the other: while the device works on one, the next is gathered, and the one
    /// before is drained.
    fn serve(
        &self,
        work: &Work<'_>,
        kept: &mut KeptPrograms,
        answer: &mut Answer<'_>,
    ) -> Result<Served, ProgramError> {
        let mut all =
            Served { binding: BindingMode::Staged, replayed: true, sent: Sent::default() };
        let mut flight = None;
        for (at, step) in work.steps.iter().enumerate() {
            let (bound, program) = (step.bound, &*work.programs[step.bound]);
            if !self.can_keep(bound, program, kept)? {
                // Nobody waits for memory who keeps any, or two might wait for each other.
                self.land(flight.take(), kept, answer)?;
                kept.clear();
                kept.push((bound, self.keep(bound, program, Patience::Wait)?));
            }
            let place =
                flight.as_ref().map_or(
                    0,
                    |before: &Flight<'_>| {
                        if before.bound == bound { 1 - before.place } else { 0 }
                    },
                );
            let next = Flight { bound, program, portion: work.portion(step), place };
            let is_last = at + 1 == work.steps.len();
            let served = self.start(&next, is_last, answer.times)?;
            all.replayed &= served.replayed;
            all.sent += served.sent;
            if let Some(before) = flight.replace(next) {
                self.bound[before.bound]
                    .state()
                    .buffers()
                    .map_or(Ok(()), |it| it.wait(before.place))?;
                // SAFETY: its fetch was waited for.
                unsafe { self.drain(&before, answer) }?;
            }
        }
        self.land(flight, kept, answer)?;
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
        &self,
        flight: &Flight<'_>,
        is_last: bool,
        times: &mut StageTimes,
    ) -> Result<Served, ProgramError> {
        let (binding, feed) = (&self.bound[flight.bound], &flight.program.feed);
        let (stream, layouts, portion) = (&self.stream, &binding.layouts, &flight.portion);
        let start = Instant::now();
        let mut state = binding.state();
        let mut ready = state.ready(&self.gpu, stream, layouts)?;
        let sent = ready.buffers.send(stream, self.gpu.spread(), layouts, feed, portion)?;
        times.prepare += start.elapsed();
        // SAFETY: there are no addresses of a caller.
        let ran = unsafe { self.enqueue(binding, &mut ready, flight.program, None) }?;
        ready.buffers.fetch(stream, layouts, feed, portion, (flight.place, !is_last))?;
        Ok(Served { sent, ..Served::from(&ran) })
    }

    /// Waits for the stream, and drains what flew last.
    fn land(
        &self,
        last: Option<Flight<'_>>,
        kept: &KeptPrograms,
        answer: &mut Answer<'_>,
    ) -> Result<(), ProgramError> {
        let Some(last) = last else { return Ok(()) };
        self.stream.synchronize()?;
        for (bound, _) in kept {
            self.bound[*bound].state().buffers().into_iter().for_each(Buffers::settled);
        }
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
        let (binding, feed) = (&self.bound[flight.bound], &flight.program.feed);
        if let Some(buffers) = binding.state().buffers() {
            let (portion, place) = (&flight.portion, flight.place);
            // SAFETY: the caller vouches for the wait.
            unsafe { buffers.drain(&binding.layouts, feed, portion, place, answer.outputs) }?;
        }
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
        ready: &mut Ready<'_>,
        program: &BucketProgram,
        direct: Option<&[usize]>,
    ) -> Result<Ran, ProgramError> {
        let (stream, staged) = (&self.stream, ready.buffers.addresses.as_slice());
        let mut instance = program.instance(self.number);
        instance.ready(program)?;
        ready.graphs.follow(instance.generation());
        instance.wait_for_last(stream)?;
        let mut work = Enqueue {
            program: instance.ready(program)?,
            inputs: &program.inputs,
            feed: &program.feed,
            parameters: ready.parameters,
            staged,
            staged_outputs: (ready.buffers.output_address(), binding.layouts.outputs.n_bytes()),
            direct,
            has_failed: false,
        };
        let runner = &mut ready.graphs.runner;
        let request = Request { key: &(), direct, staged };
        let decision = runner.decide(request);
        let is_captured = decision.action == Action::Capture;
        // SAFETY: the request names the only addresses that the work binds: those that the caller vouches
        // for, and those of the lane's own buffers, which live until it has waited for its stream.
        let mut run = || unsafe { runner.perform(decision, request, &mut work) };
        let (ran, taken) = if is_captured { self.gpu.memory().measured(run)? } else { (run(), 0) };
        let ran = ran.and_then(|ran| work.finish(stream, ran));
        let has_failed = work.has_failed;
        instance.mark_end(stream)?;
        if has_failed || ran.is_err() {
            // Some releases leave a program unusable then, or bound to this stream.
            instance.discard();
        }
        if is_captured && binding.account.grow(taken).is_err() {
            runner.refuse_graph(&(), decision.mode);
        }
        Ok(ran?)
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
        let mut ready = state.ready(&self.gpu, &self.stream, &binding.layouts)?;
        // SAFETY: the caller vouches for the addresses, and the stream is waited for below, or by whoever
        // sees the error.
        let ran = unsafe { self.enqueue(binding, &mut ready, program, Some(addresses)) }?;
        self.stream.synchronize()?;
        Ok(Served::from(&ran))
    }

    /// After a failed run: what was enqueued may still use memory of the request, on whatever stream the
    /// library has put it. That the wait fails too is told by the next run.
    fn settle<T>(&self, answer: Result<T, ProgramError>) -> Result<T, ProgramError> {
        if answer.is_err() {
            let _told = self.gpu.device().synchronize();
        }
        answer
    }
}

impl Lane for DeviceLane {
    fn bind(&mut self, program: &Arc<BucketProgram>) -> Result<(), ProgramError> {
        let binding = Binding::new(&self.gpu, &self.stream, program)?;
        self.bound.push(binding);
        Ok(())
    }

    fn run(
        &mut self,
        work: &Work<'_>,
        outputs: &mut Outputs,
        times: &mut StageTimes,
    ) -> Result<Served, ProgramError> {
        let _pinned = self.gpu.device().pin()?;
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
        let (_pinned, start) = (self.gpu.device().pin()?, Instant::now());
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
        Self { binding, replayed: ran.action == Action::Replay, sent: Sent::default() }
    }
}

impl Drop for DeviceLane {
    fn drop(&mut self) {
        // The program knows the buffers by their addresses alone. A device that is lost runs nothing.
        let _lost = self.stream.synchronize();
    }
}

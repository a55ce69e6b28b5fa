//! Programs whose memory is a device's.

use std::sync::Arc;
use std::time::Instant;

use hip_sys::{HipError, MemcpyKind};
use hipgraph::{Action, BindingMode as Mode, Device, Ran, Request, Runner, Stream, Work};
use shapeyard_core::backend::Outputs;
use shapeyard_core::{BindingMode, StageTimes};

use super::{Lane, Portion, Served};
use crate::device::{Buffers, Gpu, Parameters};
use crate::feed::{Feed, FeedError};
use crate::native::{Program, ValueShape};
use crate::programs::{BucketProgram, ProgramError};

/// A lane on a device: a stream of its own, its graphs, and its buffers for each program.
pub(crate) struct DeviceLane {
    number: usize,
    gpu: Arc<Gpu>,
    runner: Runner<Key>,
    bound: Vec<Buffers>,
}

/// What a graph was captured for. A program that is loaded anew has other addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    bound: usize,
    generation: u64,
}

impl DeviceLane {
    pub(crate) fn new(gpu: &Arc<Gpu>, number: usize) -> Result<Self, ProgramError> {
        let stream = Stream::new(gpu.device())?;
        let (runner, gpu) = (gpu.runner(&stream), Arc::clone(gpu));
        Ok(Self { number, gpu, runner, bound: Vec::new() })
    }

    /// Enqueues the program behind whoever ran it last, and marks its end. `direct` are the caller's
    /// addresses, where he has brought some.
    ///
    /// # Safety
    ///
    /// Memory of the device as large as the program says lies at every address of `direct` until the
    /// stream was waited for.
    unsafe fn enqueue(
        &mut self,
        bound: usize,
        program: &BucketProgram,
        direct: Option<&[usize]>,
    ) -> Result<Ran, ProgramError> {
        let (runner, buffers) = (&mut self.runner, &mut self.bound[bound]);
        let mut instance = program.instance(self.number);
        instance.ready(program)?;
        let generation = instance.generation();
        let before = buffers.generation.replace(generation);
        if let Some(before) = before.filter(|before| *before != generation) {
            runner.remove(&Key { bound, generation: before });
        }
        instance.wait_for_last(runner.stream())?;
        let mut work = Enqueue {
            program: instance.ready(program)?,
            inputs: &program.inputs,
            feed: &program.feed,
            parameters: &mut buffers.parameters,
            staged: &buffers.addresses,
            direct,
            has_failed: false,
        };
        let key = &Key { bound, generation };
        let request = Request { key, direct, staged: &buffers.addresses };
        // SAFETY: the request names the only addresses that the work binds: those that the caller vouches
        // for, and those of the lane's own buffers, which live until it has waited for its stream.
        let ran = unsafe { runner.run(request, &mut work) };
        let ran = ran.and_then(|ran| work.finish(runner.stream(), ran));
        let has_failed = work.has_failed;
        instance.mark_end(runner.stream())?;
        if has_failed || ran.is_err() {
            // Some releases leave a program unusable then, or bound to this stream.
            instance.discard();
        }
        Ok(ran?)
    }

    fn serve(
        &mut self,
        bound: usize,
        program: &BucketProgram,
        portion: &Portion<'_>,
        outputs: &mut Outputs,
        times: &mut StageTimes,
    ) -> Result<Served, ProgramError> {
        let (_pinned, stream) = (self.gpu.device().pin()?, self.runner.stream().clone());
        let start = Instant::now();
        self.bound[bound].send(&stream, self.gpu.spread(), &program.feed, portion)?;
        let _resident = program.keep_resident(self.number)?;
        let sent = Instant::now();
        // SAFETY: there are no addresses of a caller.
        let ran = unsafe { self.enqueue(bound, program, None) }?;
        let buffers = &mut self.bound[bound];
        buffers.fetch(&stream, &program.feed, portion)?;
        stream.synchronize()?;
        let done = Instant::now();
        buffers.drain(&program.feed, portion, outputs)?;
        times.prepare += sent - start;
        times.run += done - sent;
        times.finish += done.elapsed();
        Ok(Served::from(&ran))
    }

    /// # Safety
    ///
    /// As [`Lane::run_at`].
    unsafe fn serve_at(
        &mut self,
        bound: usize,
        program: &BucketProgram,
        addresses: &[usize],
        times: &mut StageTimes,
    ) -> Result<Served, ProgramError> {
        let _pinned = self.gpu.device().pin()?;
        let start = Instant::now();
        let _resident = program.keep_resident(self.number)?;
        // SAFETY: the caller vouches for the addresses, and the stream is waited for below, or by whoever
        // sees the error.
        let ran = unsafe { self.enqueue(bound, program, Some(addresses)) }?;
        self.runner.stream().synchronize()?;
        times.run += start.elapsed();
        Ok(Served::from(&ran))
    }

    /// After a failed run: what was enqueued may still use memory of the request. That the wait fails too
    /// is told by the next run.
    fn settle<T>(&self, answer: Result<T, ProgramError>) -> Result<T, ProgramError> {
        if answer.is_err() {
            let _told = self.runner.stream().synchronize();
        }
        answer
    }
}

impl Lane for DeviceLane {
    fn bind(&mut self, program: &Arc<BucketProgram>) -> Result<(), ProgramError> {
        let _resident = program.keep_resident(self.number)?;
        let mut instance = program.instance(self.number);
        let outputs = instance.ready(program)?.output_places().map_err(FeedError::from)?;
        drop(instance);
        let buffers = Buffers::new(&self.gpu, self.runner.stream(), program, &outputs)?;
        self.bound.push(buffers);
        Ok(())
    }

    fn run(
        &mut self,
        bound: usize,
        program: &BucketProgram,
        portion: &Portion<'_>,
        outputs: &mut Outputs,
        times: &mut StageTimes,
    ) -> Result<Served, ProgramError> {
        let served = self.serve(bound, program, portion, outputs, times);
        self.settle(served)
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
        // SAFETY: the caller vouches for the addresses.
        let served = unsafe { self.serve_at(bound, program, addresses, times) };
        self.settle(served)
    }
}

impl From<&Ran> for Served {
    fn from(ran: &Ran) -> Self {
        let binding = match ran.mode {
            Mode::DirectBind => BindingMode::DirectBind,
            Mode::Staged => BindingMode::Staged,
        };
        Self { binding, replayed: ran.action == Action::Replay }
    }
}

impl Drop for DeviceLane {
    fn drop(&mut self) {
        // The program knows the buffers by their addresses alone. A device that is lost runs nothing.
        let _lost = self.runner.stream().synchronize();
    }
}

/// One run of a program, which leaves its outputs at the addresses of its mode.
struct Enqueue<'a> {
    program: &'a mut Program,
    inputs: &'a [(String, ValueShape)],
    feed: &'a Feed,
    parameters: &'a mut Parameters,
    /// The lane's own addresses of every input and output.
    staged: &'a [usize],
    /// The caller's.
    direct: Option<&'a [usize]>,
    has_failed: bool,
}

impl<'a> Enqueue<'a> {
    fn addresses(&self, mode: Mode) -> &'a [usize] {
        match mode {
            Mode::DirectBind => self.direct.unwrap_or(self.staged),
            Mode::Staged => self.staged,
        }
    }

    fn try_enqueue(&mut self, stream: &Stream, mode: Mode) -> Result<(), FeedError> {
        let addresses = self.addresses(mode);
        let places = self.parameters.point(addresses)?;
        // SAFETY: the places are the lane's buffers or what the caller vouches for, as large as the program
        // says; runs of the program on other streams were waited for on the device.
        let done = unsafe { self.program.enqueue(places, stream.raw().cast()) }?;
        let outputs = self.feed.output_shapes().zip(&addresses[self.inputs.len()..]);
        for (index, (shape, &to)) in outputs.enumerate() {
            let from = done.address(index, shape.n_bytes)?;
            // SAFETY: the place is as large as the output, which stays where it is until the program runs
            // again.
            unsafe { copy(stream, to, from, shape.n_bytes) }?;
        }
        Ok(())
    }

    /// Hands on what is in the lane's buffers although the caller brought his own.
    fn finish(&self, stream: &Stream, ran: Ran) -> Result<Ran, hipgraph::RunError<FeedError>> {
        if let (Mode::Staged, Some(direct)) = (ran.mode, self.direct) {
            let n_inputs = self.inputs.len();
            let places = self.staged[n_inputs..].iter().zip(&direct[n_inputs..]);
            for (shape, (&from, &to)) in self.feed.output_shapes().zip(places) {
                // SAFETY: both are as large as the output.
                unsafe { copy(stream, to, from, shape.n_bytes) }?;
            }
        }
        Ok(ran)
    }
}

impl Work for Enqueue<'_> {
    type Error = FeedError;

    fn prepare(&mut self, stream: &Stream, mode: Mode) -> Result<(), FeedError> {
        if let (Mode::Staged, Some(direct)) = (mode, self.direct) {
            for ((_, shape), (&from, &to)) in self.inputs.iter().zip(direct.iter().zip(self.staged))
            {
                // SAFETY: both are as large as the input.
                unsafe { copy(stream, to, from, shape.n_bytes) }?;
            }
        }
        Ok(())
    }

    fn enqueue(&mut self, stream: &Stream, mode: Mode) -> Result<(), FeedError> {
        let enqueued = self.try_enqueue(stream, mode);
        self.has_failed |= enqueued.is_err();
        enqueued
    }

    fn outputs(&self, mode: Mode) -> Vec<(usize, usize)> {
        let addresses = self.addresses(mode)[self.inputs.len()..].iter().copied();
        addresses.zip(self.feed.output_shapes().map(|shape| shape.n_bytes)).collect()
    }
}

/// Copies on the device, where there is something to copy.
///
/// # Safety
///
/// As [`Stream::copy_addresses`].
unsafe fn copy(stream: &Stream, to: usize, from: usize, n_bytes: usize) -> Result<(), HipError> {
    if to == from || n_bytes == 0 {
        return Ok(());
    }
    // SAFETY: the caller vouches for both.
    unsafe { stream.copy_addresses(to, from, n_bytes, MemcpyKind::DEVICE_TO_DEVICE) }
}

//! Programs whose memory is a device's.

#![allow(unsafe_code, reason = "addresses of a device that is given work")]

use std::sync::Arc;
use std::time::Instant;

use hipgraph::{Action, BindingMode as Mode, DeviceBuffer, Layout, Request, Runner, Stream, Work};
use shapeyard_core::backend::Outputs;
use shapeyard_core::{BindingMode, StageTimes};

use super::{Lane, Portion, Served};
use crate::device::{Buffers, Gpu};
use crate::feed::{Feed, FeedError};
use crate::native::{Places, Program};
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

    /// Enqueues the program behind whoever ran it last, and marks its end.
    fn enqueue(&mut self, bound: usize, program: &BucketProgram) -> Result<Action, ProgramError> {
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
            feed: &program.feed,
            places: &buffers.places,
            outputs: &buffers.outputs,
            slots: &buffers.output_slots,
            has_failed: false,
        };
        let request =
            Request { key: &Key { bound, generation }, direct: None, staged: &buffers.addresses };
        // SAFETY: the request names the only addresses that the work binds: those of the lane's own
        // buffers, which live until the lane has waited for its stream.
        let ran = unsafe { runner.run(request, &mut work) };
        let has_failed = work.has_failed;
        instance.mark_end(runner.stream())?;
        if has_failed || ran.is_err() {
            // Some releases leave a program unusable then, or bound to this stream.
            instance.discard();
        }
        Ok(ran?.action)
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
        let action = self.enqueue(bound, program)?;
        let buffers = &mut self.bound[bound];
        buffers.fetch(&stream, &program.feed, portion)?;
        stream.synchronize()?;
        let ran = Instant::now();
        buffers.drain(&program.feed, portion, outputs)?;
        times.prepare += sent - start;
        times.run += ran - sent;
        times.finish += ran.elapsed();
        Ok(Served { binding: BindingMode::Staged, replayed: action == Action::Replay })
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
        if served.is_err() {
            // What was enqueued may still read the request. That it fails too is told by the next run.
            let _told = self.runner.stream().synchronize();
        }
        served
    }
}

impl Drop for DeviceLane {
    fn drop(&mut self) {
        // The program knows the buffers by their addresses alone. A device that is lost runs nothing.
        let _lost = self.runner.stream().synchronize();
    }
}

/// One run of a program, with what it leaves elsewhere copied to where outputs are fetched from.
struct Enqueue<'a> {
    program: &'a mut Program,
    feed: &'a Feed,
    places: &'a Places,
    outputs: &'a DeviceBuffer,
    slots: &'a Layout,
    has_failed: bool,
}

impl Enqueue<'_> {
    fn try_enqueue(&mut self, stream: &Stream) -> Result<(), FeedError> {
        // SAFETY: the places are the lane's buffers, as large as the program says; runs of the program on
        // other streams were waited for on the device.
        let done = unsafe { self.program.enqueue(self.places, stream.raw().cast()) }?;
        let base = self.outputs.address().addr();
        for (index, (shape, slot)) in self.feed.output_shapes().zip(self.slots.slots()).enumerate()
        {
            let (from, to) = (done.address(index, shape.n_bytes)?, base + slot.offset);
            if from != to && shape.n_bytes > 0 {
                let kind = hip_sys::MemcpyKind::DEVICE_TO_DEVICE;
                // SAFETY: the slot is as large as the output, which stays where it is until the program
                // runs again.
                unsafe { stream.copy_addresses(to, from, shape.n_bytes, kind) }?;
            }
        }
        Ok(())
    }
}

impl Work for Enqueue<'_> {
    type Error = FeedError;

    fn enqueue(&mut self, stream: &Stream, _mode: Mode) -> Result<(), FeedError> {
        let enqueued = self.try_enqueue(stream);
        self.has_failed |= enqueued.is_err();
        enqueued
    }

    fn outputs(&self, _mode: Mode) -> Vec<(usize, usize)> {
        let base = self.outputs.address().addr();
        self.slots.slots().iter().map(|slot| (base + slot.offset, slot.n_bytes)).collect()
    }
}

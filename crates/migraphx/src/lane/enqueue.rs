//! One run of a program on a device, as a graph can hold it.

use hip_sys::{HipError, MemcpyKind};
use hipgraph::{BindingMode as Mode, Ran, Stream};

use crate::device::Parameters;
use crate::feed::{Feed, FeedError};
use crate::native::{Program, ValueShape};

/// One run of a program, which leaves its outputs at the addresses of its mode.
pub(super) struct Enqueue<'a> {
    pub(super) program: &'a mut Program,
    pub(super) inputs: &'a [(String, ValueShape)],
    pub(super) feed: &'a Feed,
    pub(super) parameters: &'a mut Parameters,
    /// The lane's own addresses of every input and output.
    pub(super) staged: &'a [usize],
    /// Where the lane's outputs lie, one behind the other, and how many bytes they have in all.
    pub(super) staged_outputs: (usize, usize),
    /// The caller's addresses.
    pub(super) direct: Option<&'a [usize]>,
    /// Whether the library refused a run.
    pub(super) has_failed: bool,
}

impl<'a> Enqueue<'a> {
    fn addresses(&self, mode: Mode) -> &'a [usize] {
        match mode {
            Mode::DirectBind => self.direct.unwrap_or(self.staged),
            Mode::Staged => self.staged,
        }
    }

    /// Clears the outputs: kernels that share the work on one add to what is there.
    fn clear(&self, stream: &Stream, mode: Mode) -> Result<(), HipError> {
        match (mode, self.direct) {
            (Mode::DirectBind, Some(direct)) => {
                let outputs = self.feed.output_shapes().zip(&direct[self.inputs.len()..]);
                for (shape, &address) in outputs {
                    // SAFETY: the place is as large as the output.
                    unsafe { fill(stream, address, shape.n_bytes) }?;
                }
                Ok(())
            }
            _ => {
                let (address, n_bytes) = self.staged_outputs;
                // SAFETY: so many bytes of the lane's buffers lie there.
                unsafe { fill(stream, address, n_bytes) }
            }
        }
    }

    fn try_enqueue(&mut self, stream: &Stream, mode: Mode) -> Result<(), FeedError> {
        self.clear(stream, mode)?;
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
    pub(super) fn finish(
        &self,
        stream: &Stream,
        ran: Ran,
    ) -> Result<Ran, hipgraph::RunError<FeedError>> {
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

impl hipgraph::Work for Enqueue<'_> {
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

/// Clears bytes of the device, where there are any.
///
/// # Safety
///
/// As [`Stream::fill_address`].
unsafe fn fill(stream: &Stream, address: usize, n_bytes: usize) -> Result<(), HipError> {
    if n_bytes == 0 {
        return Ok(());
    }
    // SAFETY: the caller vouches for the range.
    unsafe { stream.fill_address(address, n_bytes, 0) }
}

//! Capturing a stream, and what comes of it.

use std::any::Any;
use std::ptr;
use std::sync::Arc;

use hip_sys::{CaptureMode, HipError, hipGraph_t, hipGraphExec_t};

use crate::device::Device;
use crate::gate;
#[cfg(doc)]
use crate::gate::hold_off_captures;
use crate::stream::Stream;
use crate::uses::Uses;

/// Why there is no graph. The stream runs what it is given again, whatever it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError<E> {
    /// The stream is recording already: somebody else's capture, in which ours may not be nested.
    #[error("the stream is being captured already")]
    Nested,
    /// The default stream cannot be captured.
    #[error("the default stream cannot be captured")]
    DefaultStream,
    /// The capture did not begin.
    #[error("the capture did not begin")]
    Begin(#[source] HipError),
    /// What was to be recorded failed by itself.
    #[error("what was to be captured failed")]
    Record(#[source] E),
    /// The capture was spoilt, mostly by a call that cannot be recorded.
    #[error("the capture was spoilt")]
    End(#[source] HipError),
    /// The graph could not be made ready to launch; there may be no memory for it.
    #[error("the graph could not be made ready")]
    Instantiate(#[source] HipError),
}

impl Stream {
    /// Records what `record` enqueues, in place of running it. Waits for other captures, and for calls before
    /// which [captures are held off](hold_off_captures); beside those only this thread's calls can spoil it.
    ///
    /// # Errors
    ///
    /// See [`CaptureError`].
    pub fn capture<T, E>(
        &self,
        record: impl FnOnce(&Self) -> Result<T, E>,
    ) -> Result<(ExecutableGraph, T), CaptureError<E>> {
        if self.is_capturing().is_ok_and(|is_capturing| is_capturing) {
            return Err(CaptureError::Nested);
        }
        let _gate = gate::capture();
        self.capture_alone(record)
    }

    /// As [`Self::capture`], for whoever passed the gate.
    pub(crate) fn capture_alone<T, E>(
        &self,
        record: impl FnOnce(&Self) -> Result<T, E>,
    ) -> Result<(ExecutableGraph, T), CaptureError<E>> {
        if self.is_default() {
            return Err(CaptureError::DefaultStream);
        }
        let _pinned = self.device().pin().map_err(CaptureError::Begin)?;
        if self.is_capturing().map_err(CaptureError::Begin)? {
            return Err(CaptureError::Nested);
        }
        let recording = Recording::begin(self).map_err(CaptureError::Begin)?;
        let value = record(self).map_err(CaptureError::Record)?;
        let template = recording.end().map_err(CaptureError::End)?;
        let graph = template.instantiate().map_err(CaptureError::Instantiate)?;
        Ok((graph, value))
    }
}

/// A stream that records until this is ended or dropped, as it is when the recorded code panics.
struct Recording<'a> {
    stream: &'a Stream,
    is_ended: bool,
}

impl<'a> Recording<'a> {
    fn begin(stream: &'a Stream) -> Result<Self, HipError> {
        let mode = CaptureMode::THREAD_LOCAL;
        // SAFETY: the stream is alive, and is ended on every way out.
        unsafe { stream.device().hip().stream_begin_capture(stream.raw(), mode) }?;
        Ok(Self { stream, is_ended: false })
    }

    fn end(mut self) -> Result<Template, HipError> {
        self.is_ended = true;
        end(self.stream)
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        if !self.is_ended {
            // The graph goes with the error that there is already.
            drop(end(self.stream));
        }
    }
}

fn end(stream: &Stream) -> Result<Template, HipError> {
    let mut raw = ptr::null_mut();
    // SAFETY: the stream is alive, and this thread began the capture; the place is ours.
    let answer = unsafe { stream.device().hip().stream_end_capture(stream.raw(), &mut raw) };
    let template = Template { device: stream.device().clone(), raw };
    answer.map(|()| template)
}

/// What was recorded. Null where nothing was.
struct Template {
    device: Device,
    raw: hipGraph_t,
}

impl Template {
    fn instantiate(self) -> Result<ExecutableGraph, HipError> {
        let hip = self.device.hip();
        let mut n_nodes = 0;
        // SAFETY: the graph is alive; without a place for nodes they are counted.
        unsafe { hip.graph_get_nodes(self.raw, ptr::null_mut(), &mut n_nodes) }?;
        let mut raw = ptr::null_mut();
        // SAFETY: the graph is alive, and the place is ours.
        unsafe { hip.graph_instantiate(&mut raw, self.raw) }?;
        let (device, uses) = (self.device.clone(), Uses::default());
        Ok(ExecutableGraph { device, raw, n_nodes, uses, kept: Vec::new() })
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: nobody else has it, and what was made of it does not need it. There is nothing
            // to do about a failure.
            let _kept = unsafe { self.device.hip().graph_destroy(self.raw) };
        }
    }
}

/// A graph that can be launched. It is destroyed only after its last launch is done, and what it
/// [keeps](Self::keep) goes after that.
#[derive(Debug)]
pub struct ExecutableGraph {
    device: Device,
    raw: hipGraphExec_t,
    n_nodes: usize,
    uses: Uses,
    kept: Vec<Arc<dyn Any + Send + Sync>>,
}

// SAFETY: the runtimes want one thread at a time on a graph; each launch holds the lock of `uses`.
unsafe impl Send for ExecutableGraph {}
// SAFETY: as above.
unsafe impl Sync for ExecutableGraph {}

impl ExecutableGraph {
    /// What a node takes on the device at most, in bytes, to be accounted for; measured on CUDA 13.
    pub const NODE_BYTES: usize = 4 << 10;

    /// Nodes of the captured graph.
    #[must_use]
    pub fn n_nodes(&self) -> usize {
        self.n_nodes
    }

    /// Keeps something that the graph uses as long as the graph can run: buffers, a program.
    pub fn keep(&mut self, value: Arc<dyn Any + Send + Sync>) {
        self.kept.push(value);
    }

    /// Enqueues the graph.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    ///
    /// # Safety
    ///
    /// Whatever addresses were captured are still those of the same memory, and stay so until the
    /// launch is done.
    pub unsafe fn launch(&self, stream: &Stream) -> Result<(), HipError> {
        let _pinned = self.device.pin()?;
        self.uses.during(stream, || {
            // SAFETY: both are alive; the caller vouches for what the graph touches.
            unsafe { self.device.hip().graph_launch(self.raw, stream.raw()) }
        })
    }
}

impl Drop for ExecutableGraph {
    fn drop(&mut self) {
        let answer = self.uses.finish(&self.device, || {
            // SAFETY: no launch runs any more.
            unsafe { self.device.hip().graph_exec_destroy(self.raw) }
        });
        if answer.is_err() {
            // It may still run, and so may not lose what it uses.
            std::mem::forget(std::mem::take(&mut self.kept));
        }
    }
}

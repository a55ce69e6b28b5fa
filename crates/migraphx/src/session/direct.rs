//! Requests whose inputs and outputs lie on the device.

#![allow(unsafe_code, reason = "addresses of a device that is given work")]

use std::mem;

use hipgraph::Device;
use shapeyard_core::backend::RunError;
use shapeyard_core::plan::cover::nearest;
use shapeyard_core::{DataType, Extents, Route, RunReport, Shape, Signature, StageTimes, Tier};

use super::{MigraphxSession, N_NEAREST, failed};
use crate::ID;
use crate::device::DeviceTensor;
use crate::native::ValueShape;
use crate::programs::BucketProgram;
use crate::region;

/// Why a request on the device was not served. Nothing uses its memory any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceRunError {
    /// As for a request on the host. What no program holds *exactly* is
    /// [`NotReady`](RunError::NotReady): nothing is padded or split on the device.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The programs are the host's: hand in what lies there.
    #[error("the programs run on the host, and take nothing on a device")]
    NoDevice,
    /// A tensor lies where the program cannot reach it.
    #[error("`{tensor}` is on device {found}, the session on device {wanted} of {}", runtime.display())]
    WrongDevice {
        /// The input or output.
        tensor: String,
        /// Its device.
        found: i32,
        /// The session's.
        wanted: i32,
        /// The runtime that the session uses.
        runtime: std::path::PathBuf,
    },
    /// There are more or fewer outputs than the model has.
    #[error("the model has {wanted} outputs, {found} were handed in")]
    OutputCount {
        /// How many there were.
        found: usize,
        /// How many the model has.
        wanted: usize,
    },
    /// An output cannot take what the program gives, or an input is not what it takes.
    #[error("`{tensor}` is {found_type} {found:?}, the program has {wanted_type} {wanted:?}")]
    Mismatch {
        /// The input or output.
        tensor: String,
        /// Its data type.
        found_type: DataType,
        /// Its shape.
        found: Vec<usize>,
        /// The program's data type.
        wanted_type: DataType,
        /// The program's shape.
        wanted: Vec<usize>,
    },
    /// The program gives an output in another order of elements, which only the host can mend.
    #[error("the program gives output `{output}` in another order of elements")]
    NotDense {
        /// The output.
        output: String,
    },
    /// An output lies where an input or another output does.
    #[error("output `{output}` overlaps `{other}`")]
    Overlap {
        /// The output.
        output: String,
        /// What it shares memory with.
        other: String,
    },
    /// Elements of an input are indices into a table, and nobody vouched for them
    /// ([`DeviceTensor::with_checked_indices`]).
    #[error(
        "input `{input}` has indices into a table of {limit} rows, which nobody checks on a device"
    )]
    UncheckedIndices {
        /// The input.
        input: String,
        /// Rows of the table.
        limit: usize,
    },
}

impl MigraphxSession {
    /// The device that [`Self::run_on_device`] takes tensors of; nothing where programs run on the host.
    #[must_use]
    pub fn device(&self) -> Option<&Device> {
        self.lane.device()
    }

    /// Runs a request where it lies: the program reads `inputs` and writes `outputs`, each in the
    /// signature's order, and both are the caller's again afterwards. Whatever writes the inputs has to be
    /// done before.
    ///
    /// Addresses are part of what a graph is made for. Requests that bring others every time are served by
    /// copies on the device for a while; [`RunReport::binding`] says so.
    ///
    /// # Errors
    ///
    /// See [`DeviceRunError`]. `outputs` have anything in them then.
    pub fn run_on_device(
        &mut self,
        inputs: &[DeviceTensor],
        outputs: &mut [DeviceTensor],
    ) -> Result<RunReport, DeviceRunError> {
        let device = self.lane.device().ok_or(DeviceRunError::NoDevice)?;
        let signature = &self.shared.signature;
        let extents = signature
            .bind_shapes(inputs, |input| (input.dtype(), input.shape()))
            .map_err(RunError::from)?;
        check(signature, device, inputs, outputs)?;
        let (bound, tier) = self.exact(&extents)?;
        let mut addresses = mem::take(&mut self.addresses);
        let answer = self.run_exact(bound, inputs, outputs, &mut addresses);
        self.addresses = addresses;
        answer.map(|report| RunReport { tier, ..report })
    }

    /// The program of just this shape.
    fn exact(&mut self, extents: &Extents) -> Result<(usize, Tier), RunError> {
        let (way, tier) = self.way(extents)?;
        match way.steps.as_slice() {
            [step] if way.route == Route::Exact => Ok((step.bound, tier)),
            _ => {
                let wanted = self.shared.signature.bucket(extents);
                let nearest = nearest(&wanted, &self.shared.ready().buckets, N_NEAREST);
                Err(RunError::NotReady { wanted, nearest })
            }
        }
    }

    fn run_exact(
        &mut self,
        bound: usize,
        inputs: &[DeviceTensor],
        outputs: &[DeviceTensor],
        addresses: &mut Vec<usize>,
    ) -> Result<RunReport, DeviceRunError> {
        let program = &self.bound[bound];
        bind(&self.shared.signature, program, inputs, outputs, addresses)?;
        let mut times = StageTimes::default();
        // SAFETY: every tensor was found to be on the lane's device and as large as the program says, and
        // keeps its memory alive; the lane waits for its stream before it returns.
        let served = unsafe { self.lane.run_at(bound, program, addresses, &mut times) };
        let served = served.map_err(failed)?;
        Ok(RunReport {
            backend: ID,
            fallback: None,
            route: Route::Exact,
            tier: Tier::Cached,
            binding: served.binding,
            replayed: served.replayed,
            n_pieces: 1,
            n_padded_rows: 0,
            sent: served.sent,
            times,
            disturbed: false,
        })
    }
}

/// What does not depend on the program.
fn check(
    signature: &Signature,
    device: &Device,
    inputs: &[DeviceTensor],
    outputs: &[DeviceTensor],
) -> Result<(), DeviceRunError> {
    let (found, wanted) = (outputs.len(), signature.outputs.len());
    if found != wanted {
        return Err(DeviceRunError::OutputCount { found, wanted });
    }
    for (spec, input) in signature.inputs.iter().zip(inputs) {
        check_device(&spec.name, input, device)?;
        if let Some(limit) = spec.index_limit.filter(|_| !input.has_checked_indices()) {
            return Err(DeviceRunError::UncheckedIndices { input: spec.name.clone(), limit });
        }
    }
    for (at, (spec, output)) in signature.outputs.iter().zip(outputs).enumerate() {
        check_device(&spec.name, output, device)?;
        let inputs = signature.inputs.iter().zip(inputs);
        let others = inputs.chain(signature.outputs.iter().zip(&outputs[..at]));
        if let Some((other, _)) = others.into_iter().find(|(_, other)| output.overlaps(other)) {
            let (output, other) = (spec.name.clone(), other.name.clone());
            return Err(DeviceRunError::Overlap { output, other });
        }
    }
    Ok(())
}

/// Numbers of devices mean the same only in one runtime.
fn check_device(name: &str, tensor: &DeviceTensor, device: &Device) -> Result<(), DeviceRunError> {
    let (found, wanted) = (tensor.device().index(), device.index());
    let runtime = device.hip().path();
    if found == wanted && tensor.device().hip().path() == runtime {
        return Ok(());
    }
    let (tensor, runtime) = (name.to_owned(), runtime.to_owned());
    Err(DeviceRunError::WrongDevice { tensor, found, wanted, runtime })
}

/// Collects the addresses of the program's inputs and outputs, each of which is just as large as the
/// program says.
fn bind(
    signature: &Signature,
    program: &BucketProgram,
    inputs: &[DeviceTensor],
    outputs: &[DeviceTensor],
    addresses: &mut Vec<usize>,
) -> Result<(), DeviceRunError> {
    addresses.clear();
    for (position, (name, shape)) in program.feed.input_positions().zip(&program.inputs) {
        addresses.push(fitting(name, inputs.get(position), shape)?);
    }
    let specs = signature.outputs.iter().zip(outputs);
    for ((spec, output), shape) in specs.zip(program.feed.output_shapes()) {
        if !region::is_dense(&shape.lengths, &shape.strides) {
            return Err(DeviceRunError::NotDense { output: spec.name.clone() });
        }
        addresses.push(fitting(&spec.name, Some(output), shape)?);
    }
    Ok(())
}

/// The address of a tensor that is what the program says. The program shows a rank of 0 as one axis of 1.
fn fitting(
    name: &str,
    tensor: Option<&DeviceTensor>,
    shape: &ValueShape,
) -> Result<usize, DeviceRunError> {
    let (dtype, given) = tensor.map_or((shape.dtype, &[][..]), |it| (it.dtype(), it.shape()));
    let is_same = given == shape.lengths.as_slice()
        || (given.is_empty() && shape.lengths == Shape::from_elem(1, 1));
    match tensor {
        Some(tensor) if is_same && dtype == shape.dtype && tensor.n_bytes() == shape.n_bytes => {
            Ok(tensor.address())
        }
        _ => Err(DeviceRunError::Mismatch {
            tensor: name.to_owned(),
            found_type: dtype,
            found: given.to_vec(),
            wanted_type: shape.dtype,
            wanted: shape.lengths.to_vec(),
        }),
    }
}

//! Functions whose binary interface differs between the platforms or between versions, each with HIP's
//! meaning on both.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};
use std::ptr;

use shapeyard_dylib::{Library, as_function};

use crate::device::{self, DeviceAttribute, PointerAttributes};
use crate::error::HipError;
use crate::open::Hip;
use crate::platform::Platform;
use crate::types::{
    CaptureStatus, EventFlags, HostMallocFlags, Status, UpdateResult, hipEvent_t, hipGraph_t,
    hipGraphExec_t, hipGraphNode_t, hipStream_t,
};

type GetProperties = unsafe extern "C" fn(*mut c_void, c_int) -> Status;
type GetAttribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> Status;
type GetPointerAttributes = unsafe extern "C" fn(*mut c_void, *const c_void) -> Status;
type HostMalloc = unsafe extern "C" fn(*mut *mut c_void, usize, c_uint) -> Status;
type EventCreate = unsafe extern "C" fn(*mut hipEvent_t, c_uint) -> Status;
type UpdateWithResult = unsafe extern "C" fn(
    hipGraphExec_t,
    hipGraph_t,
    *mut hipGraphNode_t,
    *mut UpdateResult,
) -> Status;
type UpdateWithInfo = unsafe extern "C" fn(hipGraphExec_t, hipGraph_t, *mut UpdateInfo) -> Status;
type CaptureInfo6 = unsafe extern "C" fn(
    hipStream_t,
    *mut CaptureStatus,
    *mut c_ulonglong,
    *mut hipGraph_t,
    *mut *const hipGraphNode_t,
    *mut usize,
) -> Status;
type CaptureInfo7 = unsafe extern "C" fn(
    hipStream_t,
    *mut CaptureStatus,
    *mut c_ulonglong,
    *mut hipGraph_t,
    *mut *const hipGraphNode_t,
    *mut *const c_void,
    *mut usize,
) -> Status;

/// `cudaGraphExecUpdateResultInfo`.
#[repr(C)]
struct UpdateInfo {
    result: UpdateResult,
    error_node: hipGraphNode_t,
    error_from_node: hipGraphNode_t,
}

#[derive(Clone, Copy)]
enum Update {
    /// HIP: the node and the result.
    Result(UpdateWithResult),
    /// CUDA since 12: one structure.
    Info(UpdateWithInfo),
}

#[derive(Clone, Copy)]
enum GetCaptureInfo {
    /// HIP, and CUDA 12.
    Six(CaptureInfo6),
    /// CUDA 13 tells of the edges too.
    Seven(CaptureInfo7),
}

/// How the properties of a device are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PropertyLayout {
    /// HIP 5 and before.
    Hip5,
    /// HIP since 6, by the symbol with `R0600` in its name; the plain one keeps the old layout.
    Hip6,
    /// CUDA; what moved between 12 and 13 is asked for by attribute.
    Cuda,
}

/// The functions of one runtime.
#[derive(Clone, Copy)]
pub(crate) struct Differing {
    pub(crate) layout: PropertyLayout,
    get_properties: GetProperties,
    get_attribute: GetAttribute,
    get_pointer_attributes: GetPointerAttributes,
    host_malloc: HostMalloc,
    event_create: EventCreate,
    update: Update,
    capture_info: GetCaptureInfo,
}

impl std::fmt::Debug for Differing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Differing").field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl Differing {
    /// The functions, or the HIP name of the first that is missing.
    ///
    /// # Safety
    ///
    /// The library has to be a runtime of the platform.
    pub(crate) unsafe fn resolve(
        platform: Platform,
        runtime: &Library,
    ) -> Result<Self, &'static str> {
        match platform {
            // SAFETY: the caller vouches for the library, and each field's type is the signature that
            // the platform's header gives the name.
            Platform::Amd => unsafe { Self::of_amd(runtime) },
            // SAFETY: as above.
            Platform::Nvidia => unsafe { Self::of_nvidia(runtime) },
        }
    }

    #[allow(clippy::multiple_unsafe_ops_per_block, reason = "one table, one reason")]
    unsafe fn of_amd(runtime: &Library) -> Result<Self, &'static str> {
        const R0600: &str = "hipGetDevicePropertiesR0600";
        let is_new = runtime.symbol(R0600).is_some();
        let (layout, properties) = if is_new {
            (PropertyLayout::Hip6, R0600)
        } else {
            (PropertyLayout::Hip5, "hipGetDeviceProperties")
        };
        // SAFETY: see `resolve`.
        unsafe {
            Ok(Self {
                layout,
                get_properties: function(runtime, properties)?,
                get_attribute: function(runtime, "hipDeviceGetAttribute")?,
                get_pointer_attributes: function(runtime, "hipPointerGetAttributes")?,
                host_malloc: function(runtime, "hipHostMalloc")?,
                event_create: function(runtime, "hipEventCreateWithFlags")?,
                update: Update::Result(function(runtime, "hipGraphExecUpdate")?),
                capture_info: GetCaptureInfo::Six(function(runtime, "hipStreamGetCaptureInfo_v2")?),
            })
        }
    }

    #[allow(clippy::multiple_unsafe_ops_per_block, reason = "one table, one reason")]
    unsafe fn of_nvidia(runtime: &Library) -> Result<Self, &'static str> {
        const SIX: &str = "cudaStreamGetCaptureInfo_v2";
        // CUDA 12 kept the layouts of 11 under the plain names, and 13 dropped the suffixes.
        let is_12 = runtime.symbol(SIX).is_some();
        let properties =
            if is_12 { "cudaGetDeviceProperties_v2" } else { "cudaGetDeviceProperties" };
        // SAFETY: see `resolve`.
        unsafe {
            Ok(Self {
                layout: PropertyLayout::Cuda,
                get_properties: function(runtime, properties)?,
                get_attribute: function(runtime, "cudaDeviceGetAttribute")?,
                get_pointer_attributes: function(runtime, "cudaPointerGetAttributes")?,
                host_malloc: function(runtime, "cudaHostAlloc")?,
                event_create: function(runtime, "cudaEventCreateWithFlags")?,
                update: Update::Info(function(runtime, "cudaGraphExecUpdate")?),
                capture_info: if is_12 {
                    GetCaptureInfo::Six(function(runtime, SIX)?)
                } else {
                    GetCaptureInfo::Seven(function(runtime, "cudaStreamGetCaptureInfo")?)
                },
            })
        }
    }
}

unsafe fn function<F: Copy>(runtime: &Library, name: &'static str) -> Result<F, &'static str> {
    let address = runtime.symbol(name).ok_or(name)?;
    // SAFETY: the caller names a function with the signature `F`.
    Ok(unsafe { as_function(address) })
}

/// What a stream records, as [`Hip::stream_get_capture_info`] answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CaptureInfo {
    /// Whether it records.
    pub status: CaptureStatus,
    /// The capture's number in this process; zero where there is none.
    pub id: u64,
    /// The graph that grows; null where there is none.
    pub graph: hipGraph_t,
    /// After how many nodes the next one would come.
    pub n_dependencies: usize,
}

impl Hip {
    /// `hipHostMalloc`; flags that the platform does not know are left out.
    ///
    /// # Errors
    ///
    /// What the runtime answers, such as [`Fault::OutOfMemory`](crate::Fault::OutOfMemory).
    ///
    /// # Safety
    ///
    /// The place is valid during the call.
    pub unsafe fn host_malloc(
        &self,
        address: *mut *mut c_void,
        n_bytes: usize,
        flags: HostMallocFlags,
    ) -> Result<(), HipError> {
        let flags = masked(self.platform(), flags.0);
        // SAFETY: the caller vouches for the place.
        let status = unsafe { (self.differing.host_malloc)(address, n_bytes, flags) };
        self.check("hipHostMalloc", status)
    }

    /// `hipEventCreateWithFlags`; flags that the platform does not know are left out.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    ///
    /// # Safety
    ///
    /// The place is valid during the call.
    pub unsafe fn event_create_with_flags(
        &self,
        event: *mut hipEvent_t,
        flags: EventFlags,
    ) -> Result<(), HipError> {
        let flags = masked(self.platform(), flags.0);
        // SAFETY: the caller vouches for the place.
        let status = unsafe { (self.differing.event_create)(event, flags) };
        self.check("hipEventCreateWithFlags", status)
    }

    /// `hipStreamGetCaptureInfo_v2`.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    ///
    /// # Safety
    ///
    /// The stream is alive.
    pub unsafe fn stream_get_capture_info(
        &self,
        stream: hipStream_t,
    ) -> Result<CaptureInfo, HipError> {
        let (mut status, mut id, mut graph) = (CaptureStatus::NONE, 0, ptr::null_mut());
        let (mut nodes, mut n_dependencies) = (ptr::null(), 0);
        let answer = match self.differing.capture_info {
            // SAFETY: the caller vouches for the stream, and the places are ours.
            GetCaptureInfo::Six(ask) => unsafe {
                ask(stream, &mut status, &mut id, &mut graph, &mut nodes, &mut n_dependencies)
            },
            GetCaptureInfo::Seven(ask) => {
                let mut edges = ptr::null();
                // SAFETY: as above. Without a place for the edges, an edge with data is an error.
                unsafe {
                    ask(
                        stream,
                        &mut status,
                        &mut id,
                        &mut graph,
                        &mut nodes,
                        &mut edges,
                        &mut n_dependencies,
                    )
                }
            }
        };
        self.check("hipStreamGetCaptureInfo", answer)?;
        let is_none = status == CaptureStatus::NONE;
        let (id, graph) = if is_none { (0, ptr::null_mut()) } else { (id, graph) };
        let n_dependencies = if is_none { 0 } else { n_dependencies };
        Ok(CaptureInfo { status, id, graph, n_dependencies })
    }

    /// `hipGraphInstantiate`, by the function with flags, which is the same on both platforms; HIP's
    /// own form with a place for a log is gone from CUDA, and no runtime writes the log.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    ///
    /// # Safety
    ///
    /// The place is valid during the call, and the graph is alive.
    pub unsafe fn graph_instantiate(
        &self,
        executable: *mut hipGraphExec_t,
        graph: hipGraph_t,
    ) -> Result<(), HipError> {
        // SAFETY: the caller vouches for both.
        unsafe { self.graph_instantiate_with_flags(executable, graph, 0) }
    }

    /// `hipGraphExecUpdate`: the answer that the runtime gave beside the status.
    ///
    /// # Errors
    ///
    /// [`Fault::GraphExecUpdateFailure`](crate::Fault::GraphExecUpdateFailure) where the graphs are
    /// too different.
    ///
    /// # Safety
    ///
    /// Both graphs are alive, and `executable` is not being launched.
    pub unsafe fn graph_exec_update(
        &self,
        executable: hipGraphExec_t,
        graph: hipGraph_t,
    ) -> Result<(), HipError> {
        let status = match self.differing.update {
            Update::Result(update) => {
                let (mut node, mut result) = (ptr::null_mut(), UpdateResult::SUCCESS);
                // SAFETY: the caller vouches for the graphs, and the places are ours.
                unsafe { update(executable, graph, &mut node, &mut result) }
            }
            Update::Info(update) => {
                let (error_node, error_from_node) = (ptr::null_mut(), ptr::null_mut());
                let mut info =
                    UpdateInfo { result: UpdateResult::SUCCESS, error_node, error_from_node };
                // SAFETY: as above; the structure is CUDA's.
                unsafe { update(executable, graph, &mut info) }
            }
        };
        self.check("hipGraphExecUpdate", status)
    }

    /// `hipGraphUpload`, where the runtime has it: the next launch finds the graph on the device.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    ///
    /// # Safety
    ///
    /// Both handles are alive.
    pub unsafe fn graph_upload(
        &self,
        executable: hipGraphExec_t,
        stream: hipStream_t,
    ) -> Result<(), HipError> {
        let Some(upload) = self.api.graph_upload else { return Ok(()) };
        // SAFETY: the caller vouches for the handles.
        let status = unsafe { upload(executable, stream) };
        self.check("hipGraphUpload", status)
    }

    /// Writes the properties of a device into `place`; how they are laid out says the table.
    pub(crate) fn get_properties(
        &self,
        place: &mut device::PropertyBytes,
        device: c_int,
    ) -> Result<(), HipError> {
        let place: *mut device::PropertyBytes = place;
        // SAFETY: the place is aligned and larger than any version's structure.
        let status = unsafe { (self.differing.get_properties)(place.cast(), device) };
        self.check("hipGetDeviceProperties", status)
    }

    /// One number about a device (`hipDeviceGetAttribute`).
    ///
    /// # Errors
    ///
    /// [`Fault::InvalidDevice`](crate::Fault::InvalidDevice) for a number that no device has.
    pub fn device_attribute(
        &self,
        attribute: DeviceAttribute,
        device: usize,
    ) -> Result<c_int, HipError> {
        let mut value = 0;
        let number = attribute.number(self.platform());
        let device = crate::open::ordinal(device);
        // SAFETY: the place is ours, and numbers are checked by the runtime.
        let status = unsafe { (self.differing.get_attribute)(&mut value, number, device) };
        self.check("hipDeviceGetAttribute", status)?;
        Ok(value)
    }

    /// What the runtime knows about an address (`hipPointerGetAttributes`). Memory that it does not
    /// know is [`PointerKind::Unregistered`](crate::PointerKind::Unregistered) on every platform.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    pub fn pointer_attributes(&self, address: usize) -> Result<PointerAttributes, HipError> {
        let mut place = device::PointerBytes::default();
        let target: *mut device::PointerBytes = &mut place;
        let pointer = ptr::without_provenance(address);
        // SAFETY: the place is aligned and larger than either platform's structure, and the address is
        // looked up, not followed.
        let status = unsafe { (self.differing.get_pointer_attributes)(target.cast(), pointer) };
        match self.check("hipPointerGetAttributes", status) {
            // HIP has an error where CUDA has a kind.
            Err(error) if error.fault == crate::Fault::InvalidValue => {
                Ok(PointerAttributes::unregistered())
            }
            answer => answer.map(|()| place.read(self.differing.layout)),
        }
    }
}

/// HIP's own flags lie in the upper bits; CUDA refuses what it does not know.
fn masked(platform: Platform, flags: c_uint) -> c_uint {
    match platform {
        Platform::Amd => flags,
        Platform::Nvidia => flags & 0x0fff_ffff,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_amd_do_not_reach_cuda() {
        let flags = HostMallocFlags::PORTABLE.0 | HostMallocFlags::NON_COHERENT.0;
        assert_eq!(masked(Platform::Nvidia, flags), HostMallocFlags::PORTABLE.0);
        assert_eq!(masked(Platform::Amd, flags), flags);
    }
}

//! The functions that are the same on both platforms.
//!
//! Signatures were compared with `hip_runtime_api.h` of HIP 5.2 and 6.4 and with `cuda_runtime_api.h`
//! of CUDA 13.0.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};

use crate::types::{
    CaptureMode, CaptureStatus, HostFunction, MemcpyKind, NodeKind, Status, StreamFlags,
    hipEvent_t, hipFunction_t, hipGraph_t, hipGraphExec_t, hipGraphNode_t, hipModule_t,
    hipStream_t,
};

functions! {
    required {
        init "hipInit" "cuInit" (flags: c_uint);
        get_device_count "hipGetDeviceCount" "cudaGetDeviceCount" (count: *mut c_int);
        set_device "hipSetDevice" "cudaSetDevice" (device: c_int);
        get_device "hipGetDevice" "cudaGetDevice" (device: *mut c_int);
        device_synchronize "hipDeviceSynchronize" "cudaDeviceSynchronize" ();
        device_get_pci_bus_id "hipDeviceGetPCIBusId" "cudaDeviceGetPCIBusId" (text: *mut c_char, length: c_int, device: c_int);
        runtime_get_version "hipRuntimeGetVersion" "cudaRuntimeGetVersion" (version: *mut c_int);
        driver_get_version "hipDriverGetVersion" "cudaDriverGetVersion" (version: *mut c_int);
        mem_get_info "hipMemGetInfo" "cudaMemGetInfo" (free: *mut usize, total: *mut usize);
        malloc "hipMalloc" "cudaMalloc" (address: *mut *mut c_void, n_bytes: usize);
        free "hipFree" "cudaFree" (address: *mut c_void);
        host_free "hipHostFree" "cudaFreeHost" (address: *mut c_void);
        host_register "hipHostRegister" "cudaHostRegister" (address: *mut c_void, n_bytes: usize, flags: c_uint);
        host_unregister "hipHostUnregister" "cudaHostUnregister" (address: *mut c_void);
        memcpy "hipMemcpy" "cudaMemcpy" (to: *mut c_void, from: *const c_void, n_bytes: usize, kind: MemcpyKind);
        memcpy_async "hipMemcpyAsync" "cudaMemcpyAsync" (to: *mut c_void, from: *const c_void, n_bytes: usize, kind: MemcpyKind, stream: hipStream_t);
        memset_async "hipMemsetAsync" "cudaMemsetAsync" (to: *mut c_void, byte: c_int, n_bytes: usize, stream: hipStream_t);
        stream_create_with_flags "hipStreamCreateWithFlags" "cudaStreamCreateWithFlags" (stream: *mut hipStream_t, flags: StreamFlags);
        stream_destroy "hipStreamDestroy" "cudaStreamDestroy" (stream: hipStream_t);
        stream_synchronize "hipStreamSynchronize" "cudaStreamSynchronize" (stream: hipStream_t);
        stream_query "hipStreamQuery" "cudaStreamQuery" (stream: hipStream_t);
        stream_wait_event "hipStreamWaitEvent" "cudaStreamWaitEvent" (stream: hipStream_t, event: hipEvent_t, flags: c_uint);
        stream_begin_capture "hipStreamBeginCapture" "cudaStreamBeginCapture" (stream: hipStream_t, mode: CaptureMode);
        stream_end_capture "hipStreamEndCapture" "cudaStreamEndCapture" (stream: hipStream_t, graph: *mut hipGraph_t);
        stream_is_capturing "hipStreamIsCapturing" "cudaStreamIsCapturing" (stream: hipStream_t, status: *mut CaptureStatus);
        thread_exchange_stream_capture_mode "hipThreadExchangeStreamCaptureMode" "cudaThreadExchangeStreamCaptureMode" (mode: *mut CaptureMode);
        launch_host_func "hipLaunchHostFunc" "cudaLaunchHostFunc" (stream: hipStream_t, function: HostFunction, data: *mut c_void);
        event_destroy "hipEventDestroy" "cudaEventDestroy" (event: hipEvent_t);
        event_record "hipEventRecord" "cudaEventRecord" (event: hipEvent_t, stream: hipStream_t);
        event_synchronize "hipEventSynchronize" "cudaEventSynchronize" (event: hipEvent_t);
        event_query "hipEventQuery" "cudaEventQuery" (event: hipEvent_t);
        event_elapsed_time "hipEventElapsedTime" "cudaEventElapsedTime" (milliseconds: *mut f32, start: hipEvent_t, stop: hipEvent_t);
        graph_create "hipGraphCreate" "cudaGraphCreate" (graph: *mut hipGraph_t, flags: c_uint);
        graph_destroy "hipGraphDestroy" "cudaGraphDestroy" (graph: hipGraph_t);
        graph_get_nodes "hipGraphGetNodes" "cudaGraphGetNodes" (graph: hipGraph_t, nodes: *mut hipGraphNode_t, count: *mut usize);
        graph_node_get_type "hipGraphNodeGetType" "cudaGraphNodeGetType" (node: hipGraphNode_t, kind: *mut NodeKind);
        graph_instantiate_with_flags "hipGraphInstantiateWithFlags" "cudaGraphInstantiateWithFlags" (executable: *mut hipGraphExec_t, graph: hipGraph_t, flags: c_ulonglong);
        graph_launch "hipGraphLaunch" "cudaGraphLaunch" (executable: hipGraphExec_t, stream: hipStream_t);
        graph_exec_destroy "hipGraphExecDestroy" "cudaGraphExecDestroy" (executable: hipGraphExec_t);
        module_load_data "hipModuleLoadData" "cuModuleLoadData" (module: *mut hipModule_t, code: *const c_void);
        module_get_function "hipModuleGetFunction" "cuModuleGetFunction" (function: *mut hipFunction_t, module: hipModule_t, name: *const c_char);
        module_unload "hipModuleUnload" "cuModuleUnload" (module: hipModule_t);
        module_launch_kernel "hipModuleLaunchKernel" "cuLaunchKernel" (function: hipFunction_t, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint, block_z: c_uint, shared_bytes: c_uint, stream: hipStream_t, parameters: *mut *mut c_void, extra: *mut *mut c_void);
    }
    optional {
        malloc_async "hipMallocAsync" "cudaMallocAsync" (address: *mut *mut c_void, n_bytes: usize, stream: hipStream_t);
        free_async "hipFreeAsync" "cudaFreeAsync" (address: *mut c_void, stream: hipStream_t);
        graph_upload "hipGraphUpload" "cudaGraphUpload" (executable: hipGraphExec_t, stream: hipStream_t);
        graph_debug_dot_print "hipGraphDebugDotPrint" "cudaGraphDebugDotPrint" (graph: hipGraph_t, path: *const c_char, flags: c_uint);
    }
    plain {
        get_last_error "hipGetLastError" "cudaGetLastError" () -> Status;
        peek_at_last_error "hipPeekAtLastError" "cudaPeekAtLastError" () -> Status;
        get_error_name "hipGetErrorName" "cudaGetErrorName" (status: Status) -> *const c_char;
        get_error_string "hipGetErrorString" "cudaGetErrorString" (status: Status) -> *const c_char;
    }
}

impl std::fmt::Debug for Api {
    /// Which optional functions are there; the required ones always are.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api")
            .field("malloc_async", &self.malloc_async.is_some())
            .field("free_async", &self.free_async.is_some())
            .field("graph_upload", &self.graph_upload.is_some())
            .field("graph_debug_dot_print", &self.graph_debug_dot_print.is_some())
            .finish_non_exhaustive()
    }
}

//! The declarations, after the headers of ggml 0.26.

#![allow(non_camel_case_types, reason = "the names are those of the C headers")]

use std::ffi::{c_char, c_int, c_void};
use std::ptr::NonNull;

/// How many axes a tensor has at most.
pub const MAX_DIMS: usize = 4;

/// A tensor's element type.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ggml_type(pub c_int);

impl ggml_type {
    /// IEEE 754 binary32.
    pub const F32: Self = Self(0);
    /// IEEE 754 binary16.
    pub const F16: Self = Self(1);
    /// Blocks of 32 elements of 8 bits, with a scale each.
    pub const Q8_0: Self = Self(8);
    /// Blocks of 256 elements of 4 bits, with scales and minima.
    pub const Q4_K: Self = Self(12);
    /// Signed, 32 bits.
    pub const I32: Self = Self(26);
    /// The upper half of an IEEE 754 binary32.
    pub const BF16: Self = Self(30);
}

/// What an operator's sums may be rounded to.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ggml_prec(pub c_int);

impl ggml_prec {
    /// IEEE 754 binary32.
    pub const F32: Self = Self(10);
}

/// What a computation answers.
#[must_use]
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ggml_status(pub c_int);

impl ggml_status {
    /// Memory could not be had.
    pub const ALLOC_FAILED: Self = Self(-2);
    /// Another failure.
    pub const FAILED: Self = Self(-1);
    /// It was computed.
    pub const SUCCESS: Self = Self(0);
    /// It was ended by a callback.
    pub const ABORTED: Self = Self(1);
}

/// What kind of device computes.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ggml_backend_dev_type(pub c_int);

impl ggml_backend_dev_type {
    /// The processor, on system memory.
    pub const CPU: Self = Self(0);
    /// A device with memory of its own.
    pub const GPU: Self = Self(1);
    /// A device on system memory.
    pub const IGPU: Self = Self(2);
}

/// How a buffer is used.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ggml_backend_buffer_usage(pub c_int);

impl ggml_backend_buffer_usage {
    /// It holds weights.
    pub const WEIGHTS: Self = Self(1);
}

/// The memory pool of a context.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ggml_init_params {
    /// Bytes.
    pub mem_size: usize,
    /// Null to have the library allocate it.
    pub mem_buffer: *mut c_void,
    /// Whether the pool holds descriptions only, and data is allocated elsewhere.
    pub no_alloc: bool,
}

/// What a pool of threads is made with; filled by `threadpool_params_init`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ggml_threadpool_params {
    /// Cores to run on; none for any.
    pub cpumask: [bool; 512],
    /// Threads, the caller's own included.
    pub n_threads: c_int,
    /// Their priority.
    pub prio: c_int,
    /// How long they spin for the next graph: 0 not at all, 100 always.
    pub poll: u32,
    /// Whether each is bound to its core.
    pub strict_cpu: bool,
    /// Whether they start asleep.
    pub paused: bool,
}

opaque! {
    ggml_context
    ggml_tensor
    ggml_cgraph
    ggml_gallocr
    ggml_threadpool
    ggml_backend
    ggml_backend_buffer
    ggml_backend_buffer_type
    ggml_backend_device
    ggml_backend_reg
    ggml_backend_sched
    gguf_context
}

/// Receives what the library would print.
pub type ggml_log_callback =
    Option<unsafe extern "C" fn(level: c_int, text: *const c_char, data: *mut c_void)>;

/// `ggml_backend_set_n_threads`, asked of a registry by that name.
pub type ggml_backend_set_n_threads_t =
    unsafe extern "C" fn(backend: *mut ggml_backend, n_threads: c_int);
/// `ggml_threadpool_new`, asked of a registry by that name.
pub type ggml_threadpool_new_t =
    unsafe extern "C" fn(params: *mut ggml_threadpool_params) -> *mut ggml_threadpool;
/// `ggml_threadpool_free`, asked of a registry by that name.
pub type ggml_threadpool_free_t = unsafe extern "C" fn(pool: *mut ggml_threadpool);
/// `ggml_backend_cpu_set_threadpool`, asked of a registry by that name.
pub type ggml_backend_cpu_set_threadpool_t =
    unsafe extern "C" fn(backend: *mut ggml_backend, pool: *mut ggml_threadpool);

/// Computes part `ith` of `nth` of an operator that the library does not have.
pub type ggml_custom_op_t =
    unsafe extern "C" fn(dst: *mut ggml_tensor, ith: c_int, nth: c_int, userdata: *mut c_void);

/// As many parts as there are threads.
pub const N_TASKS_MAX: c_int = -1;

functions! {
    "ggml_version" version() -> *const c_char;
    "ggml_commit" commit() -> *const c_char;
    "ggml_log_set" log_set(callback: ggml_log_callback, data: *mut c_void);
    "ggml_init" init(params: ggml_init_params) -> *mut ggml_context;
    "ggml_free" free(ctx: *mut ggml_context);
    "ggml_tensor_overhead" tensor_overhead() -> usize;
    "ggml_graph_overhead_custom" graph_overhead_custom(size: usize, grads: bool) -> usize;
    "ggml_type_name" type_name(type_: ggml_type) -> *const c_char;
    "ggml_type_size" type_size(type_: ggml_type) -> usize;
    "ggml_blck_size" blck_size(type_: ggml_type) -> i64;
    "ggml_row_size" row_size(type_: ggml_type, ne: i64) -> usize;
    "ggml_nbytes" nbytes(tensor: *const ggml_tensor) -> usize;
    "ggml_get_data" get_data(tensor: *const ggml_tensor) -> *mut c_void;
    "ggml_nelements" nelements(tensor: *const ggml_tensor) -> i64;
    "ggml_new_tensor" new_tensor(ctx: *mut ggml_context, type_: ggml_type, n_dims: c_int, ne: *const i64) -> *mut ggml_tensor;
    "ggml_set_name" set_name(tensor: *mut ggml_tensor, name: *const c_char) -> *mut ggml_tensor;
    "ggml_set_input" set_input(tensor: *mut ggml_tensor);
    "ggml_set_output" set_output(tensor: *mut ggml_tensor);
    "ggml_new_graph_custom" new_graph_custom(ctx: *mut ggml_context, size: usize, grads: bool) -> *mut ggml_cgraph;
    "ggml_build_forward_expand" build_forward_expand(graph: *mut ggml_cgraph, tensor: *mut ggml_tensor);
    "ggml_graph_n_nodes" graph_n_nodes(graph: *mut ggml_cgraph) -> c_int;
    "ggml_abs" abs(ctx: *mut ggml_context, a: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_neg" neg(ctx: *mut ggml_context, a: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_exp" exp(ctx: *mut ggml_context, a: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_log" log(ctx: *mut ggml_context, a: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_sqrt" sqrt(ctx: *mut ggml_context, a: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_sqr" sqr(ctx: *mut ggml_context, a: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_sin" sin(ctx: *mut ggml_context, a: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_cos" cos(ctx: *mut ggml_context, a: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_tanh" tanh(ctx: *mut ggml_context, a: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_relu" relu(ctx: *mut ggml_context, a: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_sigmoid" sigmoid(ctx: *mut ggml_context, a: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_silu" silu(ctx: *mut ggml_context, a: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_gelu" gelu(ctx: *mut ggml_context, a: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_gelu_erf" gelu_erf(ctx: *mut ggml_context, a: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_geglu_erf" geglu_erf(ctx: *mut ggml_context, a: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_gelu_quick" gelu_quick(ctx: *mut ggml_context, a: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_floor" floor(ctx: *mut ggml_context, a: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_ceil" ceil(ctx: *mut ggml_context, a: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_cont" cont(ctx: *mut ggml_context, a: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_soft_max" soft_max(ctx: *mut ggml_context, a: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_sum_rows" sum_rows(ctx: *mut ggml_context, a: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_mean" mean(ctx: *mut ggml_context, a: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_transpose" transpose(ctx: *mut ggml_context, a: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_add" add(ctx: *mut ggml_context, a: *mut ggml_tensor, b: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_sub" sub(ctx: *mut ggml_context, a: *mut ggml_tensor, b: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_mul" mul(ctx: *mut ggml_context, a: *mut ggml_tensor, b: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_div" div(ctx: *mut ggml_context, a: *mut ggml_tensor, b: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_mul_mat" mul_mat(ctx: *mut ggml_context, a: *mut ggml_tensor, b: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_prec_set_acc" prec_set_acc(a: *mut ggml_tensor, prec: ggml_prec) -> bool;
    "ggml_get_rows" get_rows(ctx: *mut ggml_context, a: *mut ggml_tensor, b: *mut ggml_tensor) -> *mut ggml_tensor;
    "ggml_scale_bias" scale_bias(ctx: *mut ggml_context, a: *mut ggml_tensor, s: f32, b: f32) -> *mut ggml_tensor;
    "ggml_clamp" clamp(ctx: *mut ggml_context, a: *mut ggml_tensor, min: f32, max: f32) -> *mut ggml_tensor;
    "ggml_norm" norm(ctx: *mut ggml_context, a: *mut ggml_tensor, eps: f32) -> *mut ggml_tensor;
    "ggml_rms_norm" rms_norm(ctx: *mut ggml_context, a: *mut ggml_tensor, eps: f32) -> *mut ggml_tensor;
    "ggml_soft_max_ext" soft_max_ext(ctx: *mut ggml_context, a: *mut ggml_tensor, mask: *mut ggml_tensor, scale: f32, max_bias: f32) -> *mut ggml_tensor;
    "ggml_concat" concat(ctx: *mut ggml_context, a: *mut ggml_tensor, b: *mut ggml_tensor, dim: c_int) -> *mut ggml_tensor;
    "ggml_cast" cast(ctx: *mut ggml_context, a: *mut ggml_tensor, type_: ggml_type) -> *mut ggml_tensor;
    "ggml_reshape_4d" reshape_4d(ctx: *mut ggml_context, a: *mut ggml_tensor, ne0: i64, ne1: i64, ne2: i64, ne3: i64) -> *mut ggml_tensor;
    "ggml_cont_4d" cont_4d(ctx: *mut ggml_context, a: *mut ggml_tensor, ne0: i64, ne1: i64, ne2: i64, ne3: i64) -> *mut ggml_tensor;
    "ggml_repeat_4d" repeat_4d(ctx: *mut ggml_context, a: *mut ggml_tensor, ne0: i64, ne1: i64, ne2: i64, ne3: i64) -> *mut ggml_tensor;
    "ggml_permute" permute(ctx: *mut ggml_context, a: *mut ggml_tensor, axis0: c_int, axis1: c_int, axis2: c_int, axis3: c_int) -> *mut ggml_tensor;
    "ggml_view_4d" view_4d(ctx: *mut ggml_context, a: *mut ggml_tensor, ne0: i64, ne1: i64, ne2: i64, ne3: i64, nb1: usize, nb2: usize, nb3: usize, offset: usize) -> *mut ggml_tensor;
    "ggml_rope_ext" rope_ext(ctx: *mut ggml_context, a: *mut ggml_tensor, b: *mut ggml_tensor, c: *mut ggml_tensor, n_dims: c_int, mode: c_int, n_ctx_orig: c_int, freq_base: f32, freq_scale: f32, ext_factor: f32, attn_factor: f32, beta_fast: f32, beta_slow: f32) -> *mut ggml_tensor;
    "ggml_flash_attn_ext" flash_attn_ext(ctx: *mut ggml_context, q: *mut ggml_tensor, k: *mut ggml_tensor, v: *mut ggml_tensor, mask: *mut ggml_tensor, scale: f32, max_bias: f32, logit_softcap: f32) -> *mut ggml_tensor;
    "ggml_custom_4d" custom_4d(ctx: *mut ggml_context, type_: ggml_type, ne0: i64, ne1: i64, ne2: i64, ne3: i64, args: *mut *mut ggml_tensor, n_args: c_int, fun: ggml_custom_op_t, n_tasks: c_int, userdata: *mut c_void) -> *mut ggml_tensor;
    "ggml_quantize_chunk" quantize_chunk(type_: ggml_type, src: *const f32, dst: *mut c_void, start: i64, nrows: i64, n_per_row: i64, imatrix: *const f32) -> usize;
    "ggml_threadpool_params_init" threadpool_params_init(params: *mut ggml_threadpool_params, n_threads: c_int);
    "ggml_backend_dev_count" backend_dev_count() -> usize;
    "ggml_backend_dev_get" backend_dev_get(index: usize) -> *mut ggml_backend_device;
    "ggml_backend_dev_by_name" backend_dev_by_name(name: *const c_char) -> *mut ggml_backend_device;
    "ggml_backend_dev_by_type" backend_dev_by_type(type_: ggml_backend_dev_type) -> *mut ggml_backend_device;
    "ggml_backend_dev_name" backend_dev_name(device: *mut ggml_backend_device) -> *const c_char;
    "ggml_backend_dev_description" backend_dev_description(device: *mut ggml_backend_device) -> *const c_char;
    "ggml_backend_dev_type" backend_dev_type(device: *mut ggml_backend_device) -> ggml_backend_dev_type;
    "ggml_backend_dev_backend_reg" backend_dev_backend_reg(device: *mut ggml_backend_device) -> *mut ggml_backend_reg;
    "ggml_backend_dev_init" backend_dev_init(device: *mut ggml_backend_device, params: *const c_char) -> *mut ggml_backend;
    "ggml_backend_dev_supports_op" backend_dev_supports_op(device: *mut ggml_backend_device, op: *const ggml_tensor) -> bool;
    "ggml_backend_dev_buffer_from_host_ptr" backend_dev_buffer_from_host_ptr(device: *mut ggml_backend_device, ptr: *mut c_void, size: usize, max_tensor_size: usize) -> *mut ggml_backend_buffer;
    "ggml_backend_reg_get_proc_address" backend_reg_get_proc_address(reg: *mut ggml_backend_reg, name: *const c_char) -> *mut c_void;
    "ggml_backend_load" backend_load(path: *const c_char) -> *mut ggml_backend_reg;
    "ggml_backend_load_all_from_path" backend_load_all_from_path(folder: *const c_char);
    "ggml_backend_free" backend_free(backend: *mut ggml_backend);
    "ggml_backend_get_default_buffer_type" backend_get_default_buffer_type(backend: *mut ggml_backend) -> *mut ggml_backend_buffer_type;
    "ggml_backend_buft_get_max_size" backend_buft_get_max_size(type_: *mut ggml_backend_buffer_type) -> usize;
    "ggml_backend_alloc_ctx_tensors" backend_alloc_ctx_tensors(ctx: *mut ggml_context, backend: *mut ggml_backend) -> *mut ggml_backend_buffer;
    "ggml_backend_graph_compute" backend_graph_compute(backend: *mut ggml_backend, graph: *mut ggml_cgraph) -> ggml_status;
    "ggml_backend_buffer_free" backend_buffer_free(buffer: *mut ggml_backend_buffer);
    "ggml_backend_buffer_get_size" backend_buffer_get_size(buffer: *mut ggml_backend_buffer) -> usize;
    "ggml_backend_buffer_set_usage" backend_buffer_set_usage(buffer: *mut ggml_backend_buffer, usage: ggml_backend_buffer_usage);
    "ggml_backend_tensor_alloc" backend_tensor_alloc(buffer: *mut ggml_backend_buffer, tensor: *mut ggml_tensor, addr: *mut c_void) -> ggml_status;
    "ggml_backend_tensor_set" backend_tensor_set(tensor: *mut ggml_tensor, data: *const c_void, offset: usize, size: usize);
    "ggml_backend_tensor_get" backend_tensor_get(tensor: *const ggml_tensor, data: *mut c_void, offset: usize, size: usize);
    "ggml_gallocr_new" gallocr_new(type_: *mut ggml_backend_buffer_type) -> *mut ggml_gallocr;
    "ggml_gallocr_free" gallocr_free(allocator: *mut ggml_gallocr);
    "ggml_gallocr_reserve" gallocr_reserve(allocator: *mut ggml_gallocr, graph: *mut ggml_cgraph) -> bool;
    "ggml_gallocr_alloc_graph" gallocr_alloc_graph(allocator: *mut ggml_gallocr, graph: *mut ggml_cgraph) -> bool;
    "ggml_gallocr_get_buffer_size" gallocr_get_buffer_size(allocator: *mut ggml_gallocr, index: c_int) -> usize;
    "ggml_backend_sched_new" backend_sched_new(backends: *mut *mut ggml_backend, types: *mut *mut ggml_backend_buffer_type, n_backends: c_int, graph_size: usize, parallel: bool, op_offload: bool) -> *mut ggml_backend_sched;
    "ggml_backend_sched_free" backend_sched_free(scheduler: *mut ggml_backend_sched);
    "ggml_backend_sched_reset" backend_sched_reset(scheduler: *mut ggml_backend_sched);
    "ggml_backend_sched_alloc_graph" backend_sched_alloc_graph(scheduler: *mut ggml_backend_sched, graph: *mut ggml_cgraph) -> bool;
    "ggml_backend_sched_graph_compute" backend_sched_graph_compute(scheduler: *mut ggml_backend_sched, graph: *mut ggml_cgraph) -> ggml_status;
    "gguf_init_empty" gguf_init_empty() -> *mut gguf_context;
    "gguf_free" gguf_free(ctx: *mut gguf_context);
    "gguf_get_n_kv" gguf_get_n_kv(ctx: *const gguf_context) -> i64;
    "gguf_get_n_tensors" gguf_get_n_tensors(ctx: *const gguf_context) -> i64;
    "gguf_set_kv" gguf_set_kv(ctx: *mut gguf_context, from: *const gguf_context);
    "gguf_set_val_u32" gguf_set_val_u32(ctx: *mut gguf_context, key: *const c_char, value: u32);
    "gguf_set_val_f32" gguf_set_val_f32(ctx: *mut gguf_context, key: *const c_char, value: f32);
    "gguf_set_val_str" gguf_set_val_str(ctx: *mut gguf_context, key: *const c_char, value: *const c_char);
    "gguf_add_tensor" gguf_add_tensor(ctx: *mut gguf_context, tensor: *const ggml_tensor);
    "gguf_write_to_file" gguf_write_to_file(ctx: *const gguf_context, path: *const c_char, only_meta: bool) -> bool;
}

//! Handles and numbers that cross the border; both platforms give them the same values.

use std::ffi::{c_int, c_uint, c_void};

macro_rules! handles {
    ($($name:ident, $pointer:ident, $what:literal;)*) => {
        $(
            #[doc = concat!("What [`", stringify!($pointer), "`] points to; only the runtime knows what is in it.")]
            #[repr(C)]
            #[derive(Debug)]
            pub struct $name {
                opaque: [u8; 0],
                /// Neither `Send` nor `Sync` nor `Unpin` by itself.
                marker: std::marker::PhantomData<(*mut u8, std::marker::PhantomPinned)>,
            }

            #[doc = concat!("A handle of ", $what, ".")]
            #[allow(non_camel_case_types, reason = "HIP's own name")]
            pub type $pointer = *mut $name;
        )*
    };
}

handles! {
    Stream, hipStream_t, "a stream; null is the default stream";
    Event, hipEvent_t, "an event";
    Graph, hipGraph_t, "a graph";
    GraphExec, hipGraphExec_t, "a graph that was made ready to launch";
    GraphNode, hipGraphNode_t, "a node of a graph";
    Module, hipModule_t, "loaded code";
    Function, hipFunction_t, "a kernel of a module";
}

/// A function that a stream calls on a thread of the runtime; it may call nothing of HIP.
pub type HostFunction = unsafe extern "C" fn(*mut c_void);

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident($inner:ty) { $($(#[$value_doc:meta])* $value:ident = $number:literal,)* })*) => {
        $(
            $(#[$doc])*
            #[repr(transparent)]
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
            pub struct $name(pub $inner);

            impl $name {
                $($(#[$value_doc])* pub const $value: Self = Self($number);)*
            }
        )*
    };
}

numbers! {
    /// What a call answered (`hipError_t`); [`Hip::check`](crate::Hip::check) makes an error of it.
    #[must_use]
    Status(c_int) {
        /// Everything went well.
        SUCCESS = 0,
    }

    /// From where to where a copy goes (`hipMemcpyKind`).
    MemcpyKind(c_int) {
        /// Host to host.
        HOST_TO_HOST = 0,
        /// Host to device.
        HOST_TO_DEVICE = 1,
        /// Device to host.
        DEVICE_TO_HOST = 2,
        /// Device to device.
        DEVICE_TO_DEVICE = 3,
        /// The runtime finds out from the addresses.
        DEFAULT = 4,
    }

    /// Whose calls may disturb a capture (`hipStreamCaptureMode`).
    CaptureMode(c_int) {
        /// Those of every thread.
        GLOBAL = 0,
        /// Those of the capturing thread.
        THREAD_LOCAL = 1,
        /// Nobody's.
        RELAXED = 2,
    }

    /// Whether a stream records (`hipStreamCaptureStatus`).
    CaptureStatus(c_int) {
        /// It runs what it is given.
        NONE = 0,
        /// It records what it is given.
        ACTIVE = 1,
        /// It recorded until something spoilt the capture, which has yet to be ended.
        INVALIDATED = 2,
    }

    /// What a node of a graph does (`hipGraphNodeType`); from 12 on the platforms differ.
    NodeKind(c_int) {
        /// Runs a kernel.
        KERNEL = 0,
        /// Copies memory.
        MEMCPY = 1,
        /// Fills memory.
        MEMSET = 2,
        /// Calls a function of the host.
        HOST = 3,
        /// Launches another graph.
        GRAPH = 4,
        /// Does nothing.
        EMPTY = 5,
    }

    /// What came of updating a graph in place (`hipGraphExecUpdateResult`).
    UpdateResult(c_int) {
        /// It was updated.
        SUCCESS = 0,
        /// It failed for another reason than the following.
        ERROR = 1,
        /// The graphs do not have the same nodes and edges.
        TOPOLOGY_CHANGED = 2,
    }

    /// How a stream behaves (`hipStreamCreateWithFlags`).
    StreamFlags(c_uint) {
        /// It waits for the default stream, and that for it.
        DEFAULT = 0,
        /// It has nothing to do with the default stream.
        NON_BLOCKING = 1,
    }

    /// How an event behaves (`hipEventCreateWithFlags`).
    EventFlags(c_uint) {
        /// It can be timed, and whoever waits for it spins.
        DEFAULT = 0,
        /// Whoever waits for it sleeps.
        BLOCKING_SYNC = 1,
        /// It cannot be timed, and costs less.
        DISABLE_TIMING = 2,
    }

    /// How pinned host memory behaves (`hipHostMalloc`).
    HostMallocFlags(c_uint) {
        /// As the runtime likes.
        DEFAULT = 0,
        /// Pinned for every device.
        PORTABLE = 1,
        /// Mapped into the devices' addresses.
        MAPPED = 2,
        /// Fast to write by the host and to read by a device; slow to read by the host.
        WRITE_COMBINED = 4,
        /// Caches of the device do not keep it. AMD only; nothing elsewhere.
        COHERENT = 0x4000_0000,
        /// Caches of the device may keep it. AMD only; nothing elsewhere.
        NON_COHERENT = 0x8000_0000,
    }
}

impl Status {
    /// Whether the call did what it was asked for; only then are its outputs written.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::SUCCESS
    }
}

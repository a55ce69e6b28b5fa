#![doc = include_str!("../README.md")]
#![allow(unsafe_code, reason = "calls of the HIP runtime")]

mod buffer;
mod cache;
mod deny;
mod device;
mod gate;
mod graph;
mod kernel;
mod layout;
mod ledger;
mod ring;
mod runner;
mod stream;
mod uses;

pub use buffer::{DeviceBuffer, PinnedBuffer};
pub use cache::{Action, BindingMode, Cache, Decision, EagerReason, Request, Settings, Statistics};
pub use deny::{Denial, DenialReason, denial_of};
pub use device::{Device, OpenError, Pinned};
pub use gate::{HeldOff, hold_off_captures};
pub use graph::{CaptureError, ExecutableGraph};
pub use kernel::{Kernel, Launch};
pub use layout::{Layout, SLOT_BYTES, Slot, Turn, Turns};
pub use ledger::{Ledger, LedgerError, Reservation};
pub use ring::{GatherError, StagingRing, Until};
pub use runner::{OffReason, Ran, RunError, Runner, Work};
pub use stream::{Event, Stamp, Stream, Timing};
